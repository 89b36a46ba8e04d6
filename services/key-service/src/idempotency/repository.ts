import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import type { Effect } from '../outbox/make-change.ts'

/** For how long a request can be repeated, and for how long its secret is kept for that. By the database's clock. */
export const [rowsLive, secretsLive] = [sql`interval '24 hours'`, sql`interval '15 minutes'`]

/** A first answer as it is kept. Its body has no secret, and no `effective` until it is known how the change went on (`isSettled`). */
export interface KeptAnswer {
  fingerprint: string
  projectId: string
  keyId: string
  status: number
  body: Record<string, unknown>
  isSettled: boolean
  /** Null: never kept, or no longer. */
  secretCiphertext: string | null
}

/** What is stored with the change. */
export interface NewAnswer { digest: string, fingerprint: string, projectId: string, keyId: string, status: number, body: object, secret: { ciphertext: string, encryptionKeyId: string } | null }

export async function findAnswer (db: Executor, digest: string): Promise<KeptAnswer | undefined> {
  const [row] = await db.execute<KeptAnswer & Record<string, unknown>>(sql`
    SELECT fingerprint, project_id AS "projectId", key_id AS "keyId", status, body, body ? 'effective' AS "isSettled",
      CASE WHEN created_at > now() - ${secretsLive} AND EXISTS (SELECT 1 FROM projects p WHERE p.id = project_id AND p.deleted_at IS NULL) THEN secret_ciphertext END AS "secretCiphertext"
    FROM idempotency_keys WHERE digest = ${digest} AND created_at > now() - ${rowsLive}`)
  return row
}

/** Keeps everybody else from the same request until this transaction ends. False: somebody has it, and nobody waits. */
export async function tryHold (tx: Executor, digest: string): Promise<boolean> {
  const [row] = await tx.execute<{ held: boolean }>(sql`SELECT pg_try_advisory_xact_lock(${lockOf(digest)}::bigint) AS held`)
  return row?.held === true
}

/** An older row may still stand there, of a request that can no longer be repeated. */
export async function keepAnswer (tx: Executor, { digest, fingerprint, projectId, keyId, status, body, secret }: NewAnswer): Promise<void> {
  await tx.execute(sql`
    INSERT INTO idempotency_keys (digest, fingerprint, project_id, key_id, status, body, secret_ciphertext, encryption_key_id)
    VALUES (${digest}, ${fingerprint}, ${projectId}, ${keyId}, ${status}, ${JSON.stringify(body)}::jsonb, ${secret?.ciphertext ?? null}, ${secret?.encryptionKeyId ?? null})
    ON CONFLICT (digest) DO UPDATE SET (fingerprint, project_id, key_id, status, body, secret_ciphertext, encryption_key_id, created_at)
      = (excluded.fingerprint, excluded.project_id, excluded.key_id, excluded.status, excluded.body, excluded.secret_ciphertext, excluded.encryption_key_id, now())`)
}

/**
 * Completes a kept body with how the change went on, unless somebody has done that: whoever comes first says it for all.
 *
 * @returns the complete body; undefined when the row is gone.
 */
export async function settleAnswer (db: Executor, digest: string, { effective, effectiveAt }: Effect): Promise<Record<string, unknown> | undefined> {
  const [row] = await db.execute<{ body: Record<string, unknown> }>(sql`
    UPDATE idempotency_keys SET body = CASE WHEN body ? 'effective' THEN body ELSE body || ${JSON.stringify({ effective, effectiveAt })}::jsonb END
    WHERE digest = ${digest} RETURNING body`)
  return row?.body
}

/** How a change of a key has gone on since, also of one that was deleted. */
export async function findEffect (db: Executor, { projectId, keyId, version }: { projectId: string, keyId: string, version: number }): Promise<Effect> {
  const [row] = await db.execute<{ at: string | null }>(sql`
    SELECT effective_at AS at FROM keys WHERE project_id = ${projectId} AND id = ${keyId} AND effective_version >= ${version}`)
  return row === undefined || row.at === null ? { effective: 'pending', effectiveAt: null } : { effective: 'everywhere', effectiveAt: new Date(row.at).toISOString() }
}

/** Erases what is kept for no longer. */
export async function eraseOld (db: Executor): Promise<void> {
  await db.execute(sql`DELETE FROM idempotency_keys WHERE created_at <= now() - ${rowsLive}`)
  await db.execute(sql`
    UPDATE idempotency_keys SET secret_ciphertext = NULL, encryption_key_id = NULL
    WHERE created_at <= now() - ${secretsLive} AND secret_ciphertext IS NOT NULL`)
}

/** 64 bits of the digest. Should two ever be equal there, one is told to ask again. */
function lockOf (digest: string): string {
  return Buffer.from(digest, 'base64url').readBigInt64BE().toString()
}
