import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { secretsLive } from '../idempotency/repository.ts'

/** A row of `secrets` that needs its pepper and its encryption key: one of a deleted project is used by nobody, and waits to be erased. */
export const isNeeded = sql`NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = project_id AND p.deleted_at IS NOT NULL)`

/** A row of `idempotency_keys` that needs its encryption key: an answer that is too old is shown to nobody with its secret, whoever has the key. */
export const isNeededReplay = sql`created_at > now() - ${secretsLive} AND ${isNeeded}`

export async function isPepperNeeded (db: Executor, id: string): Promise<boolean> {
  const [row] = await db.execute<{ needed: boolean }>(sql`SELECT EXISTS (SELECT 1 FROM secrets WHERE pepper_id = ${id} AND ${isNeeded}) AS needed`)
  return row?.needed === true
}
