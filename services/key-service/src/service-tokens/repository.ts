import { generateId, digestSecret } from '@keygate/api-key'
import { and, eq, gt, isNull, notInArray, or, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { serviceTokens } from '../db/schema.ts'
import type { Permission } from '../access/permissions.ts'
import type { TokenEntry } from './tokens-file.ts'

export interface ServiceToken { id: string, name: string, permissions: Permission[], projectId: string | null }

/**
 * Finds who presents a token. The comparison is an index look-up of its digest, so its duration tells nothing about the token.
 */
export async function findServiceToken (db: Executor, token: string): Promise<ServiceToken | undefined> {
  const { id, name, permissions, projectId } = serviceTokens
  const [found] = await db.select({ id, name, permissions, projectId }).from(serviceTokens)
    .where(and(eq(serviceTokens.digest, digestSecret(token)), or(isNull(serviceTokens.expiresAt), gt(serviceTokens.expiresAt, sql`now()`))))
  return found as ServiceToken | undefined
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
