import { setTimeout as delay } from 'node:timers/promises'
import { StartError } from '@keygate/service-kit'
import { sql } from 'drizzle-orm'
import type { Database } from './database.ts'
import { codeOf, isRefusal, isUnavailable } from './failures.ts'

export interface Patience { patienceMs: number, onWait: (reason: string) => void }

/**
 * Waits until the database answers, since the parts of an installation may start in any order.
 *
 * @throws {StartError} it stays away for longer than `patienceMs`, or it refuses us, which waiting does not mend.
 */
export async function waitForDatabase (database: Database, { patienceMs, onWait }: Patience): Promise<void> {
  const deadline = performance.now() + patienceMs
  for (let attempt = 0; ; attempt++) {
    const failure = await database.run(async db => await db.execute(sql`SELECT 1`)).then(() => undefined, (error: Error) => error)
    if (failure === undefined) return
    const reason = reasonOf(failure)
    if (isRefusal(failure)) throw new StartError(`PostgreSQL refuses us: ${reason}. Check user, password and database in DATABASE_URL.`)
    if (!isUnavailable(failure)) throw new StartError(`PostgreSQL cannot be used: ${reason}. Check DATABASE_URL.`)
    if (performance.now() >= deadline) throw new StartError(`PostgreSQL cannot be reached: ${reason}. Start it, or check host and port in DATABASE_URL.`)
    if (attempt === 0) onWait(reason)
    await delay(200)
  }
}

/** A refused connection to a name with several addresses is an AggregateError whose own message is empty. */
function reasonOf (error: Error): string {
  return error.message === '' ? codeOf(error) : error.message
}
