import { UsageError, type Command, type Input } from '../cli/command.ts'
import { hint } from '../cli/help.ts'

/** As a shell tells it of a program that Ctrl-C has ended. */
export const interrupted = 130

/** @throws {UsageError} it is given and no whole number from 1 to `max`. */
export function count (options: Input['options'], name: string, range: { default: number, max: number }, command: Command): number {
  const text = options[name]
  if (text === undefined) return range.default
  const number = Number(text)
  if (typeof text === 'string' && /^\d+$/.test(text) && number >= 1 && number <= range.max) return number
  throw new UsageError(`--${name} must be a whole number from 1 to ${range.max}, but is ${JSON.stringify(text)}.\n${hint(command)}`)
}

/** @throws {UsageError} it is given and no project's id. */
export function projectIn ({ project }: Input['options'], command: Command): string | undefined {
  if (project === undefined || /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(String(project))) return project as string | undefined
  throw new UsageError(`--project must be a project's id, but is ${JSON.stringify(project)}.\n${hint(command)}`)
}

/** Runs `work` with a signal that Ctrl-C aborts, so that it can end at a good place. */
export async function untilInterrupted<T> (work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController()
  const onInterrupt = (): void => { stop.abort() }
  process.on('SIGINT', onInterrupt)
  try {
    return await work(stop.signal)
  } finally {
    process.removeListener('SIGINT', onInterrupt)
  }
}
