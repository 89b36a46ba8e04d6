import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import type { Purpose } from './vault.ts'

export type Use = Purpose['use']

/** A stored ciphertext. Digest and pepper are a secret's; null: it is an answer that may be asked for again. */
export interface Kept { id: string, projectId: string, keyId: string, ciphertext: string, encryptionKeyId: string, digest: string | null, pepperId: string | null }

/** What takes its place if `old` and `oldDigest` still stand there. */
export interface Renewed { id: string, old: string, oldDigest: string | null, ciphertext: string, encryptionKeyId: string, digest?: string, pepperId?: string }

export interface CurrentIds { encryptionKeyId: string, pepperId: string }
export interface Page { after: string, limit: number }

export interface Ciphertexts {
  /** Those that are not as a new one would be, by id. */
  findDue: (tx: Executor, current: CurrentIds, page: Page) => Promise<Kept[]>
  /** How many were replaced: fewer than given when somebody else changed some. */
  replace: (tx: Executor, renewed: Renewed[]) => Promise<number>
  /** Drops some of those under a key, at most `limit`; returns how many. */
  drop: (tx: Executor, encryptionKeyId: string, limit: number) => Promise<number>
}

/** The two places where a secret is kept as ciphertext. */
export const ciphertextsOf: Record<Use, Ciphertexts> = {
  secret: {
    findDue: async (tx, current, { after, limit }) => await tx.execute<Kept & Record<string, unknown>>(sql`
      SELECT id, project_id AS "projectId", key_id AS "keyId", ciphertext, encryption_key_id AS "encryptionKeyId", digest, pepper_id AS "pepperId"
      FROM secrets WHERE id > ${after} AND ciphertext IS NOT NULL AND (encryption_key_id <> ${current.encryptionKeyId} OR pepper_id <> ${current.pepperId})
      ORDER BY id LIMIT ${limit}`),
    replace: async (tx, renewed) => count(await tx.execute(sql`
      UPDATE secrets SET ciphertext = r.ciphertext, encryption_key_id = r."encryptionKeyId", digest = r.digest, pepper_id = r."pepperId"
      FROM jsonb_to_recordset(${JSON.stringify(renewed)}::jsonb)
        AS r(id text, old text, "oldDigest" text, ciphertext text, "encryptionKeyId" text, digest text, "pepperId" text)
      WHERE secrets.id = r.id AND secrets.ciphertext = r.old AND secrets.digest = r."oldDigest"
      RETURNING secrets.id`)),
    // A key is sealed when its current secret cannot be shown again; one that is retiring ends anyway.
    drop: async (tx, encryptionKeyId, limit) => count(await tx.execute(sql`
      WITH dropped AS (
        UPDATE secrets SET ciphertext = NULL, encryption_key_id = NULL
        WHERE id IN (SELECT id FROM secrets WHERE encryption_key_id = ${encryptionKeyId} LIMIT ${limit})
        RETURNING id, project_id, key_id, state
      ), sealed AS (
        UPDATE keys SET sealed = true FROM dropped
        WHERE dropped.state = 'current' AND keys.project_id = dropped.project_id AND keys.id = dropped.key_id
      )
      SELECT id FROM dropped`))
  },
  replay: {
    findDue: async (tx, current, { after, limit }) => await tx.execute<Kept & Record<string, unknown>>(sql`
      SELECT digest AS id, project_id AS "projectId", key_id AS "keyId", secret_ciphertext AS ciphertext, encryption_key_id AS "encryptionKeyId",
        NULL AS digest, NULL AS "pepperId"
      FROM idempotency_keys WHERE digest > ${after} AND secret_ciphertext IS NOT NULL AND encryption_key_id <> ${current.encryptionKeyId}
      ORDER BY digest LIMIT ${limit}`),
    replace: async (tx, renewed) => count(await tx.execute(sql`
      UPDATE idempotency_keys SET secret_ciphertext = r.ciphertext, encryption_key_id = r."encryptionKeyId"
      FROM jsonb_to_recordset(${JSON.stringify(renewed)}::jsonb) AS r(id text, old text, ciphertext text, "encryptionKeyId" text)
      WHERE idempotency_keys.digest = r.id AND idempotency_keys.secret_ciphertext = r.old
      RETURNING idempotency_keys.digest`)),
    drop: async (tx, encryptionKeyId, limit) => count(await tx.execute(sql`
      UPDATE idempotency_keys SET secret_ciphertext = NULL, encryption_key_id = NULL
      WHERE digest IN (SELECT digest FROM idempotency_keys WHERE encryption_key_id = ${encryptionKeyId} LIMIT ${limit})
      RETURNING digest`))
  }
}

/** How much of it there is. */
export interface Stock {
  ciphertexts: number
  /** Of these, not as a new one would be. */
  due: number
  /** Sealed secrets under an old pepper. */
  sealedUnderOldPepper: number
}

export async function takeStock (db: Executor, { encryptionKeyId, pepperId }: CurrentIds): Promise<Stock> {
  const [row] = await db.execute<{ ciphertexts: string, due: string, sealed: string }>(sql`
    SELECT (SELECT count(*) FROM secrets WHERE encryption_key_id IS NOT NULL)
        + (SELECT count(*) FROM idempotency_keys WHERE encryption_key_id IS NOT NULL) AS ciphertexts,
      (SELECT count(*) FROM secrets WHERE ciphertext IS NOT NULL AND (encryption_key_id <> ${encryptionKeyId} OR pepper_id <> ${pepperId}))
        + (SELECT count(*) FROM idempotency_keys WHERE secret_ciphertext IS NOT NULL AND encryption_key_id <> ${encryptionKeyId}) AS due,
      (SELECT count(*) FROM secrets WHERE ciphertext IS NULL AND pepper_id <> ${pepperId}) AS sealed`)
  return { ciphertexts: Number(row?.ciphertexts ?? 0), due: Number(row?.due ?? 0), sealedUnderOldPepper: Number(row?.sealed ?? 0) }
}

export async function countUnder (db: Executor, encryptionKeyId: string): Promise<{ secrets: number, replays: number }> {
  const [row] = await db.execute<{ secrets: string, replays: string }>(sql`
    SELECT (SELECT count(*) FROM secrets WHERE encryption_key_id = ${encryptionKeyId}) AS secrets,
      (SELECT count(*) FROM idempotency_keys WHERE encryption_key_id = ${encryptionKeyId}) AS replays`)
  return { secrets: Number(row?.secrets ?? 0), replays: Number(row?.replays ?? 0) }
}

function count (rows: { length: number }): number {
  return rows.length
}
