import { createHmac, hash } from 'node:crypto'

// 32 bytes are 42 full characters and one that carries only four bits: the list of those keeps the text unique.
const digestShape = /^[0-9A-Za-z_-]{42}[AEIMQUYcgkosw048]$/

/**
 * SHA-256 of a secret as 43 characters of base64url: all that ever crosses the wire of it.
 *
 * Plain SHA-256 suffices because the secret is random: there is no dictionary to slow down (unlike for passwords).
 */
export function digestSecret (secret: string): string {
  return hash('sha256', secret, 'base64url')
}

/** True for text that `digestSecret` can have made: 43 characters of base64url in the one canonical spelling. */
export function isDigest (text: string): boolean {
  return digestShape.test(text)
}

/**
 * What is stored and looked up: HMAC-SHA256 with the pepper over the 32 bytes of the digest, as 43 characters of base64url.
 *
 * Whoever reads the database alone can neither test guesses nor tell which imported secret a row is.
 *
 * @param pepper the installation's secret for this; a string counts as its UTF-8 bytes.
 * @throws RangeError for an empty pepper or for text that is no digest: an unkeyed or constant result would match anything.
 */
export function lookupDigest (pepper: string | Buffer, digest: string): string {
  if (pepper.length === 0) throw new RangeError('The pepper is empty: set one before secrets are stored.')
  if (!isDigest(digest)) throw new RangeError('Not a digest: 43 characters of base64url are wanted, as digestSecret makes them.')
  return createHmac('sha256', pepper).update(digest, 'base64url').digest('base64url')
}
