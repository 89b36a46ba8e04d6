import { digestSecret } from '@keygate/api-key'
import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import type { Peppers } from './peppers.ts'
import type { Vault } from './vault.ts'

interface Sample extends Record<string, unknown> { projectId: string, keyId: string, ciphertext: string, digest: string, pepperId: string }

/** Per encryption key. A single one that is damaged says nothing about the key; so many at once do. */
const sampleSize = 3

/**
 * Another value under an old id: the likely slip when a pepper or a key is replaced, and no id is missing then. A few ciphertexts tell:
 * the right key decrypts them, and what comes out has the digest that is stored.
 *
 * @returns a fault per id whose value is another one.
 */
export async function findUnfit (db: Executor, vault: Vault, peppers: Peppers): Promise<string[]> {
  const faults = new Set<string>()
  const fits = new Map<string, boolean>()
  for (const id of vault.ids) {
    const samples = await takeSamples(db, id)
    const results = samples.map(({ projectId, keyId, ciphertext }) => vault.decrypt(ciphertext, { projectId, keyId, use: 'secret' }))
    if (samples.length === sampleSize && results.every(result => 'cannot' in result)) faults.add(anotherValue('KEYGATE_ENCRYPTION_KEY', 'KEYGATE_PREVIOUS_ENCRYPTION_KEYS', id, id === vault.currentId))
    results.forEach((result, i) => {
      const { digest, pepperId } = samples[i] as Sample
      if ('cannot' in result || !peppers.ids.includes(pepperId)) return
      const isIt = peppers.all(digestSecret(result.plaintext)).some(keyed => keyed.pepperId === pepperId && keyed.digest === digest)
      fits.set(pepperId, isIt || fits.get(pepperId) === true)
    })
  }
  for (const [id, fit] of fits) if (!fit) faults.add(anotherValue('KEYGATE_PEPPER', 'KEYGATE_PREVIOUS_PEPPERS', id, id === peppers.currentId))
  return [...faults]
}

async function takeSamples (db: Executor, encryptionKeyId: string): Promise<Sample[]> {
  return await db.execute<Sample>(sql`
    SELECT project_id AS "projectId", key_id AS "keyId", ciphertext, digest, pepper_id AS "pepperId"
    FROM secrets WHERE encryption_key_id = ${encryptionKeyId} LIMIT ${sampleSize}`)
}

function anotherValue (variable: string, previousVariable: string, id: string, isCurrent: boolean): string {
  return isCurrent
    ? `${variable} is not the one that stored secrets have under the id "${id}": if it is new, give it a new id in ${variable}_ID and put the old one into ${previousVariable}`
    : `${previousVariable} has under the id "${id}" another value than stored secrets have: put the old one back`
}
