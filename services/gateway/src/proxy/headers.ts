import type { IncomingMessage } from 'node:http'
import type { Carrier } from '@keygate/api-catalog'
import type { KeyRecord } from '@keygate/contracts'
import { isBasic } from '../admission/credentials.ts'
import { retirementFields } from '../admission/retirement-headers.ts'

/** Fields of one connection, not of the message (RFC 9110 section 7.6.1), and what only undici may write. */
const hopByHop = new Set(['connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'http2-settings', 'expect', 'host'])

/** What an upstream may believe because only the gateway writes it: a client's own are dropped. */
const identity = /^(?:x-keygate-|x-forwarded-|x-consumer-|x-credential-|x-user-)|^(?:forwarded|x-real-ip|x-request-id|via)$/

export interface Identity {
  carriers: Carrier[]
  address: string
  protocol: string
  requestId: string
  principal: KeyRecord | null
}

/**
 * The headers for the upstream as raw pairs: the client's, without our credentials, hop-by-hop fields, spoofed identity and
 * names with `_` (which CGI-like servers read as `-`); then who the gateway says it is.
 */
export function forwardedHeaders (request: Pick<IncomingMessage, 'rawHeaders' | 'headers'>, from: Identity): string[] {
  const named = new Set((request.headers.connection ?? '').toLowerCase().split(',').map(name => name.trim()))
  const ours = new Set(from.carriers.flatMap(carrier => carrier.kind === 'header' ? [carrier.name] : []))
  const basicIsOurs = from.carriers.some(carrier => carrier.kind === 'basic')
  const headers: string[] = []
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    const name = (request.rawHeaders[i] ?? '').toLowerCase()
    const value = request.rawHeaders[i + 1] ?? ''
    if (hopByHop.has(name) || named.has(name) || ours.has(name) || name.includes('_') || identity.test(name)) continue
    if (name === 'authorization' && basicIsOurs && isBasic(value)) continue
    headers.push(name, value)
  }
  headers.push('x-forwarded-for', from.address, 'x-forwarded-proto', from.protocol, 'x-request-id', from.requestId)
  if (request.headers.host !== undefined) headers.push('x-forwarded-host', request.headers.host)
  if (from.principal !== null) {
    const { projectId, keyId, scopes, allowedForAll } = from.principal
    headers.push('x-keygate-project', projectId, 'x-keygate-key', keyId, 'x-keygate-scopes', scopesHeader(scopes, allowedForAll))
  }
  return headers
}

/** `*` stands for every scope that is not opt-in; names are escaped, since a scope is any text. */
function scopesHeader (scopes: string[], allowedForAll: boolean): string {
  return [...(allowedForAll ? ['*'] : []), ...scopes.map(encodeURIComponent)].join(' ')
}

/** What the gateway says itself: the upstream's own would be a second, different claim. */
const gatewayOwn = /^(?:x-)?ratelimit(?:-|$)|^x-request-id$/

/**
 * The upstream's headers for the client: without hop-by-hop fields and without a second RateLimit pair. Where the gateway tells the
 * end of the caller's secret, it does so alone: two dates of two things would read as one claim.
 */
export function returnedHeaders (raw: (Buffer | string)[], principal: KeyRecord | null): Map<string, string | string[]> {
  const headers = new Map<string, string | string[]>()
  const pairs: [string, string][] = []
  for (let i = 0; i < raw.length; i += 2) pairs.push([text(raw[i]).toLowerCase(), text(raw[i + 1])])
  const named = new Set(pairs.filter(([name]) => name === 'connection').flatMap(([, value]) => value.toLowerCase().split(',').map(n => n.trim())))
  for (const [name, value] of pairs) {
    if (hopByHop.has(name) || named.has(name) || gatewayOwn.test(name)) continue
    if (principal?.secretState === 'retiring' && retirementFields.includes(name)) continue
    const before = headers.get(name)
    headers.set(name, before === undefined ? value : [before, value].flat())
  }
  return headers
}

function text (value: Buffer | string | undefined): string {
  return typeof value === 'string' ? value : value?.toString('latin1') ?? ''
}
