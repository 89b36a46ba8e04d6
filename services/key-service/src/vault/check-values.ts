import { hkdfSync } from 'node:crypto'
import type { Named } from './keyring.ts'

/** What stands in the database so that another value under the id of a pepper or an encryption key is noticed. */
export interface KeyCheck { kind: 'pepper' | 'encryption-key', id: string, value: string }

/**
 * HKDF-SHA256 (RFC 5869) over the pepper or the key, as 43 characters of base64url: always the same, so that two processes can compare it.
 *
 * It leads back to neither. For an encryption key only its 32 random bytes could be guessed. Of a pepper the settings enforce 32 characters,
 * not that they are random: guesses of one that somebody thought up can be tested with this value by whoever reads the database. That is no
 * more than any user can do who holds one secret beside it, and the 256 bits that `openssl rand -base64 32` prints are not guessed.
 *
 * Nor can it be taken for a digest of a secret or help to make one: there the pepper is the key of an HMAC over 32 bytes, here it is what is
 * extracted from. The info keeps kinds and ids apart, so that nobody sees that two ids have one value.
 */
export function checkOf (kind: KeyCheck['kind'], { id, value }: Named<string | Buffer>): KeyCheck {
  const derived = hkdfSync('sha256', value, '', JSON.stringify(['keygate key check v1', kind, id]), 32)
  return { kind, id, value: Buffer.from(derived).toString('base64url') }
}
