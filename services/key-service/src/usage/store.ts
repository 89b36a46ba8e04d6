import type { UsageBatch } from '@keygate/contracts'
import { sql, type SQL } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import type { CallerRow, IncarnationRow, LineRow, LogRow, SumRow } from './columns.ts'
import { foldBatches } from './fold.ts'
import type { Partitioned } from './partitions.ts'
import { beginStoring, ofDeletedProject } from './traces.ts'

/** Callers of a key that are kept; those that were seen last. */
export const callersOfKey = 50
type Batches = readonly UsageBatch[]

/**
 * Writes batches that have not been written before, all or nothing. The rows of their boots are locked first: so (boot, seq) is counted
 * once however often and however simultaneously it comes, and the transactions of one boot follow each other.
 *
 * @returns those that were new. @throws when a partition is missing.
 */
export async function storeBatches (tx: Executor, batches: Batches): Promise<UsageBatch[]> {
  await beginStoring(tx)
  const fresh = await takeFresh(tx, batches)
  if (fresh.length === 0) return fresh
  const rows = foldBatches(fresh)
  for (const statement of [
    addLines(rows.lines),
    addIncarnations(rows.incarnations),
    addSums('usage_minutes', rows.minutes),
    addSums('usage_hours', rows.hours),
    addSums('usage_days', rows.days),
    addLog(rows.log)
  ]) if (statement !== undefined) await tx.execute(statement)
  await addCallers(tx, rows.callers)
  return fresh
}

/** Marks them as seen, and leaves out those that were before. A boot that was thought dead and settled is open again, without a tail. */
async function takeFresh (tx: Executor, batches: Batches): Promise<UsageBatch[]> {
  const boots = new Map<string, { boot_id: string, replica: string, first_at: string, last_at: string }>()
  for (const { bootId, replica, atMs } of batches) {
    const at = new Date(atMs).toISOString()
    const boot = boots.get(bootId)
    if (boot === undefined) boots.set(bootId, { boot_id: bootId, replica, first_at: at, last_at: at })
    else if (at > boot.last_at) boot.last_at = at
    else if (at < boot.first_at) boot.first_at = at
  }
  await tx.execute(sql`
    INSERT INTO usage_boots AS b (boot_id, replica, first_at, last_at)
    SELECT boot_id, replica, first_at, last_at FROM ${rowsOf([...boots.values()], sql`boot_id text, replica text, first_at timestamptz, last_at timestamptz`)} ORDER BY boot_id
    ON CONFLICT (boot_id) DO UPDATE SET first_at = least(b.first_at, excluded.first_at), last_at = greatest(b.last_at, excluded.last_at)`)
  const came = rowsOf(batches.map(({ bootId, seq }, place) => ({ boot_id: bootId, seq, place })), sql`boot_id text, seq bigint, place int`)
  const found = await tx.execute<{ place: number }>(sql`
    WITH fresh AS (
      SELECT DISTINCT ON (boot_id, seq) boot_id, seq, place FROM ${came} JOIN usage_boots b USING (boot_id) WHERE NOT b.seen @> seq ORDER BY boot_id, seq, place
    ), marked AS (
      UPDATE usage_boots b SET seen = b.seen + f.seqs, settled_at = NULL
      FROM (SELECT boot_id, range_agg(int8range(seq, seq, '[]')) AS seqs FROM fresh GROUP BY boot_id) f WHERE b.boot_id = f.boot_id
    ), reopened AS (
      UPDATE usage_lines SET tail = 0 WHERE tail <> 0 AND boot_id IN (SELECT boot_id FROM fresh)
    )
    SELECT place FROM fresh ORDER BY place`)
  return found.map(({ place }) => batches[place] as UsageBatch)
}

function addLines (lines: LineRow[]): SQL | undefined {
  if (lines.length === 0) return undefined
  return sql`
    INSERT INTO usage_lines AS l (boot_id, project_id, hour, admitted, finished, stored, unanswered)
    SELECT "bootId", "projectId", hour, admitted, finished, stored, unanswered
    FROM ${rowsOf(lines, sql`"bootId" text, "projectId" uuid, hour timestamptz, admitted bigint, finished bigint, stored bigint, unanswered bigint`)} ORDER BY 1, 2, 3
    ON CONFLICT (boot_id, project_id, hour) DO UPDATE SET admitted = greatest(l.admitted, excluded.admitted), finished = greatest(l.finished, excluded.finished),
      stored = l.stored + excluded.stored, unanswered = greatest(l.unanswered, excluded.unanswered)`
}

function addIncarnations (incarnations: IncarnationRow[]): SQL | undefined {
  if (incarnations.length === 0) return undefined
  return sql`
    INSERT INTO usage_incarnations AS i (project_id, incarnation, first_at)
    SELECT "projectId", incarnation, at FROM ${rowsOf(incarnations, sql`"projectId" uuid, incarnation text, at timestamptz`)} ORDER BY 1, 2
    ON CONFLICT (project_id, incarnation) DO UPDATE SET first_at = excluded.first_at WHERE excluded.first_at < i.first_at`
}

function addSums (table: Partitioned, sums: SumRow[]): SQL | undefined {
  const name = sql.identifier(table)
  if (sums.length === 0) return undefined
  return sql`
    INSERT INTO ${name} AS t (project_id, key_id, at, api, operation, scope, admitted, limited, refused, upstream_errors, admitted_locally)
    SELECT "projectId", "keyId", at, api, operation, scope, admitted, limited, refused, "upstreamErrors", "admittedLocally"
    FROM ${rowsOf(sums, sql`"projectId" uuid, "keyId" text, at timestamptz, api text, operation text, scope text, admitted bigint, limited bigint, refused bigint, "upstreamErrors" bigint, "admittedLocally" bigint`)}
    ORDER BY "projectId", "keyId" COLLATE "C", at, api COLLATE "C", operation COLLATE "C", scope COLLATE "C"
    ON CONFLICT (project_id, key_id, at, api, operation, scope) DO UPDATE SET admitted = t.admitted + excluded.admitted, limited = t.limited + excluded.limited,
      refused = t.refused + excluded.refused, upstream_errors = t.upstream_errors + excluded.upstream_errors, admitted_locally = t.admitted_locally + excluded.admitted_locally`
}

function addLog (log: LogRow[]): SQL | undefined {
  if (log.length === 0) return undefined
  return sql`
    INSERT INTO request_log (at, project_id, key_id, secret_id, request_id, api, operation, method, scope, outcome, code, status, ms, bytes, address, client, replica)
    SELECT at, "projectId", "keyId", "secretId", "requestId", api, operation, method, scope, outcome, code, status, least(ms, 2147483647), bytes, address, client, replica
    FROM ${rowsOf(log, sql`at timestamptz, "projectId" uuid, "keyId" text, "secretId" text, "requestId" text, api text, operation text, method text, scope text, outcome text, code text, status int, ms bigint, bytes bigint, address text, client text, replica text`)}
    WHERE NOT ${ofDeletedProject} ORDER BY at`
}

/**
 * Also drops a key's callers beyond the last fifty: whoever holds a key can come under any number of names. Those that another transaction is
 * counting on at this moment are not old, and waiting for them could be a ring.
 */
async function addCallers (tx: Executor, callers: CallerRow[]): Promise<void> {
  if (callers.length === 0) return
  const written = await tx.execute<{ project_id: string, key_id: string, is_new: boolean }>(sql`
    INSERT INTO usage_callers AS c (project_id, key_id, address, client, secret_id, hour, count, last_seen)
    SELECT "projectId", "keyId", address, client, "secretId", hour, count, "lastSeen"
    FROM ${rowsOf(callers, sql`"projectId" uuid, "keyId" text, address text, client text, "secretId" text, hour timestamptz, count bigint, "lastSeen" timestamptz`)}
    WHERE NOT ${ofDeletedProject}
    ORDER BY "projectId", "keyId" COLLATE "C", address COLLATE "C", client COLLATE "C", "secretId" COLLATE "C", hour
    ON CONFLICT (project_id, key_id, address, client, secret_id, hour) DO UPDATE SET count = c.count + excluded.count, last_seen = greatest(c.last_seen, excluded.last_seen)
    RETURNING project_id, key_id, xmax = 0 AS is_new`)
  const grown = new Map(written.filter(({ is_new: isNew }) => isNew).map(({ project_id: projectId, key_id: keyId }) => [`${projectId} ${keyId}`, { projectId, keyId }]))
  if (grown.size === 0) return
  await tx.execute(sql`
    WITH old AS (
      SELECT project_id, key_id, address, client, row_number() OVER (PARTITION BY project_id, key_id ORDER BY max(last_seen) DESC, address, client) AS place
      FROM usage_callers WHERE (project_id, key_id) IN (SELECT "projectId", "keyId" FROM ${rowsOf([...grown.values()], sql`"projectId" uuid, "keyId" text`)})
      GROUP BY project_id, key_id, address, client
    ), free AS (
      SELECT c.ctid FROM usage_callers c JOIN old USING (project_id, key_id, address, client) WHERE old.place > ${callersOfKey} FOR UPDATE OF c SKIP LOCKED
    )
    DELETE FROM usage_callers WHERE ctid IN (SELECT ctid FROM free)`)
}

/** Rows as one parameter, however many there are. */
function rowsOf (rows: readonly object[], columns: SQL): SQL {
  return sql`jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) AS came(${columns})`
}
