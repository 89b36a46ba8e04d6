/**
 * A password as it is digested: RFC 8265's OpaqueString, which keeps upper and lower case and every character, but makes the
 * spellings of one text equal that keyboards and systems differ in (NFC, one kind of space). Without it a password typed on another
 * machine could be another one (NIST SP 800-63B, 5.1.1.2).
 */
export function canonicalPassword (text: string): string {
  return text.replace(/\p{Zs}/gu, ' ').normalize('NFC')
}

/**
 * What is wrong with a new password, if anything. Only its length is asked for: rules of composition make passwords that people
 * write down, and stronger ones no likelier (NIST SP 800-63B). A character is a code point.
 */
export function faultOfPassword (text: string): string | undefined {
  const password = canonicalPassword(text)
  const length = [...password].length
  if (length < 12 || length > 200) return 'must have 12 to 200 characters'
  return /[\p{Cc}\p{Cs}]/u.test(password) ? 'must not contain control characters' : undefined
}
