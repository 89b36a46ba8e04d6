import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'

/** A version that a change raised; `keyId` is `*` for the project's own. */
export interface RaisedVersion { projectId: string, keyId: string, version: number }
export interface OutboxRow extends RaisedVersion { id: number }

/** Puts raised versions on their way, in the change's own transaction: a crash after the commit loses none. */
export async function appendToOutbox (tx: Executor, raised: RaisedVersion[]): Promise<OutboxRow[]> {
  // As one JSON text: a project with very many keys would exceed the 65 535 parameters of a statement.
  const rows = await tx.execute<{ id: string, project_id: string, key_id: string, version: string }>(sql`
    INSERT INTO outbox (project_id, key_id, version)
    SELECT "projectId", "keyId", version FROM jsonb_to_recordset(${JSON.stringify(raised)}::jsonb) AS r("projectId" uuid, "keyId" text, version bigint)
    RETURNING id, project_id, key_id, version`)
  return rows.map(toOutboxRow)
}

/** The oldest rows that Redis has not confirmed. */
export async function findUndelivered (db: Executor, limit: number): Promise<OutboxRow[]> {
  const rows = await db.execute<{ id: string, project_id: string, key_id: string, version: string }>(sql`
    SELECT id, project_id, key_id, version FROM outbox WHERE delivered_at IS NULL ORDER BY id LIMIT ${limit}`)
  return rows.map(toOutboxRow)
}

/** The highest version per key and project of all that is kept: the last hour, and whatever is still undelivered. */
export async function findRecent (db: Executor): Promise<RaisedVersion[]> {
  const rows = await db.execute<{ project_id: string, key_id: string, version: string }>(sql`
    SELECT project_id, key_id, max(version) AS version FROM outbox GROUP BY project_id, key_id`)
  return rows.map(row => ({ projectId: row.project_id, keyId: row.key_id, version: Number(row.version) }))
}

/**
 * Notes that Redis has confirmed these rows, on the rows and on their keys and projects.
 *
 * It only ever raises what is noted, so two relays may mark the same rows in any order.
 *
 * @param at since when, by Redis's clock: usage is booked by it too, so that what came after a change can be told from what came before.
 */
export async function markDelivered (db: Executor, rows: OutboxRow[], at: Date): Promise<void> {
  const since = sql`${at.toISOString()}::timestamptz`
  await db.execute(sql`
    WITH delivered AS (
      SELECT id, "projectId" AS project_id, "keyId" AS key_id, version
      FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) AS r(id bigint, "projectId" uuid, "keyId" text, version bigint)
    ), latest AS (
      SELECT project_id, key_id, max(version) AS version FROM delivered GROUP BY project_id, key_id
    ), marked_rows AS (
      UPDATE outbox SET delivered_at = now() FROM delivered WHERE outbox.id = delivered.id AND outbox.delivered_at IS NULL
    ), marked_keys AS (
      UPDATE keys SET effective_version = latest.version, effective_at = ${since} FROM latest
      WHERE keys.project_id = latest.project_id AND keys.id = latest.key_id AND keys.effective_version < latest.version
    ), marked_projects AS (
      UPDATE projects SET effective_version = latest.version, effective_at = ${since} FROM latest
      WHERE projects.id = latest.project_id AND latest.key_id = '*' AND projects.effective_version < latest.version
    )
    SELECT 1`)
}

/**
 * Removes rows an hour after their delivery, never an undelivered one, and remembers the newest transaction that lost a row, in
 * the same statement: a cursor at or before it gets 410 instead of a page with a hole.
 */
export async function pruneOutbox (db: Executor): Promise<void> {
  await db.execute(sql`
    WITH pruned AS (
      DELETE FROM outbox WHERE delivered_at < now() - interval '1 hour' RETURNING xid
    ), newest AS (
      SELECT xid FROM pruned ORDER BY xid DESC LIMIT 1
    )
    UPDATE outbox_pruned SET xid = greatest(outbox_pruned.xid, newest.xid) FROM newest`)
}

export interface Backlog { rows: number, oldestSeconds: number }

/** How much waits for Redis, and for how long the oldest has waited. */
export async function measureBacklog (db: Executor): Promise<Backlog> {
  const [row] = await db.execute<{ rows: string, oldest: string }>(sql`
    SELECT count(*) AS rows, coalesce(extract(epoch FROM now() - min(created_at)), 0) AS oldest FROM outbox WHERE delivered_at IS NULL`)
  return { rows: Number(row?.rows ?? 0), oldestSeconds: Math.max(0, Number(row?.oldest ?? 0)) }
}

/** The driver hands out 64-bit numbers as text. */
function toOutboxRow (row: { id: string, project_id: string, key_id: string, version: string }): OutboxRow {
  return { id: Number(row.id), projectId: row.project_id, keyId: row.key_id, version: Number(row.version) }
}
