import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'

/** Any number, the same in every process: held in common by all that store usage, and alone by nobody for longer than a moment. */
const advisoryLock = 5394285

/**
 * What a project leaves of the people who called: rows of the log, and callers. They go when the project is deleted. Sums say nothing of anybody
 * and stay, as its keys' tombstones do.
 *
 * Batches come late, so whoever stores them looks whether the project still is there (`isErased`), from when this lock is held.
 */
export async function beginStoring (tx: Executor): Promise<void> {
  await tx.execute(sql`SELECT pg_advisory_xact_lock_shared(${advisoryLock})`)
}

/** Fulfils when all those have ended that began to store before now, and may have seen a project that has been deleted since. */
export async function awaitStoring (tx: Executor): Promise<void> {
  await tx.execute(sql`SELECT pg_advisory_xact_lock(${advisoryLock})`)
}

/** Of the row that is about to be written: its project was deleted. */
export const ofDeletedProject = sql`EXISTS (SELECT 1 FROM projects p WHERE p.id = "projectId" AND p.deleted_at IS NOT NULL)`

/** A condition: nothing is left of those who called. In the order of an index, because for any one row the planner may think of reading everything. */
export const hasNoTraces = (projectId: string) => sql`
  (SELECT true FROM usage_callers WHERE project_id = ${projectId} ORDER BY key_id LIMIT 1) IS NULL
  AND (SELECT true FROM request_log WHERE project_id = ${projectId} ORDER BY at LIMIT 1) IS NULL`

/**
 * Erases some of what is left, at most `size` rows.
 *
 * @returns how many rows were erased; 0: there was nothing, or only what somebody else is erasing at this moment.
 */
export async function eraseTraces (tx: Executor, projectId: string, size: number): Promise<number> {
  const callers = await eraseFrom(tx, { name: 'usage_callers', order: 'key_id' }, projectId, size)
  if (callers > 0) return callers
  // By the name of the partition: a row's place (ctid) counts within it alone.
  const [found] = await tx.execute<{ name: string }>(sql`
    SELECT c.relname AS name FROM (SELECT tableoid FROM request_log WHERE project_id = ${projectId} ORDER BY at LIMIT 1) r JOIN pg_class c ON c.oid = r.tableoid`)
  return found === undefined ? 0 : await eraseFrom(tx, { name: found.name, order: 'at' }, projectId, size)
}

async function eraseFrom (tx: Executor, { name, order }: { name: string, order: string }, projectId: string, size: number): Promise<number> {
  const table = sql.identifier(name)
  const [row] = await tx.execute<{ erased: number }>(sql`
    WITH gone AS (
      DELETE FROM ${table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM ${table} WHERE project_id = ${projectId} ORDER BY ${sql.identifier(order)} LIMIT ${size})) RETURNING 1
    ) SELECT count(*)::int AS erased FROM gone`)
  return row?.erased ?? 0
}
