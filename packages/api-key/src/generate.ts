import { randomInt } from 'node:crypto'
import { alphabet } from './base62.ts'
import { bodyLength, checksumOf, requirePrefix } from './format.ts'

/**
 * Makes a new secret: `<prefix>_` + 22 random base62 characters (131 bits) + `_` + 6 checksum characters.
 *
 * @throws RangeError for a prefix that `isValidPrefix` refuses.
 */
export function generateSecret (prefix = 'kg'): string {
  requirePrefix(prefix)
  const head = `${prefix}_${randomCharacters()}_`
  return head + checksumOf(head)
}

/** Makes an id such as `key_9fK2...`: the kind, then 22 random base62 characters. An id is public; it opens nothing. */
export function generateId (kind: string): string {
  return `${kind}_${randomCharacters()}`
}

function randomCharacters (): string {
  let text = ''
  // randomInt draws again instead of taking a remainder; `byte % 62` would prefer the first eight characters.
  for (let i = 0; i < bodyLength; i++) text += alphabet.charAt(randomInt(alphabet.length))
  return text
}
