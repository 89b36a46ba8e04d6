import { busy } from '../errors.ts'

export type InTurn = <T>(work: () => Promise<T>) => Promise<T>

/**
 * Lets so many pieces of work run at once and so many more wait: each digest of a password takes 19 MiB and a core for a while, and
 * whoever sends many sign-ins must not take the service's memory with them.
 *
 * @throws {ProblemError} 503 when nobody more can wait.
 */
export function createTurns ({ atOnce, waiting }: { atOnce: number, waiting: number }): InTurn {
  const queue: Array<() => void> = []
  let running = 0
  return async work => {
    if (running < atOnce) running++
    else if (queue.length < waiting) await new Promise<void>(resolve => { queue.push(resolve) })
    else throw busy()
    try {
      return await work()
    } finally {
      const next = queue.shift()
      if (next === undefined) running--
      else next() // the place is handed over
    }
  }
}
