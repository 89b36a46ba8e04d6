import { createHash } from 'node:crypto'

/** A strong entity tag: other bytes have another one (RFC 9110 section 8.8.3). */
export function etagOf (body: string): string {
  return `"${createHash('sha256').update(body).digest('base64url')}"`
}

/** Whether `If-None-Match` names the tag, so that the client holds this already (RFC 9110 section 13.1.2; compared weakly). */
export function isHeld (etag: string, ifNoneMatch: string | undefined): boolean {
  if (ifNoneMatch === undefined) return false
  return ifNoneMatch.trim() === '*' || (ifNoneMatch.match(/(?:W\/)?"[^"]*"/g) ?? []).some(held => held.replace(/^W\//, '') === etag)
}
