import { isIP } from 'node:net'
import { hostname } from 'node:os'
import type { RequestEnd } from '@keygate/service-kit'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { canonicalAddress } from '../admission/address.ts'
import type { Booking } from '../usage/booking.ts'
import { clientNames } from '../usage/client-name.ts'
import type { UsageRecorder } from '../usage/recorder.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** What is written down about it when it has ended; null: its key is not known, so nothing is. */
    booking: Booking | null
    /** How it ended, if it did before it had a booking: its client did not wait for the decision. */
    earlyEnd: RequestEnd | null
    /** Bytes of the answer's body so far. */
    bodyBytes: number
  }
  interface FastifyInstance {
    /** What is to be written down about a request; once for each, and at once if it has ended already. `null`: nothing is. */
    book: (request: FastifyRequest, booking: Booking | null) => void
  }
}

export interface UsageOptions {
  /** Null: nothing is recorded. */
  recorder: UsageRecorder | null
  /** How an address is written down; null: as it is. */
  hashAddress: ((address: string) => string) | null
  /** Whether a text may have a secret in it. */
  hasSecret: (text: string) => boolean
}

/** Step 7: one record for each finished request of a key, off the request's way. */
export const usage = fp<UsageOptions>(async (app, { recorder, hashAddress, hasSecret }) => {
  app.decorateRequest('booking', null)
  app.decorateRequest('earlyEnd', null)
  app.decorateRequest('bodyBytes', 0)
  if (recorder === null) {
    app.decorate('book', () => {})
    return
  }

  const clientNameOf = clientNames(hasSecret)
  const addressOf = addressTexts(hashAddress)
  const write = (request: FastifyRequest, booking: Booking, { status, seconds }: RequestEnd): void => {
    recorder.ended(booking, () => ({
      status,
      ms: Math.round(seconds * 1000),
      bytes: request.bodyBytes,
      requestId: request.id,
      address: addressOf(request.ip),
      client: clientNameOf(request.headers['user-agent'])
    }))
  }
  app.decorate('book', (request: FastifyRequest, booking: Booking | null) => {
    if (request.earlyEnd === null) request.booking = booking
    else if (booking !== null) write(request, booking, request.earlyEnd)
  })
  app.onRequestEnd((request, end) => {
    // Undefined: the router took the target for none at all, and answered with a request that nobody has decorated.
    const booking = request.booking as Booking | null | undefined
    if (booking === null || booking === undefined) request.earlyEnd = end
    else write(request, booking, end)
  })
  app.addHook('onListen', async () => {
    const address = app.server.address()
    recorder.start(`${hostname()}${address === null || typeof address === 'string' ? '' : `:${address.port}`}`)
  })
}, { name: 'usage' })

/** Addresses whose text is remembered: few send most requests, and a hash costs more than all else that is done for one. */
const remembered = 1000

function addressTexts (hashAddress: UsageOptions['hashAddress']): (ip: string | undefined) => string {
  const known = new Map<string, string>()
  return ip => {
    if (ip === undefined) return 'unknown' // of a connection that is gone
    let text = known.get(ip)
    if (text !== undefined) return text
    text = addressText(ip, hashAddress)
    if (known.size >= remembered) known.clear()
    known.set(ip, text)
    return text
  }
}

/** What is no address (a proxy may write `unknown`) is text that a client could choose. */
function addressText (ip: string, hashAddress: UsageOptions['hashAddress']): string {
  const address = canonicalAddress(ip)
  if (isIP(address) === 0) return 'unknown'
  return hashAddress === null ? address : hashAddress(address)
}
