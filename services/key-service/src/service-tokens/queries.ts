import { and, desc, eq, inArray, sql } from 'drizzle-orm'
import type { Caller } from '../access/caller.ts'
import { ofRole } from '../access/permissions.ts'
import { isInstant, readCursor, writeCursor } from '../cursor.ts'
import type { Executor } from '../db/database.ts'
import { serviceTokens } from '../db/schema.ts'
import type { ListServiceTokens, ServiceToken } from './schemas.ts'

const { id, name, permissions, projectId, hint, fromFile, expiresAt, createdAt, createdBy } = serviceTokens
const columns = { id, name, permissions, projectId, hint, fromFile, expiresAt, createdAt, createdBy }
const idShape = /^tok_[0-9A-Za-z]{22}$/

/** Operators see all tokens, owners those of their projects, a bound token those of its own. */
function isVisibleTo (caller: Caller) {
  if (caller.kind === 'token') return caller.projectId === null ? undefined : eq(projectId, caller.projectId)
  if (caller.isOperator) return undefined
  const owned = [...caller.roles].filter(([, role]) => ofRole[role].has('tokens:write')).map(([project]) => project)
  return owned.length === 0 ? sql`false` : inArray(projectId, owned)
}

/** A token that this caller may see; its row is held until the transaction ends. */
export async function holdVisibleToken (tx: Executor, caller: Caller, tokenId: string): Promise<ServiceToken | undefined> {
  if (!idShape.test(tokenId)) return undefined
  const [found] = await tx.select(columns).from(serviceTokens).where(and(eq(id, tokenId), isVisibleTo(caller))).for('update')
  return found === undefined ? undefined : view(found)
}

/** One page, youngest first. */
export async function listServiceTokens (db: Executor, caller: Caller, { cursor, limit }: ListServiceTokens): Promise<{ data: ServiceToken[], nextCursor: string | null }> {
  const sort = '-createdAt'
  const after = cursor === undefined ? undefined : readCursor(cursor, sort, { value: isInstant, id: idShape })
  const found = await db.select(columns).from(serviceTokens)
    .where(and(isVisibleTo(caller), after === undefined ? undefined : sql`(${createdAt}, ${id}) < (${after.value}::timestamptz, ${after.id})`))
    .orderBy(desc(createdAt), desc(id)).limit(limit + 1)
  const data = found.slice(0, limit).map(view)
  const last = data.at(-1)
  return { data, nextCursor: found.length <= limit || last === undefined ? null : writeCursor(sort, { value: last.createdAt, id: last.id }) }
}

interface Row extends Omit<ServiceToken, 'permissions' | 'expiresAt' | 'createdAt'> { permissions: string[], expiresAt: Date | null, createdAt: Date }

function view ({ permissions, expiresAt, createdAt, ...rest }: Row): ServiceToken {
  return { ...rest, permissions: permissions as ServiceToken['permissions'], expiresAt: expiresAt?.toISOString() ?? null, createdAt: createdAt.toISOString() }
}
