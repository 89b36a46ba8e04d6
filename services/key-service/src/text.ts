/** Control characters, and halves of surrogate pairs, which are no characters at all. */
const unprintable = /[\p{Cc}\p{Cs}]/u
/** What breaks a line without being a control character, and what turns the direction of the text around it. */
const misleading = /[\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/u
const visible = /[^\p{Cf}\p{Z}\p{M}]/u
const lineBreakOrTab = /[\t\n\r]/g

/** Names as people give them: 1 to 100 characters after trimming, on one line. */
export function parseName (text: string): { name: string } | { fault: string } {
  const name = text.trim()
  const length = [...name].length
  if (length < 1 || length > 100) return { fault: 'must have 1 to 100 characters, not counting spaces around it' }
  if (unprintable.test(name)) return { fault: 'must not contain control characters' }
  if (misleading.test(name)) return { fault: 'must not contain line separators or marks that turn the direction of text' }
  if (!visible.test(name)) return { fault: 'must contain something that can be seen' }
  return { name }
}

/** What is wrong with a longer text, if anything: at most 400 characters; line breaks and tabs are fine. */
export function faultOfText (text: string): string | undefined {
  if ([...text].length > 400) return 'must have at most 400 characters'
  return unprintable.test(text.replace(lineBreakOrTab, '')) ? 'must not contain control characters' : undefined
}

/** Text to look for; PostgreSQL can store no NUL, so nothing contains one. */
export function isSearchable (text: string): boolean {
  return !unprintable.test(text)
}
