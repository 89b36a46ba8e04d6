import type { FastifyBaseLogger } from 'fastify'
import type { Database } from '../db/database.ts'
import { codeOf } from '../db/failures.ts'
import { awaitStoring, eraseTraces } from '../usage/traces.ts'
import { batchSizes, eraseBatch, findUnerased, noteErased } from './repository.ts'

export interface ErasureParts {
  database: Database
  log: FastifyBaseLogger
  /** How often it is looked for what another process has left, in milliseconds. */
  intervalMs?: number
}

export interface Erasure {
  /** A project has been deleted: erases what is left of it. Returns at once. */
  wake: () => void
  start: () => void
  /** Fulfils when the transaction that is running has ended; the rest is for the next start, or another process. */
  stop: () => Promise<void>
}

/**
 * Erases the keys of deleted projects, and what was written down of who called with them, batch by batch, off the request's path: after
 * each deletion, at the start, because a process may have ended in between, and again and again. Each batch is a transaction, so whatever ends this leaves no half of a key; several
 * processes may do it at once, they leave each other's keys out.
 */
export function createErasure ({ database, log, intervalMs = 60_000 }: ErasureParts): Erasure {
  let isWanted = false
  let isFailing = false
  const stopping = new AbortController()
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined

  /** @returns how many keys and traces of callers were erased. */
  async function eraseProject (projectId: string): Promise<number> {
    let after = ''
    const keys = await inBatches(batchSizes.afterwards, async size => {
      const { erased, last } = await database.transaction(async tx => await eraseBatch(tx, projectId, { after, size, locked: 'skip' }))
      after = last ?? after
      return { erased, isMore: last !== undefined }
    })
    await database.transaction(awaitStoring)
    const traces = await inBatches(batchSizes.traces, async size => {
      const erased = await database.transaction(async tx => await eraseTraces(tx, projectId, size))
      return { erased, isMore: erased > 0 }
    })
    if (!stopping.signal.aborted) await database.transaction(async tx => { await noteErased(tx, projectId) })
    return keys + traces
  }

  /** @returns how many were erased in all. */
  async function inBatches (size: number, erase: (size: number) => Promise<{ erased: number, isMore: boolean }>): Promise<number> {
    let erased = 0
    for (let isMore = true; isMore && !stopping.signal.aborted;) {
      try {
        const batch = await erase(size)
        erased += batch.erased
        isMore = batch.isMore
      } catch (error) {
        // Keys with very much in them, or a slow server: fewer at a time.
        if (size === 1 || !isTooSlow(error)) throw error
        size = Math.ceil(size / 2)
      }
    }
    return erased
  }

  /**
   * Until nothing is left, or only what somebody else is writing at this moment: that is for the next time, as is a project that cannot
   * be erased. Nobody else's keys stay because of it.
   */
  async function round (): Promise<Map<string, unknown>> {
    const failures = new Map<string, unknown>()
    for (let erased = 1; erased > 0 && !stopping.signal.aborted;) {
      erased = 0
      let last: string | undefined
      do {
        const found = await database.run(async db => await findUnerased(db, last))
        for (const projectId of found.filter(id => !failures.has(id))) {
          if (!stopping.signal.aborted) await eraseProject(projectId).then(count => { erased += count }, error => { failures.set(projectId, error) })
        }
        last = found.at(-1)
      } while (last !== undefined && !stopping.signal.aborted)
    }
    return failures
  }

  async function attempt (): Promise<void> {
    try {
      const [failure] = await round()
      if (failure !== undefined) return warn({ projectId: failure[0], err: failure[1] })
      if (isFailing) log.info('deleted projects are erased again')
      isFailing = false
    } catch (error) {
      warn({ err: error })
    }
  }

  /** Once, until all goes well again. */
  function warn (details: object): void {
    if (!isFailing) log.warn(details, 'what is left of deleted projects cannot be erased; it is tried again')
    isFailing = true
  }

  /** Rounds follow each other; whoever asks during one gets the next. */
  async function rounds (): Promise<void> {
    while (isWanted && !stopping.signal.aborted) {
      isWanted = false
      await attempt()
    }
    running = undefined
  }

  function wake (): void {
    isWanted = true
    if (!stopping.signal.aborted) running ??= rounds()
  }

  return {
    wake,
    start: () => {
      wake()
      timer = setInterval(wake, intervalMs).unref()
    },
    stop: async () => {
      stopping.abort()
      clearInterval(timer)
      await running
    }
  }
}

/** The statement's time was up; a lock that somebody holds is another thing. */
const isTooSlow = (error: unknown) => error instanceof Error && codeOf(error) === '57014'
