import { digestSecret, generateId, generateSecret, hintOf } from '@keygate/api-key'
import { and, eq, gt, inArray, isNull, or, sql } from 'drizzle-orm'
import type { TokenCaller } from '../access/caller.ts'
import type { Permission } from '../access/permissions.ts'
import { grantable, rightsOf } from '../access/rights.ts'
import type { Executor } from '../db/database.ts'
import { serviceTokens } from '../db/schema.ts'

/** Not yet expired, by the database's clock: every process judges alike. */
const isLive = or(isNull(serviceTokens.expiresAt), gt(serviceTokens.expiresAt, sql`now()`))

/**
 * Finds who presents a token. The comparison is an index look-up of its digest, so its duration tells nothing about the token.
 */
export async function findServiceToken (db: Executor, token: string): Promise<TokenCaller | undefined> {
  const { id, name, permissions, projectId } = serviceTokens
  const [found] = await db.select({ id, name, permissions, projectId }).from(serviceTokens)
    .where(and(eq(serviceTokens.digest, digestSecret(token)), isLive))
  return found === undefined ? undefined : { kind: 'token', ...found, permissions: new Set(found.permissions as Permission[]) }
}

/**
 * What a token may do at this moment; it cannot end before this transaction does. The rights of the person it rests on are held
 * before the token itself: who takes them away ends the tokens afterwards, and finds all of them.
 */
export async function holdServiceToken (tx: Executor, id: string): Promise<{ permissions: Permission[], projectId: string | null } | undefined> {
  const { permissions, projectId, makerId } = serviceTokens
  const [found] = await tx.select({ makerId }).from(serviceTokens).where(eq(serviceTokens.id, id))
  const rights = typeof found?.makerId === 'string' ? await rightsOf(tx, found.makerId) : null
  const [held] = await tx.select({ permissions, projectId }).from(serviceTokens).where(and(eq(serviceTokens.id, id), isLive)).for('share')
  if (held === undefined) return undefined
  const founded = rights === null ? null : grantable(rights, held.projectId)
  return { ...held, permissions: (held.permissions as Permission[]).filter(permission => founded?.has(permission) ?? true) }
}

/** The person that a token rests on, and when it ends; null: on nobody, and never. */
export async function originOf (tx: Executor, id: string): Promise<{ makerId: string | null, expiresAt: Date | null }> {
  const { makerId, expiresAt } = serviceTokens
  const [found] = await tx.select({ makerId, expiresAt }).from(serviceTokens).where(eq(serviceTokens.id, id))
  if (found === undefined) throw new Error('the token that is held is not there')
  return found
}

/** Lets those who end tokens come one after the other: two tokens that end each other, or themselves twice, would wait in a circle. */
export async function holdEndings (tx: Executor): Promise<void> {
  await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtextextended('service-tokens', 0))`)
}

export interface NewServiceToken {
  name: string
  permissions: Permission[]
  projectId: string | null
  expiresAt: Date | null
  makerId: string | null
  parentId: string | null
  createdBy: string
}

/** @returns the token, which stands nowhere else, and its id. */
export async function insertServiceToken (tx: Executor, values: NewServiceToken): Promise<{ id: string, token: string }> {
  const token = generateSecret('kgs')
  const id = generateId('tok')
  await tx.insert(serviceTokens).values({ id, digest: digestSecret(token), hint: hintOf(token, 'kgs'), ...values })
  return { id, token }
}

/**
 * Ends the tokens of a person that may do more than the person still may, and what these made: to be called in every transaction that takes a right away.
 *
 * @returns their ids, for the audit trail.
 */
export async function endUnfoundedTokens (tx: Executor, makerId: string): Promise<string[]> {
  const made = await tx.select({ id: serviceTokens.id, permissions: serviceTokens.permissions, projectId: serviceTokens.projectId }).from(serviceTokens).where(eq(serviceTokens.makerId, makerId))
  if (made.length === 0) return []
  const rights = await rightsOf(tx, makerId)
  const unfounded = made.filter(token => !token.permissions.every(permission => grantable(rights, token.projectId).has(permission as Permission))).map(({ id }) => id)
  return await endTokens(tx, unfounded)
}

/** Those bound to a project that is no more: nothing is left that they could do. The file's stay, it may name a project that is made later. */
export async function endTokensOfProject (tx: Executor, projectId: string): Promise<void> {
  await tx.delete(serviceTokens).where(and(eq(serviceTokens.projectId, projectId), eq(serviceTokens.fromFile, false)))
}

/**
 * What a token made ends with it; one that is being made at this moment too, by the foreign key.
 *
 * @returns the ids of all that ended, for the audit trail.
 */
export async function endTokens (tx: Executor, ids: string[]): Promise<string[]> {
  if (ids.length === 0) return []
  const made = await descendantsOf(tx, ids)
  await tx.delete(serviceTokens).where(inArray(serviceTokens.id, ids))
  return [...new Set([...ids, ...made.map(({ id }) => id)])]
}

export interface Descendant extends Record<string, unknown> { id: string, permissions: Permission[], projectId: string | null }

/** What these tokens made, and what that made. */
export async function descendantsOf (tx: Executor, ids: string[]): Promise<Descendant[]> {
  return await tx.execute<Descendant>(sql`
    WITH RECURSIVE made AS (
      SELECT id, permissions, project_id FROM service_tokens WHERE parent_id = ANY(${`{${ids.join(',')}}`}::text[])
      UNION SELECT t.id, t.permissions, t.project_id FROM service_tokens t JOIN made ON t.parent_id = made.id)
    SELECT id, to_json(permissions) AS permissions, project_id AS "projectId" FROM made`)
}
