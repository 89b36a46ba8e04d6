import type { Database } from '../db/database.ts'

/** Statements of exports that run at once, so that a process has connections left for everybody else however many exports there are. */
const exportsAtOnce = 2

/**
 * A search for exports: they take turns, statement by statement, first come, first served. Nobody is waiting for a page of a file in the way
 * that somebody waits for an answer, so the wait for a turn has no end of its own.
 */
export function searchInTurn (search: Database['search']): Database['search'] {
  const inTurn = createTurns(exportsAtOnce)
  return async work => await inTurn(async () => await search(work))
}

/** Lets so many pieces of work run at once; the others wait, and go on in the order in which they came. */
export function createTurns (atOnce: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: Array<() => void> = []
  let running = 0
  return async work => {
    if (running < atOnce) running++
    else await new Promise<void>(resolve => { waiting.push(resolve) })
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) running--
      else next() // whose turn is this one's
    }
  }
}
