/** The quoted form of the draft (a String of RFC 9651, section 3.3.3): only `"` and `\` are escaped. */
const quoted = /^"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"$/
const visible = /^[\x21-\x7e]{1,255}$/

/**
 * Reads an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): the draft quotes it, most clients do not, and both forms
 * of one text are the same key.
 */
export function parseIdempotencyKey (header: string): { key: string } | { fault: string } {
  const isQuoted = header.startsWith('"')
  const key = isQuoted && quoted.test(header) ? header.slice(1, -1).replace(/\\(["\\])/g, '$1') : header
  if ((isQuoted && key === header) || !visible.test(key)) {
    return { fault: 'must be sent once, with 1 to 255 visible ASCII characters and no space, bare or in double quotes' }
  }
  return { key }
}
