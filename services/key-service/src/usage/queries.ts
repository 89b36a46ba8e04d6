import { sql, type SQL } from 'drizzle-orm'
import { isoTime } from '../audit/queries.ts'
import { isInstant, readCursor, writeCursor } from '../cursor.ts'
import type { Database, Executor } from '../db/database.ts'
import { invalidCursor } from '../errors.ts'
import type { KeyAddress } from '../keys/secrets.ts'
import { isThere } from '../projects/queries.ts'
import { atOnceOrOverKeys, isTooSlow, overKeys } from './by-keys.ts'
import { wholeProject, type Counts } from './columns.ts'
import { hourOf, type Interval, type Range } from './range.ts'
import type { ListTopKeys, TopKey, UsagePage, UsagePoint } from './schemas.ts'

/** Which sums are asked for. `keyId` undefined: of the project. */
export interface Selection extends Range {
  projectId: string
  keyId?: string | undefined
  interval: Interval
  groupBy: keyof typeof groups
  api?: string | undefined
  operation?: string | undefined
  scope?: string | undefined
}

/** Where a page ended: its last row's step, and the names of its group. */
export interface Place { at: string, group: string[] }

interface Group { members: Array<'keyId' | 'api' | 'operation' | 'scope'>, columns: SQL[], order: SQL[] }

const tables = { minute: sql.identifier('usage_minutes'), hour: sql.identifier('usage_hours'), day: sql.identifier('usage_days') } as const
const at = sql`at`
/** In the order of the primary key as far as it goes: so rows come sorted, and a page ends when it is full. By key that is key by key. */
export const groups = {
  none: { members: [], columns: [], order: [at] },
  scope: { members: ['scope'], columns: [sql`scope`], order: [at, sql`scope`] },
  operation: { members: ['api', 'operation'], columns: [sql`api`, sql`operation`], order: [at, sql`api`, sql`operation`] },
  key: { members: ['keyId'], columns: [sql`key_id`], order: [sql`key_id`, at] }
} as const satisfies Record<string, Group>

const sums = sql`sum(admitted)::bigint AS admitted, sum(limited)::bigint AS limited, sum(refused)::bigint AS refused,
  sum(upstream_errors)::bigint AS upstream_errors, sum(admitted_locally)::bigint AS admitted_locally`
type Sums = Record<'admitted' | 'limited' | 'refused' | 'upstream_errors' | 'admitted_locally', string>
type Row = Sums & { moment: string, key_id?: string, api?: string, operation?: string, scope?: string }

/** True also for a key that was deleted: what it has done stays. */
export async function keyWasThere (db: Executor, { projectId, keyId }: KeyAddress): Promise<boolean> {
  const found = await db.execute(sql`SELECT 1 FROM keys WHERE project_id = ${projectId} AND id = ${keyId} AND ${isThere(projectId)}`)
  return found.length > 0
}

/** One page of the sums. Also says what was lost, of a whole project without a filter. */
export async function listPoints (search: Database['search'], selection: Selection, { cursor, limit }: { cursor?: string, limit: number }): Promise<UsagePage> {
  const { projectId, keyId, groupBy, interval, from, until, api, operation, scope } = selection
  const sort = `${interval} ${groupBy}`
  const points = await findPoints(search, selection, cursor === undefined ? undefined : readPlace(cursor, sort, groupBy), limit + 1)
  const data = points.slice(0, limit)
  const last = data.at(-1)
  const isWhole = keyId === undefined && api === undefined && operation === undefined && scope === undefined
  return {
    data,
    nextCursor: points.length <= limit || last === undefined ? null : writePlace(placeOf(last, groupBy), sort),
    from,
    until,
    lost: isWhole ? await search(async db => await countLost(db, projectId, { from, until })) : null
  }
}

/**
 * So many sums at most, from behind `after` on. Key by key with a filter, some keys at a time: hardly any row may pass it.
 */
export async function findPoints (search: Database['search'], selection: Selection, after: Place | undefined, limit: number): Promise<UsagePoint[]> {
  const { groupBy, keyId, api, operation, scope } = selection
  const isFiltered = api !== undefined || operation !== undefined || scope !== undefined
  if (groupBy !== 'key' || keyId !== undefined || !isFiltered) return await search(async db => await readPoints(db, selection, after, limit))
  const points: UsagePoint[] = []
  const parts = overKeys(search, selection, async (db, isAmong) => await readPoints(db, selection, after, limit - points.length, isAmong), after?.group[0])
  for await (const part of parts) {
    points.push(...part)
    if (points.length >= limit) break
  }
  return points
}

/** The same in one statement. */
export async function readPoints (db: Executor, selection: Selection, after: Place | undefined, limit: number, isAmong: SQL = sql`true`): Promise<UsagePoint[]> {
  const { columns, order } = groups[selection.groupBy]
  const found = await db.execute<Row>(sql`
    SELECT ${sql.join([sql`${isoTime(at)} AS moment`, ...columns, sums], sql`, `)}
    FROM ${tables[selection.interval]} WHERE ${sql.join([...conditionsOf(selection), isAmong, ...behind(selection, after)], sql` AND `)}
    GROUP BY ${sql.join(order, sql`, `)} ORDER BY ${sql.join(order, sql`, `)} LIMIT ${limit}`)
  return found.map(row => ({
    at: row.moment,
    ...row.key_id !== undefined && { keyId: row.key_id },
    ...row.api !== undefined && { api: row.api },
    ...row.operation !== undefined && { operation: row.operation },
    ...row.scope !== undefined && { scope: row.scope },
    ...countsOf(row)
  }))
}

/** Where the next page begins. */
export function placeOf (point: UsagePoint, groupBy: Selection['groupBy']): Place {
  return { at: point.at, group: groups[groupBy].members.map(member => point[member] ?? '') }
}

/** Rows that are looked through at most before an export begins: a fraction of a second. */
const mostCounted = 50_000

/**
 * How many sums there are, if that is known soon.
 *
 * @param most rows that may be looked through. @returns undefined: it would take more of them, or too long.
 */
export async function countPoints (search: Database['search'], selection: Selection, most = mostCounted): Promise<number | undefined> {
  const order = sql.join([...groups[selection.groupBy].order], sql`, `)
  const filters = filtersOf(selection)
  const matching = filters.length === 0 ? sql`count(*)` : sql`count(*) FILTER (WHERE ${sql.join(filters, sql` AND `)})`
  // In the order of the primary key, which alone is read: whether more rows match is not known before they are looked at.
  const count = async (db: Executor): Promise<number | undefined> => {
    const [row] = await db.execute<{ read: string | null, count: string }>(sql`
      SELECT sum(rows) AS read, count(*) FILTER (WHERE matching > 0) AS count FROM (
        SELECT count(*) AS rows, ${matching} AS matching FROM (
          SELECT key_id, at, api, operation, scope FROM ${tables[selection.interval]} WHERE ${sql.join(placeConditionsOf(selection), sql` AND `)} ORDER BY ${order} LIMIT ${most + 1}
        ) r GROUP BY ${order}
      ) s`)
    return Number(row?.read ?? 0) > most ? undefined : Number(row?.count ?? 0)
  }
  try {
    return await search(count)
  } catch (error) {
    if (isTooSlow(error)) return undefined
    throw error
  }
}

/**
 * The keys that have most of something, most first; equal ones by their id. Whoever is among them is told by that count alone, and only
 * theirs are added up.
 */
export async function listTopKeys (search: Database['search'], projectId: string, { interval, by, limit }: Pick<ListTopKeys, 'interval' | 'by' | 'limit'>, range: Range): Promise<TopKey[]> {
  const column = columns[by]
  const inRange = sql`project_id = ${projectId} AND at >= ${range.from} AND at < ${range.until}`
  let top: TopKey[] = []
  const most = atOnceOrOverKeys(search, { projectId, interval, ...range }, async (db, isAmong) => await db.execute<Sums & Pick<TopKey, 'name' | 'status'> & { key_id: string }>(sql`
    SELECT top.key_id, of_key.*, k.name, CASE WHEN k.status = 'active' AND k.expires_at <= now() THEN 'expired' ELSE coalesce(k.status, 'deleted') END AS status
    FROM (
      SELECT key_id FROM ${tables[interval]} WHERE ${inRange} AND key_id <> ${wholeProject} AND ${column} > 0 AND ${isAmong}
      GROUP BY key_id ORDER BY sum(${column}) DESC, key_id COLLATE "C" LIMIT ${limit}
    ) top
    CROSS JOIN LATERAL (SELECT ${sums} FROM ${tables[interval]} WHERE ${inRange} AND key_id = top.key_id) of_key
    LEFT JOIN keys k ON k.project_id = ${projectId} AND k.id = top.key_id`))
  for await (const found of most) {
    top.push(...found.map(row => ({ keyId: row.key_id, name: row.name, status: row.status, ...countsOf(row) })))
    top = top.sort((a, b) => b[by] - a[by] || (a.keyId < b.keyId ? -1 : 1)).slice(0, limit)
  }
  return top
}

const columns = { admitted: sql.identifier('admitted'), limited: sql.identifier('limited'), refused: sql.identifier('refused'), upstreamErrors: sql.identifier('upstream_errors') } as const

/**
 * Admissions that are known to be in no sum, of the hours that the range touches: `finished - stored + tail` of each boot. What a boot that
 * is not settled has finished and not stored counts too: its later batches have been read.
 */
async function countLost (db: Executor, projectId: string, { from, until }: Range): Promise<number> {
  const [row] = await db.execute<{ lost: string }>(sql`
    SELECT coalesce(sum(greatest(finished - stored, 0) + tail), 0)::bigint AS lost FROM usage_lines
    WHERE project_id = ${projectId} AND hour >= ${hourOf(from)} AND hour < ${until}`)
  return Number(row?.lost ?? 0)
}

/** A project's sums are rows of their own, so its curve needs no sum over its keys. */
function conditionsOf (selection: Selection): SQL[] {
  return [...placeConditionsOf(selection), ...filtersOf(selection)]
}

/** Whose, and when: what an index finds. */
function placeConditionsOf ({ projectId, keyId, groupBy, from, until }: Selection): SQL[] {
  return [
    sql`project_id = ${projectId}`,
    groupBy === 'key' && keyId === undefined ? sql`key_id <> ${wholeProject}` : sql`key_id = ${keyId ?? wholeProject}`,
    sql`at >= ${from}`,
    sql`at < ${until}`
  ]
}

function filtersOf ({ api, operation, scope }: Selection): SQL[] {
  return [
    ...api === undefined ? [] : [sql`api = ${api}`],
    ...operation === undefined ? [] : [sql`operation = ${operation}`],
    ...scope === undefined ? [] : [sql`scope = ${scope}`]
  ]
}

function behind ({ groupBy }: Selection, after: Place | undefined): SQL[] {
  if (after === undefined) return []
  const moment = sql`${after.at}::timestamptz`
  const names = after.group.map(name => sql`${name}::text`)
  const row = sql`(${sql.join([...groups[groupBy].order], sql`, `)}) > (${sql.join(groupBy === 'key' ? [...names, moment] : [moment, ...names], sql`, `)})`
  // Which partitions are over is told by a condition on the time alone.
  return groupBy === 'key' ? [row] : [sql`at >= ${moment}`, row]
}

function countsOf (row: Sums): Counts {
  return {
    admitted: Number(row.admitted),
    limited: Number(row.limited),
    refused: Number(row.refused),
    upstreamErrors: Number(row.upstream_errors),
    admittedLocally: Number(row.admitted_locally)
  }
}

function writePlace ({ at, group }: Place, sort: string): string {
  return writeCursor(sort, { value: at, id: JSON.stringify(group) })
}

/** @throws {ProblemError} 400 for anything that `writePlace` has not made for this order. */
function readPlace (cursor: string, sort: string, groupBy: Selection['groupBy']): Place {
  const { value, id } = readCursor(cursor, sort, { value: isInstant, id: /^\[.*\]$/s })
  let group: unknown
  try {
    group = JSON.parse(id)
  } catch {
    throw invalidCursor()
  }
  const isGroup = (names: unknown): names is string[] => Array.isArray(names) && names.length === groups[groupBy].members.length && names.every(name => typeof name === 'string' && !name.includes('\0'))
  if (!isGroup(group)) throw invalidCursor()
  return { at: value, group }
}
