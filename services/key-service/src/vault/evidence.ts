import { digestSecret } from '@keygate/api-key'
import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { isNeeded, isNeededReplay } from './needed.ts'
import type { Peppers } from './peppers.ts'
import type { Purpose, Vault } from './vault.ts'

/** What stored data say of the value under an id: how many could be asked, and how many of these were made with it. */
export interface Evidence { asked: number, fitting: number }

/** A single one that is damaged says nothing; all of so many do. */
const sampleSize = 3

/** The right encryption key decrypts what is under its id. */
export async function askCiphertexts (db: Executor, vault: Vault, id: string): Promise<Evidence> {
  const samples = await db.execute<Purpose & { ciphertext: string } & Record<string, unknown>>(sql`
    (SELECT 'secret' AS use, project_id AS "projectId", key_id AS "keyId", ciphertext
      FROM secrets WHERE encryption_key_id = ${id} AND ${isNeeded} LIMIT ${sampleSize})
    UNION ALL
    (SELECT 'replay', project_id, key_id, secret_ciphertext FROM idempotency_keys WHERE encryption_key_id = ${id} AND ${isNeededReplay} LIMIT ${sampleSize})
    LIMIT ${sampleSize}`)
  return { asked: samples.length, fitting: samples.filter(({ ciphertext, ...purpose }) => 'plaintext' in vault.decrypt(ciphertext, purpose)).length }
}

/** The right pepper makes of a secret the digest that is stored. Only secrets that can be decrypted can be asked. */
export async function askDigests (db: Executor, vault: Vault | undefined, peppers: Peppers, id: string): Promise<Evidence> {
  if (vault === undefined) return { asked: 0, fitting: 0 }
  const samples = await db.execute<{ projectId: string, keyId: string, ciphertext: string, digest: string }>(sql`
    SELECT project_id AS "projectId", key_id AS "keyId", ciphertext, digest
    FROM secrets WHERE pepper_id = ${id} AND encryption_key_id IN (${sql.join(vault.ids.map(keyId => sql`${keyId}`), sql`, `)}) AND ${isNeeded} LIMIT ${sampleSize}`)
  const answers = samples.flatMap(({ projectId, keyId, ciphertext, digest }) => {
    const decrypted = vault.decrypt(ciphertext, { projectId, keyId, use: 'secret' })
    return 'cannot' in decrypted ? [] : [peppers.all(digestSecret(decrypted.plaintext)).some(keyed => keyed.pepperId === id && keyed.digest === digest)]
  })
  return { asked: answers.length, fitting: answers.filter(Boolean).length }
}
