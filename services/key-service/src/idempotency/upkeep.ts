import type { FastifyBaseLogger } from 'fastify'
import type { Database } from '../db/database.ts'
import { eraseOld } from './repository.ts'

export interface Upkeep { start: () => void, stop: () => Promise<void> }

/** Erases kept secrets and answers that are too old, at the start and then again and again. Several replicas may do so at once. */
export function createUpkeep ({ database, log, intervalMs = 60_000 }: { database: Database, log: FastifyBaseLogger, intervalMs?: number }): Upkeep {
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined

  function round (): void {
    running ??= database.run(eraseOld)
      .catch((error: Error) => { log.warn({ err: error }, 'old answers cannot be erased; the next round tries again') })
      .finally(() => { running = undefined })
  }

  return {
    start: () => {
      round()
      timer = setInterval(round, intervalMs).unref()
    },
    stop: async () => {
      clearInterval(timer)
      await running
    }
  }
}
