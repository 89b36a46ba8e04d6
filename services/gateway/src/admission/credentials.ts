import type { Carrier } from '@keygate/api-catalog'
import { matchesImportForm, parseSecret, type ImportForm } from '@keygate/api-key'

/** What a request presents: the secret, how it was carried, and for Basic the project it claims to be of. */
export interface Credentials {
  carrier: Carrier
  secret: string
  /** Basic's username: a project id in lower case. */
  projectId: string | null
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** A project id as it is compared: UUIDs are equal in either case (RFC 9562 section 4). `null`: not a UUID. */
export function canonicalProjectId (text: string): string | null {
  return uuid.test(text) ? text.toLowerCase() : null
}

export type Carried = { kind: 'none' } | { kind: 'ambiguous' } | { kind: 'basic', authorization: string } | { kind: 'header', name: string, secret: string }

/**
 * Finds which carrier of OUR keys a request uses, from its raw headers: Node keeps only the first of two Authorization lines
 * and joins others, so doubled credentials show only there. Another scheme's Authorization beside a header key is not ours.
 */
export function findCarrier (rawHeaders: string[], carriers: Carrier[]): Carried {
  const names = new Set(carriers.flatMap(carrier => carrier.kind === 'header' ? [carrier.name] : []))
  const ours: Carried[] = []
  let authorizations = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] ?? '').toLowerCase()
    const value = rawHeaders[i + 1] ?? ''
    if (name === 'authorization') {
      authorizations++
      if (isBasic(value)) ours.push({ kind: 'basic', authorization: value })
    } else if (names.has(name)) ours.push({ kind: 'header', name, secret: value })
  }
  if (ours.length > 1 || authorizations > 1) return { kind: 'ambiguous' }
  return ours[0] ?? { kind: 'none' }
}

/** RFC 9110 section 11.1: a scheme is compared without regard to case. */
export function isBasic (authorization: string): boolean {
  return /^basic(?:[ \t]|$)/i.test(authorization)
}

/** RFC 6750 section 2.1. */
export function isBearer (authorization = ''): boolean {
  return /^bearer +\S/i.test(authorization)
}

/** RFC 9110 section 11.4: one or more spaces follow the scheme; @fastify/basic-auth takes exactly one. */
export function collapseSpaces (authorization: string): string {
  return authorization.replace(/^(basic) +/i, '$1 ')
}

/** True when a secret may be somebody's by its characters alone; any other is refused without I/O. */
export function mayBeSecret (text: string, { prefix, importForms }: { prefix: string, importForms: readonly ImportForm[] }): boolean {
  const { kind } = parseSecret(text, prefix)
  return kind === 'issued' || (kind === 'foreign' && matchesImportForm(text, importForms))
}
