import { sql, type SQL } from 'drizzle-orm'
import { instantOf, isoTime } from '../audit/queries.ts'
import { isInstant, readCursor, writeCursor, type Position } from '../cursor.ts'
import type { Database } from '../db/database.ts'
import { codeOf } from '../db/failures.ts'
import { unacceptable } from '../errors.ts'
import type { LogFilters, LogPage, LoggedRequest } from './schemas.ts'

/** A row as answers show it; its place in the list stands beside it. */
export interface FoundRow { row: LoggedRequest, id: string }

const row = sql`json_build_object(
  'at', ${isoTime(sql`at`)}, 'requestId', request_id, 'projectId', project_id, 'keyId', key_id, 'secretId', secret_id, 'api', api, 'operation', operation, 'method', method, 'scope', scope,
  'outcome', outcome, 'code', code, 'status', status, 'ms', ms, 'bytes', bytes, 'address', address, 'client', client, 'replica', replica)`

const sort = '-at'
const idShape = /^[1-9]\d{0,17}$/

/** One page, newest first: by the moment of the decision, and by id among those of one millisecond. */
export async function listLog (database: Database, projectId: string, { cursor, limit, ...filters }: LogPage): Promise<{ data: LoggedRequest[], nextCursor: string | null }> {
  const after = cursor === undefined ? undefined : readCursor(cursor, sort, { value: isInstant, id: idShape })
  const conditions = conditionsOf(projectId, filters)
  const found = await orTooMany(filters, database.search(async db => await db.execute<FoundRow & Record<string, unknown>>(logOf(conditions, after, limit + 1))))
  const data = found.slice(0, limit).map(({ row }) => row)
  const last = found[limit - 1]
  if (found.length <= limit || last === undefined) return { data, nextCursor: null }
  return { data, nextCursor: writeCursor(sort, positionOf(last)) }
}

export function positionOf ({ row: { at }, id }: FoundRow): Position {
  return { value: at, id: String(id) }
}

/** The statement of a page. */
export function logOf (conditions: SQL[], after: Position | undefined, limit: number): SQL {
  const all = after === undefined ? conditions : [...conditions, sql`(at, id) < (${after.value}::timestamptz, ${after.id}::bigint)`]
  return sql`SELECT ${row} AS row, id FROM request_log WHERE ${sql.join(all, sql` AND `)} ORDER BY at DESC, id DESC LIMIT ${limit}`
}

/** @throws {ProblemError} 422 when a moment is none, or `from` is not before `until`. */
export function conditionsOf (projectId: string, { keyId, outcome, status, code, operation, api, scope, secretId, requestId, address, from, until }: LogFilters): SQL[] {
  const [first, end] = [from === undefined ? undefined : instantOf('/from', from), until === undefined ? undefined : instantOf('/until', until)]
  if (first !== undefined && end !== undefined && first >= end) throw unacceptable([{ pointer: '/from', message: 'must be before until' }])
  const equal = { key_id: keyId, outcome, code, operation, api, scope, secret_id: secretId, request_id: requestId, address }
  return [
    sql`project_id = ${projectId}`,
    ...Object.entries(equal).flatMap(([column, value]) => value === undefined ? [] : [sql`${sql.identifier(column)} = ${value}`]),
    ...status === undefined ? [] : [hasStatus(status)],
    ...first === undefined ? [] : [sql`at >= ${first}::timestamptz`],
    ...end === undefined ? [] : [sql`at < ${end}::timestamptz`]
  ]
}

function hasStatus (status: string): SQL {
  if (!status.endsWith('xx')) return sql`status = ${Number(status)}`
  const first = Number(status[0]) * 100
  return sql`status BETWEEN ${first} AND ${first + 99}`
}

/** Filters that no index serves: what they pass over may be very much. */
const unindexed = ['outcome', 'status', 'code', 'operation', 'api', 'scope', 'secretId', 'address'] as const satisfies Array<keyof LogFilters>

/** A filter that hardly any row passes, over a very long time: what takes too long each time is not "try again". */
async function orTooMany<T> (filters: LogFilters, found: Promise<T>): Promise<T> {
  return await found.catch((error: Error) => {
    if (codeOf(error) !== '57014' || !unindexed.some(name => filters[name] !== undefined)) throw error
    throw unacceptable([{ pointer: '/from', message: 'must be given, or be later: there are too many rows to look through for these filters' }])
  })
}
