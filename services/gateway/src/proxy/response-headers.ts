import type { KeyRecord } from '@keygate/contracts'
import { retirementFields } from '../admission/retirement-headers.ts'
import { hopByHop, namedByConnection } from './hop-by-hop.ts'

/** What the gateway says itself: the upstream's own would be a second, different claim (R18). */
const gatewayOwn = /^(?:x-)?ratelimit(?:-|$)|^x-request-id$/

export interface Receiver {
  principal: KeyRecord | null
  /** The gateway answers for CORS itself, so the upstream's own fields of it are dropped. */
  ownsCors: boolean
  statusCode?: number
}

/** An upstream's fields as they go to the client, and what of them decides about more. */
export interface Returned {
  /** Raw pairs, in the upstream's order. */
  pairs: string[]
  /** The upstream lets another origin's page read this answer. */
  isCrossOrigin: boolean
  isEventStream: boolean
}

/**
 * The upstream's headers for the client: without hop-by-hop fields and without a second RateLimit pair. Where the gateway tells the
 * end of the caller's secret, it does so alone: two dates of two things would read as one claim.
 */
export function returnedHeaders (raw: readonly (Buffer | string)[], { principal, ownsCors, statusCode }: Receiver): Returned {
  const tellsEnd = principal?.secretState === 'retiring'
  const returned: Returned = { pairs: [], isCrossOrigin: false, isEventStream: false }
  let connection: string | undefined
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i]?.length !== 10 || textOf(raw[i]).toLowerCase() !== 'connection') continue
    connection = connection === undefined ? textOf(raw[i + 1]) : `${connection},${textOf(raw[i + 1])}`
  }
  const named = namedByConnection(connection)
  for (let i = 0; i < raw.length; i += 2) {
    const written = textOf(raw[i])
    const name = written.toLowerCase()
    if (isOfThisHop(name) || named?.has(name) === true) continue
    if (tellsEnd && retirementFields.includes(name)) continue
    if (ownsCors && name.startsWith('access-control-')) continue
    if (statusCode === 204 && name === 'content-length') continue // RFC 9110 section 8.6
    const value = textOf(raw[i + 1])
    if (name === 'access-control-allow-origin') returned.isCrossOrigin = true
    else if (name === 'content-type') returned.isEventStream = /^text\/event-stream\s*(?:;|$)/i.test(value)
    returned.pairs.push(written, value)
  }
  return returned
}

/** Most names that are remembered: there are few upstreams, but they may be broken. */
const knownNamesAtMost = 1000
const knownNames = new Map<string, boolean>()

function isOfThisHop (name: string): boolean {
  const known = knownNames.get(name)
  if (known !== undefined) return known
  const stays = hopByHop.has(name) || gatewayOwn.test(name)
  if (knownNames.size < knownNamesAtMost) knownNames.set(name, stays)
  return stays
}

/** Field values are bytes; each is one character, so that none is changed on the way (RFC 9110 section 5.5). */
function textOf (value: Buffer | string | undefined): string {
  return typeof value === 'string' ? value : value?.toString('latin1') ?? ''
}
