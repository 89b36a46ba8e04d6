import { Type } from 'typebox'
import { invalidPrecondition, preconditionRequired, versionConflict } from './errors.ts'
import { patterned } from './schemas.ts'

/** Which versions a change may be made on: any that there is, or one whose ETag is among these. */
export type IfMatch = 'any' | readonly string[]

/** For the routes that take it. Never required here: the answer without it is 428, where one is needed. */
export const IfMatchHeaders = Type.Object({
  'if-match': Type.Optional(patterned('^[\\x20-\\x7e]*$', 'must have no characters but visible ASCII and spaces', { maxLength: 1000, description: 'the ETag of what was read: the change is made on that version or not at all; `*`: on any', examples: ['"3"'] }))
})
/** Also of a request to a route that does not declare them. */
interface Headers { 'if-match'?: string | undefined }

// RFC 9110 section 8.8.3. Our own tags hold digits alone; others are well-formed, and match nothing.
const list = /^\s*(?:W\/)?"[^"\s]*"(?:\s*,\s*(?:W\/)?"[^"\s]*")*\s*$/
const tags = /(?:W\/)?"[^"]*"/g

/**
 * The ETag of a key, a project or a role: its version, quoted.
 *
 * It names the settings. What the service notes beside them (`effective`, `lastUsedAt`, what was counted, what time alone decides) may differ under one
 * tag: it cannot be overwritten by anybody, so nobody needs to be kept from it.
 */
export function etagOf ({ version }: { version: number }): string {
  return `"${version}"`
}

/**
 * What `If-Match` says; undefined without one.
 *
 * @throws {ProblemError} 400 when it is neither `*` nor a list of ETags.
 */
export function ifMatch ({ headers }: { headers: Headers }): IfMatch | undefined {
  const text = headers['if-match']
  if (text === undefined) return undefined
  if (text.trim() === '*') return 'any'
  if (!list.test(text)) throw invalidPrecondition()
  return text.match(tags) ?? []
}

/**
 * For a change that would overwrite what its sender has never seen.
 *
 * @throws {ProblemError} 428 without `If-Match`.
 */
export function requireIfMatch (request: { headers: Headers }): IfMatch {
  const wanted = ifMatch(request)
  if (wanted === undefined) throw preconditionRequired()
  return wanted
}

/**
 * Call it on a row that the transaction has locked, before anything but its version was changed: only there does nobody come between.
 *
 * @param present the version before this change.
 * @throws {ProblemError} 412 with the present version. A weak tag (`W/`) never matches (RFC 9110 section 13.1.1).
 */
export function checkVersion (wanted: IfMatch | undefined, present: number): void {
  if (wanted === undefined || wanted === 'any' || wanted.includes(etagOf({ version: present }))) return
  throw versionConflict(etagOf({ version: present }))
}
