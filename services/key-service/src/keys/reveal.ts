import { and, eq, ne } from 'drizzle-orm'
import { whileStill } from '../access/still.ts'
import { recordAudit, type ChangeContext } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { keys, secrets } from '../db/schema.ts'
import { conflict, keyNotFound, unacceptable } from '../errors.ts'
import { faultOfText } from '../text.ts'
import type { Vault } from '../vault/vault.ts'
import { transition, type KeyStatus } from './lifecycle.ts'
import { holdProject } from './repository.ts'
import type { KeyAddress } from './secrets.ts'

export interface RevealParts { database: Database, vault: Vault | undefined }

/** Shows a key's current secret; never one that is retiring, which nobody should set up anew. */
export type RevealSecret = (context: ChangeContext, key: KeyAddress, reason: string) => Promise<string>

/** Who sees a secret is written down in the transaction that reads it: what cannot be recorded is not shown. */
export function createReveal ({ database, vault }: RevealParts): RevealSecret {
  return async (context, address, reason) => {
    const fault = faultOfReason(reason)
    if (fault !== undefined) throw unacceptable([{ pointer: '/reason', message: fault }])
    const decrypted = await whileStill(database, context, async tx => {
      const { ciphertext, projectId, keyId } = await hold(tx, address)
      if (ciphertext === null || vault === undefined) throw conflict('key_sealed', 'This key is sealed: its secret cannot be shown again. Rotate it to get a new one.')
      const decrypted = vault.decrypt(ciphertext, { projectId, keyId, use: 'secret' })
      // An attempt that fails stays in the trail too: a ciphertext that was exchanged shows itself here.
      const details = { reason, ...'cannot' in decrypted && decrypted }
      await recordAudit(tx, context, { action: 'key.reveal', projectId, keyId, details })
      return decrypted
    })
    if ('cannot' in decrypted) throw conflict('secret_cannot_be_shown', remedies[decrypted.cannot])
    return decrypted.plaintext
  }
}

const remedies = {
  'no-key': 'This secret cannot be shown: the encryption key that it is kept under is not configured. Add it to KEYGATE_PREVIOUS_ENCRYPTION_KEYS, or rotate the key. The secret itself works on.',
  damaged: 'This secret cannot be shown: what is kept of it is damaged. Rotate the key to get a new one. The secret itself works on.'
}

/** The key's row is held, and its project: neither revoked nor rotated nor deleted between the check and the commit. */
async function hold (tx: Executor, { projectId, keyId }: KeyAddress): Promise<KeyAddress & { ciphertext: string | null }> {
  if (await holdProject(tx, projectId) === undefined) throw keyNotFound()
  const [key] = await tx.select({ projectId: keys.projectId, keyId: keys.id, status: keys.status }).from(keys)
    .where(and(eq(keys.projectId, projectId), eq(keys.id, keyId), ne(keys.status, 'deleted'))).for('share')
  if (key === undefined) throw keyNotFound()
  if (transition(key.status as KeyStatus, 'reveal') === 'refused') throw conflict('key_revoked', 'This key is revoked, which is final. Its secret opens nothing any more.')
  const [secret] = await tx.select({ ciphertext: secrets.ciphertext }).from(secrets)
    .where(and(eq(secrets.projectId, key.projectId), eq(secrets.keyId, key.keyId), eq(secrets.state, 'current')))
  return { projectId: key.projectId, keyId: key.keyId, ciphertext: secret?.ciphertext ?? null }
}

/** A reason that nobody can read later is none. */
function faultOfReason (reason: string): string | undefined {
  return [...reason.trim()].length < 3 ? 'must have 3 to 200 characters, not counting spaces around it' : faultOfText(reason)
}
