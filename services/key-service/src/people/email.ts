/** No spaces, control or invisible characters, one @ with something on either side: more than that only a message could tell. */
const shape = /^[^\s@\p{Cc}\p{Cf}\p{Cs}]+@[^\s@\p{Cc}\p{Cf}\p{Cs}]+$/u

/** The longest address that SMTP can carry (RFC 5321, errata 1690). */
const maximum = 254

/**
 * An e-mail address as it is stored and compared. Upper and lower case are the same person: nobody knows how they wrote it last year.
 * Composed after that, for some letters have a composed form in lower case alone: what comes out is what comes out of itself.
 */
export function canonicalEmail (text: string): string {
  return text.trim().toLowerCase().normalize('NFC')
}

export function parseEmail (text: string): { email: string } | { fault: string } {
  const email = canonicalEmail(text)
  if (email.length > maximum) return { fault: `must have at most ${maximum} characters` }
  return shape.test(email) ? { email } : { fault: 'must be an e-mail address such as ada@example.org' }
}
