import type { IncomingMessage } from 'node:http'
import type { KeyRecord } from '@keygate/contracts'
import { namedByConnection } from './hop-by-hop.ts'
import type { PassedFields } from './passed-fields.ts'
import { traceparentOf } from './trace-context.ts'

export interface Sender {
  /** Which of the client's fields go on. */
  fields: PassedFields
  /** Every Basic is meant for us, a key or not. Else one that is no key of ours is for the upstream. */
  ownsBasic: boolean
  address: string
  protocol: string
  requestId: string
  principal: KeyRecord | null
}

/**
 * The headers for the upstream as raw pairs: the client's, without credentials of ours, hop-by-hop fields, spoofed identity, and what would
 * make another request of it (`PassedFields`); then who the gateway says it is.
 */
export function forwardedHeaders ({ rawHeaders, headers }: Pick<IncomingMessage, 'rawHeaders' | 'headers'>, from: Sender): string[] {
  const { fields, ownsBasic, address, protocol, requestId, principal } = from
  const named = namedByConnection(headers.connection)
  const forwarded: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const field = fields.field(rawHeaders[i] as string)
    if (field.kind === 'stays' || named?.has(field.name) === true) continue
    const value = rawHeaders[i + 1] as string
    if (fields.passes(field, value, ownsBasic)) forwarded.push(field.name, value)
  }
  forwarded.push('x-forwarded-for', address, 'x-forwarded-proto', protocol, 'x-request-id', requestId)
  if (headers.host !== undefined && fields.mayPass(headers.host)) forwarded.push('x-forwarded-host', headers.host)
  const { traceparent, continues } = traceparentOf(headers['traceparent'], requestId)
  forwarded.push('traceparent', traceparent)
  if (continues && headers['tracestate'] !== undefined) {
    const tracestate = String(headers['tracestate'])
    if (fields.mayPass(tracestate)) forwarded.push('tracestate', tracestate)
  }
  forwarded.push(...identityHeaders(principal))
  return forwarded
}

/** Who the request is from, as raw pairs; none of a request without a key. */
export function identityHeaders (principal: KeyRecord | null): string[] {
  if (principal === null) return []
  return ['x-keygate-project', principal.projectId, 'x-keygate-key', principal.keyId, 'x-keygate-scopes', scopesOf(principal)]
}

const scopesHeaders = new WeakMap<KeyRecord, string>()

/** `*` stands for every scope that is not opt-in; names are escaped, since a scope is any text. */
function scopesOf (principal: KeyRecord): string {
  let header = scopesHeaders.get(principal)
  if (header === undefined) {
    header = [...(principal.allowedForAll ? ['*'] : []), ...principal.scopes.map(encodeURIComponent)].join(' ')
    scopesHeaders.set(principal, header)
  }
  return header
}
