/** Digits, then upper case, then lower case: the order of ASCII, so sorting by text sorts by value. */
export const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/**
 * Writes a whole number in base 62, padded with `0` to exactly `width` characters.
 *
 * @throws RangeError when the number does not fit: a silently wider text would break the fixed format.
 */
export function toBase62 (value: number, width: number): string {
  let text = ''
  let rest = value
  while (rest > 0) {
    text = alphabet.charAt(rest % alphabet.length) + text
    rest = Math.floor(rest / alphabet.length)
  }
  if (text.length > width) throw new RangeError(`${value} does not fit in ${width} base62 characters`)
  return text.padStart(width, '0')
}
