import type { Carrier } from '@keygate/api-catalog'

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
  if (text === lastRead) return lastCanonical
  lastRead = text
  lastCanonical = uuid.test(text) ? text.toLowerCase() : null
  return lastCanonical
}

/** A request commonly names its project twice: in its path and as Basic's username. */
let lastRead = ''
let lastCanonical: string | null = null

export type Carried = { kind: 'none' } | { kind: 'ambiguous' } | { kind: 'basic', authorization: string } | { kind: 'header', name: string, secret: string }

/**
 * Finds which carrier of OUR keys a request uses, from its raw headers: Node keeps only the first of two Authorization lines
 * and joins others, so doubled credentials show only there. Another scheme's Authorization beside a header key is not ours.
 */
export function findCarrier (rawHeaders: string[], carriers: Carrier[]): Carried {
  const { names, lengths } = headersOf(carriers)
  const ours: Carried[] = []
  let authorizations = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const written = rawHeaders[i] as string
    if (!lengths.has(written.length)) continue
    const name = written.toLowerCase()
    const value = rawHeaders[i + 1] as string
    if (name === 'authorization') {
      authorizations++
      if (isBasic(value)) ours.push({ kind: 'basic', authorization: value })
    } else if (names.has(name)) ours.push({ kind: 'header', name, secret: value })
  }
  if (ours.length > 1 || authorizations > 1) return { kind: 'ambiguous' }
  return ours[0] ?? { kind: 'none' }
}

interface CarrierHeaders { names: Set<string>, lengths: Set<number> }

const headersOfCarriers = new WeakMap<Carrier[], CarrierHeaders>()

/** The headers that carry keys, and how long their names are with Authorization's: few others are of such a length. Worked out once per API. */
function headersOf (carriers: Carrier[]): CarrierHeaders {
  const known = headersOfCarriers.get(carriers)
  if (known !== undefined) return known
  const names = new Set(carriers.flatMap(carrier => carrier.kind === 'header' ? [carrier.name] : []))
  const headers = { names, lengths: new Set(['authorization', ...names].map(name => name.length)) }
  headersOfCarriers.set(carriers, headers)
  return headers
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
  return authorization.charAt('basic '.length) === ' ' ? authorization.replace(/^(basic) +/i, '$1 ') : authorization
}

/**
 * One spelling for one user and password: whole groups of four characters of the plain alphabet, padding, and no stray bits (RFC 4648 sections
 * 3.2 to 3.5 and 4), where Node's decoder takes any. Bytes that are no UTF-8 (RFC 7617 section 2.1) decode to U+FFFD, which no secret has.
 * @param authorization with one space behind the scheme.
 */
export function isPlainBasic (authorization: string): boolean {
  return plainBase64.test(authorization.slice('basic '.length))
}

const plainBase64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$/

/** Names under which people put keys into a query, where they end in logs. */
const keyName = /^(?:x[-_]?)?(?:api|access)[-_]?key$/i

/** Whether a query has a parameter that is called like a key, or like a header that carries one here. */
export function namesKeyInQuery (url: string, carriers: Carrier[]): boolean {
  const query = url.indexOf('?')
  if (query === -1) return false
  const headers = carriers.flatMap(carrier => carrier.kind === 'header' ? [carrier.name] : [])
  return [...new URLSearchParams(url.slice(query + 1)).keys()].some(name => keyName.test(name) || headers.includes(name.toLowerCase()))
}
