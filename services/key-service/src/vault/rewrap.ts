import { digestSecret } from '@keygate/api-key'
import { recordAudit, type ChangeContext } from '../audit/audit-log.ts'
import type { Database } from '../db/database.ts'
import { ciphertextsOf, type Kept, type Renewed, type Use } from './ciphertexts.ts'
import type { Peppers } from './peppers.ts'
import type { Vault } from './vault.ts'

export interface RewrapParts { database: Database, vault: Vault, peppers: Peppers, context: ChangeContext }

/** A ciphertext that stays as it is, with the key that it belongs to. */
export interface Undecryptable { projectId: string, keyId: string, encryptionKeyId: string, cannot: 'no-key' | 'damaged' }

/** `missed`: changed by somebody else in between; another pass sees what they are now. */
export interface Pass { renewed: number, missed: number, undecryptable: Undecryptable[] }

/** Ciphertexts per transaction: few enough that no other writer waits noticeably for their rows. */
const batchSize = 500

/**
 * Goes once through all ciphertexts of one use that are not under the current key, or whose secret is not under the current pepper,
 * and brings them there. Each batch is a transaction with its audit entry, so it may be ended at any time and begun again; each row
 * is written only if it is still what was read, so a running service may change the same rows.
 *
 * @param onDone told of how many the last batch disposed: those that were missed come again.
 */
export async function rewrapOnce ({ database, vault, peppers, context }: RewrapParts, use: Use, onDone: (ciphertexts: number) => void): Promise<Pass> {
  const current = { encryptionKeyId: vault.currentId, pepperId: peppers.currentId }
  const { findDue, replace } = ciphertextsOf[use]
  const pass: Pass = { renewed: 0, missed: 0, undecryptable: [] }
  for (let after = '', size = batchSize; size === batchSize;) {
    const batch = await database.transaction(async tx => {
      const due = await findDue(tx, current, { after, limit: batchSize })
      const results = due.map(kept => renew(kept, use, vault, peppers))
      const ready = results.filter(result => 'old' in result)
      const renewed = ready.length === 0 ? 0 : await replace(tx, ready)
      if (renewed > 0) await recordAudit(tx, context, { action: 'secrets.rewrap', projectId: null, keyId: null, details: { use, renewed, ...current } })
      return { due, renewed, missed: ready.length - renewed, undecryptable: results.filter(result => 'cannot' in result) }
    })
    pass.renewed += batch.renewed
    pass.missed += batch.missed
    pass.undecryptable.push(...batch.undecryptable)
    onDone(batch.due.length - batch.missed)
    size = batch.due.length
    after = batch.due.at(-1)?.id ?? after
  }
  return pass
}

function renew (kept: Kept, use: Use, vault: Vault, peppers: Peppers): Renewed | Undecryptable {
  const { id, projectId, keyId, ciphertext, encryptionKeyId } = kept
  const decrypted = vault.decrypt(ciphertext, { projectId, keyId, use })
  if ('cannot' in decrypted) return { projectId, keyId, encryptionKeyId, ...decrypted }
  const { plaintext } = decrypted
  return {
    id,
    old: ciphertext,
    ciphertext: encryptionKeyId === vault.currentId ? ciphertext : vault.encrypt(plaintext, { projectId, keyId, use }),
    encryptionKeyId: vault.currentId,
    ...digested(plaintext, kept, peppers)
  }
}

/** Only a secret is looked up by its digest; a replay has none. */
function digested (plaintext: string, { digest, pepperId }: Kept, peppers: Peppers) {
  if (digest === null || pepperId === null) return { oldDigest: null }
  return { oldDigest: digest, ...pepperId === peppers.currentId ? { digest, pepperId } : peppers.current(digestSecret(plaintext)) }
}
