import { digestSecret, generateId, generateSecret, hintOf } from '@keygate/api-key'
import { and, eq, gt, inArray, isNull, notInArray, or, sql } from 'drizzle-orm'
import type { TokenCaller } from '../access/caller.ts'
import type { Permission } from '../access/permissions.ts'
import { grantable, rightsOf } from '../access/rights.ts'
import type { Executor } from '../db/database.ts'
import { serviceTokens } from '../db/schema.ts'
import type { TokenEntry } from './tokens-file.ts'

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

/** Makes the file's tokens those that work: by name, so that a new token under an old name replaces the old one. Others of the file end. */
export async function putFileTokens (tx: Executor, entries: TokenEntry[]): Promise<void> {
  const names = entries.map(entry => entry.name)
  await tx.delete(serviceTokens).where(and(eq(serviceTokens.fromFile, true), names.length === 0 ? undefined : notInArray(serviceTokens.name, names)))
  // Two entries may have exchanged their tokens: the old digests step aside before the new ones are written.
  await tx.update(serviceTokens).set({ digest: sql`'replaced ' || ${serviceTokens.id}` }).where(eq(serviceTokens.fromFile, true))
  for (const { token, ...entry } of entries) {
    const values = { ...entry, digest: digestSecret(token), fromFile: true }
    await tx.insert(serviceTokens).values({ id: generateId('tok'), ...values }).onConflictDoUpdate({ target: serviceTokens.name, targetWhere: sql`from_file`, set: values })
  }
}

/** What another token may be made of: the present state of a token, which cannot end before this transaction does. */
export async function holdServiceToken (tx: Executor, id: string): Promise<{ permissions: Permission[], projectId: string | null, makerId: string | null, expiresAt: Date | null } | undefined> {
  const { permissions, projectId, makerId, expiresAt } = serviceTokens
  const [held] = await tx.select({ permissions, projectId, makerId, expiresAt }).from(serviceTokens).where(and(eq(serviceTokens.id, id), isLive)).for('share')
  return held === undefined ? undefined : { ...held, permissions: held.permissions as Permission[] }
}

export interface NewServiceToken {
  name: string
  permissions: Permission[]
  projectId: string | null
  expiresAt: Date | null
  makerId: string | null
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
 * Ends the tokens of a person that may do more than the person still may: to be called in every transaction that takes a right away.
 *
 * @returns their ids, for the audit trail.
 */
export async function endUnfoundedTokens (tx: Executor, makerId: string): Promise<string[]> {
  const made = await tx.select({ id: serviceTokens.id, permissions: serviceTokens.permissions, projectId: serviceTokens.projectId }).from(serviceTokens).where(eq(serviceTokens.makerId, makerId))
  if (made.length === 0) return []
  const rights = await rightsOf(tx, makerId)
  const unfounded = made.filter(token => !token.permissions.every(permission => grantable(rights, token.projectId).has(permission as Permission))).map(({ id }) => id)
  if (unfounded.length > 0) await tx.delete(serviceTokens).where(inArray(serviceTokens.id, unfounded))
  return unfounded
}

/** Those bound to a project that is no more: nothing is left that they could do. The file's stay, it may name a project that is made later. */
export async function endTokensOfProject (tx: Executor, projectId: string): Promise<void> {
  await tx.delete(serviceTokens).where(and(eq(serviceTokens.projectId, projectId), eq(serviceTokens.fromFile, false)))
}

export async function endServiceToken (tx: Executor, id: string): Promise<void> {
  await tx.delete(serviceTokens).where(eq(serviceTokens.id, id))
}
