import { crc32 } from 'node:zlib'
import { toBase62 } from './base62.ts'

/** 62^22 > 2^131: more than a UUID's 122 random bits. */
export const bodyLength = 22
/** 62^6 > 2^32, the least width that holds every CRC32. */
export const checksumLength = 6

const tailLength = bodyLength + 1 + checksumLength
const tail = new RegExp(`^[0-9A-Za-z]{${bodyLength}}_[0-9A-Za-z]{${checksumLength}}$`)

/**
 * What a presented text turned out to be, from its characters alone.
 *
 * - `issued`: our prefix, our format, a true checksum. It may still be unknown or revoked: only a look-up tells.
 * - `malformed`: begins with our prefix but was never issued by anybody; refuse it without I/O.
 * - `foreign`: not ours; it may be an imported secret (see `matchesImportForm`), otherwise refuse it without I/O.
 */
export type ParsedSecret =
  | { kind: 'issued' }
  | { kind: 'malformed', reason: 'length' | 'shape' | 'checksum' }
  | { kind: 'foreign' }

/**
 * True for 2 to 16 lower case letters and digits that begin with a letter.
 *
 * No underscore, so that where the prefix ends is never in doubt; not `key`, so that no secret looks like a key's id.
 */
export function isValidPrefix (prefix: string): boolean {
  return /^[a-z][a-z0-9]{1,15}$/.test(prefix) && prefix !== 'key'
}

/**
 * Judges a presented secret by its characters, without I/O.
 *
 * @param text what the caller presented, of any length and content.
 * @param prefix the installation's prefix, e.g. `kg`.
 */
export function parseSecret (text: string, prefix: string): ParsedSecret {
  if (!text.startsWith(`${prefix}_`)) return { kind: 'foreign' }
  // The length goes first: a megabyte of header costs nothing more than this comparison.
  if (text.length !== prefix.length + 1 + tailLength) return { kind: 'malformed', reason: 'length' }
  if (!tail.test(text.slice(prefix.length + 1))) return { kind: 'malformed', reason: 'shape' }
  if (checksumOf(text.slice(0, -checksumLength)) !== text.slice(-checksumLength)) return { kind: 'malformed', reason: 'checksum' }
  return { kind: 'issued' }
}

/**
 * What lists may show of a secret: the prefix, if the secret has it, and the last four characters: `kg_…a1Z9`.
 *
 * Of an issued secret these are checksum characters. They narrow 131 random bits by at most 24.
 */
export function hintOf (secret: string, prefix: string): string {
  const head = secret.startsWith(`${prefix}_`) ? `${prefix}_` : ''
  return `${head}…${secret.slice(-4)}`
}

/**
 * The published pattern for secret scanners: finds every issued secret inside other text.
 *
 * No `\b` at its front, on purpose: a secret after an escaped line break (`\nkg_...` in JSON) must be found too.
 * It uses only what RE2 also knows, because most scanners run on it. Text in the alphabet of base64url hits it by
 * accident, though rarely; the checksum, by `parseSecret`, tells those apart.
 *
 * @throws RangeError for a prefix that `isValidPrefix` refuses.
 */
export function secretPattern (prefix: string): RegExp {
  requirePrefix(prefix)
  return new RegExp(`${prefix}_[0-9A-Za-z]{${bodyLength}}_[0-9A-Za-z]{${checksumLength}}\\b`)
}

/** The six characters that end a secret: CRC32 (as in zlib) of everything before them, in base 62. */
export function checksumOf (head: string): string {
  return toBase62(crc32(head), checksumLength)
}

/** A wrong prefix is the installation's fault, never the caller's: it must not get as far as a secret. */
export function requirePrefix (prefix: string): void {
  if (isValidPrefix(prefix)) return
  throw new RangeError(`The key prefix "${prefix}" cannot be used: take 2 to 16 lower case letters or digits, a letter first, and not "key".`)
}
