import type { PolicyBody } from '@keygate/contracts'
import { sql, type SQL } from 'drizzle-orm'
import { isInstant, readCursor, writeCursor } from '../cursor.ts'
import type { Executor } from '../db/database.ts'
import { policyList } from '../policies/repository.ts'
import { isSearchable } from '../text.ts'
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
  allowedHosts: string[] | null
  expiresAt: string | null
  policies: PolicyBody[] | null
  version: number
  effective: Key['effective']
  effectiveAt: string | null
  createdAt: string
  createdBy: string
}

const ofKey = sql`project_id = k.project_id AND key_id = k.id`

const row = sql`json_build_object(
  'id', k.id, 'projectId', k.project_id, 'name', k.name, 'description', k.description,
  'status', CASE WHEN k.status = 'active' AND k.expires_at <= now() THEN 'expired' ELSE k.status END,
  'hint', coalesce((SELECT hint FROM secrets WHERE ${ofKey} AND state = 'current'), '…'),
  'allowedForAll', k.allowed_for_all,
  'scopes', coalesce((SELECT json_agg(scope ORDER BY scope) FROM key_scopes WHERE ${ofKey}), '[]'),
  'allowedHosts', (SELECT json_agg(host ORDER BY position) FROM allowed_hosts WHERE ${ofKey}),
  'expiresAt', k.expires_at, 'policies', ${policyList(sql`k.project_id`, sql`k.id`)}, 'version', k.version,
  'effective', CASE WHEN k.effective_version >= k.version THEN 'everywhere' ELSE 'pending' END,
  'effectiveAt', CASE WHEN k.effective_version >= k.version THEN k.effective_at END,
  'createdAt', k.created_at, 'createdBy', k.created_by)`

export async function findKey (db: Executor, { projectId, keyId }: KeyAddress): Promise<KeyRow | undefined> {
  const [found] = await db.execute<{ key: KeyRow }>(sql`
    SELECT ${row} AS key FROM keys k WHERE k.project_id = ${projectId} AND k.id = ${keyId} AND k.status <> 'deleted'`)
  return found?.key
}

const statusIs: Record<Key['status'], SQL> = {
  active: sql`k.status = 'active' AND (k.expires_at IS NULL OR k.expires_at > now())`,
  expired: sql`k.status = 'active' AND k.expires_at <= now()`,
  disabled: sql`k.status = 'disabled'`,
  revoked: sql`k.status = 'revoked'`
}

const orders = {
  createdAt: { column: sql`k.created_at`, direction: sql`ASC`, beyond: sql`>` },
  '-createdAt': { column: sql`k.created_at`, direction: sql`DESC`, beyond: sql`<` },
  name: { column: sql`k.name`, direction: sql`ASC`, beyond: sql`>` },
  '-name': { column: sql`k.name`, direction: sql`DESC`, beyond: sql`<` }
}
const keyId = /^key_[0-9A-Za-z]{22}$/
// PostgreSQL knows no NUL.
const isName = (value: string): boolean => /^[^\0]{1,200}$/u.test(value)

/** One page of a project's keys. A page is cut by value and id of its last row, so rows that come or go shift nothing. */
export async function listKeys (db: Executor, projectId: string, { search, status, sort, cursor, limit }: ListKeys): Promise<{ rows: KeyRow[], nextCursor: string | null }> {
  const order = orders[sort]
  const byName = sort.endsWith('name')
  const after = cursor === undefined ? undefined : readCursor(cursor, sort, { value: byName ? isName : isInstant, id: keyId })
  if (search !== undefined && !isSearchable(search)) return { rows: [], nextCursor: null }
  const conditions = [
    sql`k.project_id = ${projectId}`,
    sql`k.status <> 'deleted'`,
    ...status === undefined ? [] : [statusIs[status]],
    ...search === undefined || search === '' ? [] : [matches(search)],
    ...after === undefined ? [] : [sql`(${order.column}, k.id) ${order.beyond} (${byName ? sql`${after.value}` : sql`${after.value}::timestamptz`}, ${after.id})`]
  ]
  const found = await db.execute<{ key: KeyRow }>(sql`
    SELECT ${row} AS key FROM keys k WHERE ${sql.join(conditions, sql` AND `)}
    ORDER BY ${order.column} ${order.direction}, k.id ${order.direction} LIMIT ${limit + 1}`)
  const rows = found.slice(0, limit).map(({ key }) => key)
  const last = rows.at(-1)
  if (found.length <= limit || last === undefined) return { rows, nextCursor: null }
  return { rows, nextCursor: writeCursor(sort, { value: byName ? last.name : new Date(last.createdAt).toISOString(), id: last.id }) }
}

/** `%`, `_` and `\` mean themselves. */
function matches (search: string): SQL {
  const literal = search.replace(/[\\%_]/g, '\\$&')
  if ([...search].length < 3) return sql`k.name ILIKE ${`${literal}%`}`
  return sql`(k.name ILIKE ${`%${literal}%`} OR k.description ILIKE ${`%${literal}%`})`
}
