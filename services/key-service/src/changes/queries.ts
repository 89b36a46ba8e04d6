import type { Change } from '@keygate/contracts'
import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'

export type ChangesRead = { data: Change[], cursor: string } | 'too-old'

/** The greatest xid8. */
const highest = 2n ** 64n - 1n

/**
 * Versions raised by transactions from `after` on, and the cursor for the next call: the oldest transaction that was still open.
 *
 * Rows, cursor and the memory of what was pruned come from one statement, so one snapshot: a row that is not visible yet belongs to
 * a transaction at or after the cursor. Ids of rows would not do: they are given before commits, which come in any order.
 *
 * @param after a cursor of an earlier answer; without one only the present cursor is told.
 * @param only the project that a bound token may see.
 */
export async function readChanges (db: Executor, after: string | undefined, only: string | null): Promise<ChangesRead> {
  if (after !== undefined && BigInt(after) > highest) return 'too-old'
  const from = after === undefined ? sql`NULL::xid8` : sql`${after}::text::xid8`
  const [page] = await db.execute<{ cursor: string, usable: boolean | null, data: Change[] }>(sql`
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS cursor,
      -- a cursor of the future is one of another database: this one was restored, and has forgotten what that one knew
      ${from} > (SELECT xid FROM outbox_pruned) AND ${from} <= pg_snapshot_xmin(pg_current_snapshot()) AS usable,
      coalesce((
        SELECT json_agg(json_build_object('projectId', c.project_id, 'keyId', c.key_id, 'version', c.version))
        FROM (
          SELECT project_id, key_id, max(version) AS version FROM outbox
          WHERE xid >= ${from} ${only === null ? sql`` : sql`AND project_id = ${only}`}
          GROUP BY project_id, key_id
        ) c
      ), '[]') AS data`)
  if (page === undefined || page.usable === false) return 'too-old'
  return { data: page.data, cursor: page.cursor }
}
