import { digestSecret, generateId, generateSecret, hintOf } from '@keygate/api-key'
import { and, eq, gt, inArray, isNull, or, sql } from 'drizzle-orm'
import type { TokenCaller } from '../access/caller.ts'
import type { Permission } from '../access/permissions.ts'
import { grantable, rightsOf } from '../access/rights.ts'
import type { Executor } from '../db/database.ts'
import type { Queue } from '../db/queues.ts'
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

/** Where a token comes from: the person it rests on, and the token itself with those that made it. Never changes, nor does the project of one that somebody made. */
export interface Lineage { makerId: string | null, tokens: string[], projectId: string | null }

/** As many ancestors queue with a token (`db/queues.ts`): there are no more in practice, and nobody can fill the server's memory with locks. */
const longestLineage = 16

export async function findLineage (db: Executor, id: string): Promise<Lineage | undefined> {
  const [found] = await db.execute<Lineage & Record<string, unknown>>(sql`
    WITH RECURSIVE line AS (
      SELECT id, parent_id, 1 AS length FROM ${serviceTokens} WHERE id = ${id}
      UNION ALL SELECT t.id, t.parent_id, length + 1 FROM ${serviceTokens} t JOIN line ON t.id = line.parent_id WHERE length < ${longestLineage})
    SELECT maker_id AS "makerId", project_id AS "projectId", (SELECT json_agg(id) FROM line) AS tokens FROM ${serviceTokens} WHERE id = ${id}`)
  return found
}

/**
 * What a token may do at this moment; it cannot end before this transaction does. The rights of the person it rests on are held
 * before the token itself: who takes them away ends the tokens afterwards, and finds all of them.
 *
 * @param lineage the token's own.
 */
export async function holdServiceToken (tx: Executor, id: string, { makerId, projectId: madeFor }: Lineage): Promise<{ permissions: Permission[], projectId: string | null } | undefined> {
  const { permissions, projectId } = serviceTokens
  const rights = makerId === null ? null : await rightsOf(tx, makerId, madeFor)
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
 * Who ends a token is alone with it. With those that it came from it keeps still, so that none of them takes it along meanwhile, and
 * so does its project.
 */
export async function queuesToEnd (db: Executor, id: string): Promise<Queue[]> {
  const lineage = await findLineage(db, id)
  if (lineage === undefined) return []
  const { tokens, makerId, projectId } = lineage
  return [
    ...tokens.map((token): Queue => ({ of: 'token', id: token, alone: token === id })),
    ...makerId === null ? [] : [{ of: 'person', id: makerId, alone: false } satisfies Queue],
    ...projectId === null ? [] : [{ of: 'project', id: projectId, alone: false } satisfies Queue]
  ]
}

/**
 * What a token made ends with it; one that is being made at this moment too, by the foreign key.
 *
 * @returns the ids of all that ended, for the audit trail.
 */
export async function endTokens (tx: Executor, ids: string[]): Promise<string[]> {
  if (ids.length === 0) return []
  const made = await descendantsOf(tx, ids)
  const ending = [...new Set([...ids, ...made.map(({ id }) => id)])]
  // In one order, as whoever deletes their project locks them; the cascade has its own.
  await tx.select({ id: serviceTokens.id }).from(serviceTokens).where(inArray(serviceTokens.id, ending)).orderBy(serviceTokens.id).for('update')
  await tx.delete(serviceTokens).where(inArray(serviceTokens.id, ids))
  return ending
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
