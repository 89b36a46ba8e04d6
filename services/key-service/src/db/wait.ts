import { setTimeout as delay } from 'node:timers/promises'
import { StartError } from '@keygate/service-kit'
import { sql } from 'drizzle-orm'
import type { Database } from './database.ts'
import { isRefusal, isUnavailable } from './failures.ts'
import { reasonOf } from './reason.ts'

export interface Patience {
  /** How long PostgreSQL may stay away, from when that is first noticed, in milliseconds. */
  patienceMs: number
  /** Told once, when the waiting begins. */
  onWait: (reason: string) => void
}

/**
 * Does the work again as long as it fails because PostgreSQL is away. It must be able to bear that: what one attempt has done
 * must not be in the way of the next.
 *
 * Rejects with the work's own failure.
 */
export async function patiently<T> (work: () => Promise<T>, { patienceMs, onWait }: Patience): Promise<T> {
  let deadline: number | undefined
  for (;;) {
    try {
      return await work()
    } catch (error) {
      const now = performance.now()
      const isFirst = deadline === undefined
      deadline ??= now + patienceMs
      if (!(error instanceof Error) || !isUnavailable(error) || now >= deadline) throw error
      if (isFirst) onWait(reasonOf(error))
      await delay(200)
    }
  }
}

/**
 * Waits until the database answers, since the parts of an installation may start in any order.
 *
 * @throws {StartError} it stays away for longer than `patienceMs`, or it refuses us, which waiting does not mend.
 */
export async function waitForDatabase (database: Database, patience: Patience): Promise<void> {
  const ask = async (): Promise<void> => { await database.run(async db => await db.execute(sql`SELECT 1`)) }
  await patiently(ask, patience).catch((error: Error) => { throw asStartError(error) })
}

/** @returns undefined when PostgreSQL does not refuse us, but fails in another way. */
export function refusal (error: Error): StartError | undefined {
  return isRefusal(error) ? new StartError(`PostgreSQL refuses us: ${reasonOf(error)}. Check user, password and database in DATABASE_URL.`) : undefined
}

function asStartError (error: Error): StartError {
  if (isUnavailable(error)) return new StartError(`PostgreSQL cannot be reached: ${reasonOf(error)}. Start it, or check host and port in DATABASE_URL.`)
  return refusal(error) ?? new StartError(`PostgreSQL cannot be used: ${reasonOf(error)}. Check DATABASE_URL.`)
}
