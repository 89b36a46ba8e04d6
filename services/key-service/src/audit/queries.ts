import { sql, type SQL } from 'drizzle-orm'
import { isInstant, readCursor, writeCursor } from '../cursor.ts'
import type { Executor } from '../db/database.ts'
import { unacceptable } from '../errors.ts'
import type { AuditEvent, ListAuditEvents } from './schemas.ts'

/** A moment as ISO 8601 in UTC to the millisecond, whatever the session's settings are. */
export function isoTime (moment: SQL): SQL {
  return sql`to_char(${moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
}

/** An event as answers show it and as its hash was made over it. */
export const eventRow = sql`json_build_object(
  'id', id, 'at', ${isoTime(sql`at`)}, 'chain', chain, 'seq', seq, 'hash', hash, 'projectId', project_id, 'keyId', key_id,
  'actor', json_build_object('type', actor_type, 'id', actor_id, 'name', actor_name),
  'action', action, 'requestId', request_id, 'details', details)`

/** True also for a project that was deleted: its events stay. */
export async function projectWasThere (db: Executor, projectId: string): Promise<boolean> {
  const found = await db.execute(sql`SELECT 1 FROM projects WHERE id = ${projectId}`)
  return found.length > 0
}

const sort = '-id'
const idShape = /^[1-9]\d{0,17}$/

/**
 * One page, newest first: by id, which goes up along each chain as its numbers do.
 *
 * @param projectId null: of the whole installation. There an event whose transaction took long may appear behind a page's end.
 */
export async function listEvents (db: Executor, projectId: string | null, query: ListAuditEvents): Promise<{ data: AuditEvent[], nextCursor: string | null }> {
  const found = await db.execute<{ event: AuditEvent }>(eventsOf(projectId, query))
  const data = found.slice(0, query.limit).map(({ event }) => event)
  const last = data.at(-1)
  if (found.length <= query.limit || last === undefined) return { data, nextCursor: null }
  return { data, nextCursor: writeCursor(sort, { value: String(last.id), id: String(last.id) }) }
}

/** The statement of a page and one row more, which tells whether there is another page. */
export function eventsOf (projectId: string | null, { action, actorId, keyId, from, until, cursor, limit }: ListAuditEvents): SQL {
  const after = cursor === undefined ? undefined : readCursor(cursor, sort, { value: value => idShape.test(value), id: idShape })
  const conditions = [
    sql`true`,
    ...projectId === null ? [] : [sql`project_id = ${projectId}`],
    ...action === undefined ? [] : [action.endsWith('.') ? sql`starts_with(action, ${action})` : sql`action = ${action}`],
    ...actorId === undefined ? [] : [sql`actor_id = ${actorId}`],
    ...keyId === undefined ? [] : [sql`key_id = ${keyId}`],
    ...from === undefined ? [] : [sql`at >= ${instantOf('/from', from)}`],
    ...until === undefined ? [] : [sql`at < ${instantOf('/until', until)}`],
    ...after === undefined ? [] : [sql`id < ${after.id}`]
  ]
  return sql`SELECT ${eventRow} AS event FROM audit_events WHERE ${sql.join(conditions, sql` AND `)} ORDER BY id DESC LIMIT ${limit + 1}`
}

/** The format of the schema lets through what is no moment, such as second 60, and years that PostgreSQL does not know. @throws {ProblemError} 422 for those. */
export function instantOf (pointer: string, text: string): string {
  const ms = Date.parse(text)
  const instant = Number.isNaN(ms) ? '' : new Date(ms).toISOString()
  if (!isInstant(instant)) throw unacceptable([{ pointer, message: 'must be a date-time such as 2026-11-20T10:00:00Z' }])
  return instant
}
