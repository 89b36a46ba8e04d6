import { UsageError, type Command, type Input } from './command.ts'
import { hint } from './help.ts'

type Options = Input['options']

export function optionalText (options: Options, name: string): string | undefined {
  const value = options[name]
  return typeof value === 'string' ? value : undefined
}

/** @throws {UsageError} without it. */
export function requiredText (options: Options, name: string, command: Command): string {
  const value = optionalText(options, name)
  if (value === undefined || value.trim() === '') throw new UsageError(`"${command.name}" wants --${name}.\n${hint(command)}`)
  return value
}

/** The project that `--project` names, in lower case; null without it. */
export function projectIdOf (options: Options, command: Command): string | null {
  const value = optionalText(options, 'project')
  if (value === undefined) return null
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value)) throw new UsageError(`--project must be the UUID of a project.\n${hint(command)}`)
  return value.toLowerCase()
}
