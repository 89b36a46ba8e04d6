import type { Logging, PolicyBody } from '@keygate/contracts'
import { sql, type SQL } from 'drizzle-orm'
import { isInstant, readCursor, writeCursor, type Position } from '../cursor.ts'
import type { Executor } from '../db/database.ts'
import { policyList } from '../policies/repository.ts'
import { isThere } from '../projects/queries.ts'
import { isSearchable } from '../text.ts'
import { isActive, needsAttention } from './attention.ts'
import { ofKey, ownScopes, runningLogging } from './columns.ts'
import type { Key, ListKeys } from './schemas.ts'
import type { KeyAddress } from './secrets.ts'

/** A key as one statement reads it; times as PostgreSQL writes them. */
export interface KeyRow {
  id: string
  projectId: string
  name: string
  description: string | null
  status: Key['status']
  hint: string
  allowedForAll: boolean
  scopes: string[]
  role: string | null
  allowedHosts: string[] | null
  expiresAt: string | null
  policies: PolicyBody[] | null
  logging: Logging
  sealed: boolean
  rotation: Key['rotation']
  version: number
  effective: Key['effective']
  effectiveAt: string | null
  createdAt: string
  createdBy: string
  lastUsedAt: string | null
}

const row = sql`json_build_object(
  'id', k.id, 'projectId', k.project_id, 'name', k.name, 'description', k.description,
  'status', CASE WHEN k.status = 'active' AND k.expires_at <= now() THEN 'expired' ELSE k.status END,
  'hint', coalesce((SELECT hint FROM secrets WHERE ${ofKey} AND state = 'current'), '…'),
  'allowedForAll', k.allowed_for_all, 'scopes', ${ownScopes},
  'role', (SELECT r.name FROM roles r WHERE r.project_id = k.project_id AND r.id = k.role_id),
  'allowedHosts', (SELECT json_agg(host ORDER BY position) FROM allowed_hosts WHERE ${ofKey}),
  'expiresAt', k.expires_at, 'policies', ${policyList(sql`k.project_id`, sql`k.id`)}, 'logging', ${runningLogging}, 'sealed', k.sealed,
  'rotation', (
    SELECT json_build_object('until', least(o.not_after, k.expires_at), 'startedAt', coalesce(o.retired_at, c.created_at), 'oldSecretHint', o.hint, 'oldSecretLastUsedAt', o.last_used_at)
    FROM secrets o JOIN secrets c ON c.project_id = o.project_id AND c.key_id = o.key_id AND c.state = 'current'
    WHERE o.project_id = k.project_id AND o.key_id = k.id AND o.state = 'retiring' AND least(o.not_after, k.expires_at) > now()),
  'version', k.version,
  'effective', CASE WHEN k.effective_version >= k.version THEN 'everywhere' ELSE 'pending' END,
  'effectiveAt', CASE WHEN k.effective_version >= k.version THEN k.effective_at END,
  'createdAt', k.created_at, 'createdBy', k.created_by, 'lastUsedAt', k.last_used_at)`

export async function findKey (db: Executor, { projectId, keyId }: KeyAddress): Promise<KeyRow | undefined> {
  const [found] = await db.execute<{ key: KeyRow }>(sql`
    SELECT ${row} AS key FROM keys k WHERE k.project_id = ${projectId} AND k.id = ${keyId} AND k.status <> 'deleted' AND ${isThere(projectId)}`)
  return found?.key
}

const statusIs: Record<Key['status'], SQL> = {
  active: isActive,
  expired: sql`k.status = 'active' AND k.expires_at <= now()`,
  disabled: sql`k.status = 'disabled'`,
  revoked: sql`k.status = 'revoked'`
}

const keyId = /^key_[0-9A-Za-z]{22}$/
// PostgreSQL knows no NUL.
const isName = (value: string): boolean => /^[^\0]{1,200}$/u.test(value)
/** In a cursor, of a row without a value: no name is empty, and no moment. */
const noValue = ''

interface Column { sql: SQL, type: SQL, valueOf: (row: KeyRow) => string | null, accepts: (value: string) => boolean, isNullable: boolean }

const momentOf = (time: string | null): string | null => time === null ? null : new Date(time).toISOString()
const columns: Record<string, Column> = {
  name: { sql: sql`k.name`, type: sql`text`, valueOf: row => row.name, accepts: isName, isNullable: false },
  createdAt: { sql: sql`k.created_at`, type: sql`timestamptz`, valueOf: row => momentOf(row.createdAt), accepts: isInstant, isNullable: false },
  expiresAt: { sql: sql`k.expires_at`, type: sql`timestamptz`, valueOf: row => momentOf(row.expiresAt), accepts: isInstant, isNullable: true },
  lastUsedAt: { sql: sql`k.last_used_at`, type: sql`timestamptz`, valueOf: row => momentOf(row.lastUsedAt), accepts: isInstant, isNullable: true }
}

export interface KeyPage { rows: KeyRow[], nextCursor: string | null }

/**
 * One page of a project's keys. A page is cut by value and id of its last row, so rows that come or go shift nothing.
 *
 * @param covered the scopes that `allowedForAll` stands for.
 */
export async function listKeys (db: Executor, projectId: string, { search, status, scope, role, attention, sort, cursor, limit }: ListKeys, covered: ReadonlySet<string>): Promise<KeyPage> {
  const column = columns[sort.replace('-', '')] as Column
  const after = cursor === undefined ? undefined : readCursor(cursor, sort, { value: value => column.accepts(value) || (column.isNullable && value === noValue), id: keyId })
  if ([search, scope, role].some(text => text !== undefined && !isSearchable(text))) return { rows: [], nextCursor: null }
  const conditions = [
    sql`k.project_id = ${projectId}`,
    sql`k.status <> 'deleted'`,
    isThere(projectId),
    ...status === undefined ? [] : [statusIs[status]],
    ...attention === undefined ? [] : [needsAttention(attention, projectId)],
    ...scope === undefined ? [] : [mayCall(scope, covered)],
    ...role === undefined ? [] : [sql`k.role_id = (SELECT r.id FROM roles r WHERE r.project_id = ${projectId} AND r.name = ${role})`],
    ...search === undefined || search === '' ? [] : [matches(search)]
  ]
  const rows: KeyRow[] = []
  for (const part of partsOf(column, sort.startsWith('-'), after)) {
    if (rows.length > limit) break
    const found = await db.execute<{ key: KeyRow }>(sql`
      SELECT ${row} AS key FROM keys k WHERE ${sql.join([...conditions, ...part.conditions], sql` AND `)}
      ORDER BY ${part.order} LIMIT ${limit + 1 - rows.length}`)
    rows.push(...found.map(({ key }) => key))
  }
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  if (rows.length <= limit || last === undefined) return { rows: page, nextCursor: null }
  return { rows: page, nextCursor: writeCursor(sort, { value: column.valueOf(last) ?? noValue, id: last.id }) }
}

/**
 * The rows with a value, then those without one: an index in one direction can give both, but not in one scan that ends with the
 * nulls in either direction.
 */
function partsOf (column: Column, isDescending: boolean, after: Position | undefined): Array<{ conditions: SQL[], order: SQL }> {
  const [direction, beyond] = isDescending ? [sql`DESC`, sql`<`] : [sql`ASC`, sql`>`]
  const order = sql`${column.sql} ${direction}, k.id ${direction}`
  const isAmongNulls = column.isNullable && after?.value === noValue
  const withValue = {
    conditions: [
      ...column.isNullable ? [sql`${column.sql} IS NOT NULL`] : [],
      ...after === undefined ? [] : [sql`(${column.sql}, k.id) ${beyond} (${after.value}::${column.type}, ${after.id})`]
    ],
    order
  }
  const without = { conditions: [sql`${column.sql} IS NULL`, ...isAmongNulls ? [sql`k.id ${beyond} ${after.id}`] : []], order }
  return [...isAmongNulls ? [] : [withValue], ...column.isNullable ? [without] : []]
}

/** As scalars, which are asked per key along the list's order; as EXISTS it would be the planner's choice to read the scopes of all keys first. */
function mayCall (scope: string, covered: ReadonlySet<string>): SQL {
  return sql`(${covered.has(scope) ? sql`k.allowed_for_all` : sql`false`}
    OR coalesce((SELECT true FROM key_scopes WHERE ${ofKey} AND scope = ${scope}), false)
    OR coalesce((SELECT true FROM role_scopes r WHERE r.project_id = k.project_id AND r.role_id = k.role_id AND r.scope = ${scope}), false))`
}

/** `%`, `_` and `\` mean themselves. Fewer than three characters have no trigram to look up. */
function matches (search: string): SQL {
  const literal = search.replace(/[\\%_]/g, '\\$&')
  if ([...search].length < 3) return sql`lower(k.name) LIKE lower(${`${literal}%`})`
  return sql`k.search_text ILIKE ${`%${literal}%`}`
}
