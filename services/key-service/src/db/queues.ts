import { sql, type SQL } from 'drizzle-orm'
import type { Executor } from './database.ts'

/**
 * A lock that is for queueing alone. Unlike a row's it is fair: once somebody waits to be alone, who comes to share it waits behind.
 * A row that is always shared by somebody keeps who wants to change it waiting for ever.
 */
export interface Queue {
  /** A project with all that is in it; who its members are, or, under the id `operators`, the operators; a person; a service token. */
  of: 'project' | 'members' | 'person' | 'token'
  id: string
  /** Nobody else at the same time; else with all others who share it. */
  alone: boolean
}

/**
 * Queues until the transaction ends. Once in a transaction, for all that it needs, and before it locks any row: everybody takes theirs
 * in the same order, so nobody waits in a circle, and what is asked for twice is taken once, alone if one asks for that.
 */
export async function queueFor (tx: Executor, queues: Queue[]): Promise<void> {
  const strictest = new Map<string, boolean>()
  for (const { of, id, alone } of queues) strictest.set(`${of}:${id}`, alone || strictest.get(`${of}:${id}`) === true)
  const locks: SQL[] = [...strictest].sort(([one], [other]) => one < other ? -1 : 1)
    .map(([name, alone]) => alone ? sql`pg_advisory_xact_lock(hashtextextended(${name}, 0))` : sql`pg_advisory_xact_lock_shared(hashtextextended(${name}, 0))`)
  // A list is evaluated from left to right.
  if (locks.length > 0) await tx.execute(sql`SELECT ${sql.join(locks, sql`, `)}`)
}
