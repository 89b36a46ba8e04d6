import { digestSecret, generateId, generateSecret, hintOf } from '@keygate/api-key'
import { sql } from 'drizzle-orm'
import type { Executor } from '../src/db/database.ts'
import { idempotencyKeys, keys, projects, secrets } from '../src/db/schema.ts'
import type { Peppers } from '../src/vault/peppers.ts'
import type { Decrypted, Vault } from '../src/vault/vault.ts'

export interface StoredSecret { secret: string, secretId: string, projectId: string, keyId: string }

/** Keys of a new project, each with one secret as the service stores it; without a vault they are sealed. */
export async function storeSecrets (db: Executor, count: number, { vault, peppers }: { vault?: Vault, peppers: Peppers }): Promise<StoredSecret[]> {
  const [project] = await db.insert(projects).values({ name: 'P', createdBy: 'test' }).returning({ projectId: projects.id })
  const { projectId } = project as { projectId: string }
  const stored = Array.from({ length: count }, () => ({ secret: generateSecret('kg'), secretId: generateId('sec'), projectId, keyId: generateId('key') }))
  for (let start = 0; start < count; start += 1000) {
    const part = stored.slice(start, start + 1000)
    await db.insert(keys).values(part.map(({ keyId }) => ({ projectId, id: keyId, name: 'K', status: 'active' as const, allowedForAll: true, sealed: vault === undefined, createdBy: 'test' })))
    await db.insert(secrets).values(part.map(({ secret, secretId, keyId }) => ({
      projectId,
      keyId,
      id: secretId,
      ...peppers.current(digestSecret(secret)),
      ciphertext: vault?.encrypt(secret, { projectId, keyId, use: 'secret' }) ?? null,
      encryptionKeyId: vault?.currentId ?? null,
      hint: hintOf(secret, 'kg'),
      state: 'current' as const
    })))
  }
  return stored
}

/** The answer to a repeated request that brought forth this secret. */
export async function storeReplay (db: Executor, { secret, projectId, keyId }: StoredSecret, vault: Vault): Promise<void> {
  await db.insert(idempotencyKeys).values({
    digest: digestSecret(secret), fingerprint: 'f', projectId, keyId, status: 201, body: {}, secretCiphertext: vault.encrypt(secret, { projectId, keyId, use: 'replay' }), encryptionKeyId: vault.currentId
  })
}

/** As a verification looks it up: one statement over all peppers. */
export async function lookUp (db: Executor, secret: string, peppers: Peppers): Promise<{ id: string, pepperId: string } | undefined> {
  const digests = peppers.all(digestSecret(secret)).map(({ digest }) => sql`${digest}`)
  const [found] = await db.execute<{ id: string, pepperId: string }>(sql`SELECT id, pepper_id AS "pepperId" FROM secrets WHERE digest IN (${sql.join(digests, sql`, `)})`)
  return found
}

export async function reveal (db: Executor, { secretId, projectId, keyId }: StoredSecret, vault: Vault): Promise<Decrypted | 'sealed'> {
  const [row] = await db.execute<{ ciphertext: string | null }>(sql`SELECT ciphertext FROM secrets WHERE id = ${secretId}`)
  return row?.ciphertext == null ? 'sealed' : vault.decrypt(row.ciphertext, { projectId, keyId, use: 'secret' })
}
