import { busy } from '../errors.ts'

/** @param network whose turn it is. */
export type InTurn = <T>(network: string, work: () => Promise<T>) => Promise<T>

/** `each`: how many of all these places one network may have. */
export interface Places { atOnce: number, waiting: number, each: number }

/**
 * Lets so many pieces of work run at once and so many more wait: each digest of a password takes 19 MiB and a core for a while, and
 * whoever sends many sign-ins must not take the service's memory with them, nor from one network all the places.
 *
 * @throws {ProblemError} 503 when nobody more can wait, or nobody more of this network.
 */
export function createTurns ({ atOnce, waiting, each }: Places): InTurn {
  const queue: Array<() => void> = []
  const taken = new Map<string, number>()
  let running = 0
  return async (network, work) => {
    const own = taken.get(network) ?? 0
    if (own >= each || (running >= atOnce && queue.length >= waiting)) throw busy()
    taken.set(network, own + 1)
    if (running < atOnce) running++
    else await new Promise<void>(resolve => { queue.push(resolve) })
    try {
      return await work()
    } finally {
      const left = (taken.get(network) ?? 0) - 1
      if (left > 0) taken.set(network, left)
      else taken.delete(network)
      const next = queue.shift()
      if (next === undefined) running--
      else next() // the place is handed over
    }
  }
}
