import rateLimit from '@fastify/rate-limit'
import { Limiter, MemoryStore, RedisStore, StoreUnavailableError, combine, createFastifyStore, draft7Headers, wholeSeconds, type LocalOutcome, type Policy, type RedisConnection } from '@keygate/rate-limit'
import { ProblemError } from '@keygate/service-kit'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Counts what only gateways may ask of somebody who may not: to be called before the refusal.
     *
     * @throws {ProblemError} 429: there were too many requests from this address.
     */
    countRefused: (request: FastifyRequest) => Promise<void>
  }
}

/** `limit` requests per address and minute. Every scope of an app shares one limiter. */
export interface AddressLimitOptions { limiter: Limiter, limit: number }

const windowSeconds = 60

/** How many replicas of this service there are is not known here: alone, each takes the whole limit for its share. */
export function createRequestsLimiter (redis: RedisConnection): Limiter {
  return new Limiter({ store: new RedisStore(redis), memory: new MemoryStore(), replicas: () => 1 })
}

/** Redis did not answer, and this process has counted alone. Thrown through @fastify/rate-limit, which hands on two numbers only. */
class CountedAlone extends Error {
  readonly outcome: LocalOutcome
  constructor (outcome: LocalOutcome, options: ErrorOptions) {
    super('counted without Redis', options)
    this.outcome = outcome
  }
}

/**
 * Counts requests per address (an IPv6 address by its /64) in the window that all replicas share, before anything is looked up for
 * them: guessing tokens ends here. What only gateways may ask (`keys:verify`) is counted when it is known that nobody may who asks:
 * a gateway is never held up by what else comes from its address.
 *
 * Without Redis each process counts alone, and no RateLimit field claims a shared count.
 */
export const addressLimit = fp<AddressLimitOptions>(async (app, { limiter, limit }) => {
  const policy: Policy = { name: 'requests', limit, windowSeconds, algorithm: 'sliding', partition: 'address' }
  await app.register(rateLimit, {
    global: false,
    max: limit,
    timeWindow: windowSeconds * 1000,
    store: createFastifyStore({
      decide: async request => await limiter.decide(request).catch((error: Error) => {
        if (!(error instanceof StoreUnavailableError)) throw error
        throw new CountedAlone(limiter.decideAlone(request), { cause: error })
      })
    }, policy.name)
  })
  const countShared = app.createRateLimit()

  async function count (request: FastifyRequest): Promise<{ headers: Record<string, string>, isAdmitted: boolean }> {
    try {
      const counted = await countShared(request)
      if (counted.isAllowed) return { headers: {}, isAdmitted: true }
      const { isExceeded, remaining, ttl } = counted
      const decision = { policy, remaining, resetMs: ttl, retryAfterMs: isExceeded ? ttl : 0 }
      return { headers: draft7Headers(combine(isExceeded ? 'limited' : 'admitted', Date.now(), [decision])), isAdmitted: !isExceeded }
    } catch (error) {
      if (!(error instanceof CountedAlone)) throw error
      const { outcome } = error
      return outcome.outcome === 'limited'
        ? { headers: { 'retry-after': String(wholeSeconds(outcome.retryAfterMs)) }, isAdmitted: false }
        : { headers: {}, isAdmitted: true }
    }
  }

  app.addHook('onRequest', async (request, reply) => {
    if (isOfGateways(request)) return
    const { headers, isAdmitted } = await count(request)
    reply.headers(headers)
    if (!isAdmitted) throw tooManyRequests()
  })

  app.decorate('countRefused', async request => {
    if (!isOfGateways(request)) return
    const { headers, isAdmitted } = await count(request)
    if (!isAdmitted) throw tooManyRequests(headers)
  })
}, { name: 'address-limit' })

function isOfGateways (request: FastifyRequest): boolean {
  return request.routeOptions.config.permission === 'keys:verify'
}

function tooManyRequests (headers: Record<string, string> = {}): ProblemError {
  return new ProblemError({
    status: 429,
    code: 'too_many_requests',
    detail: 'There were too many requests from this address in the last minute. Wait for as long as Retry-After says.',
    type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
    'violated-policies': ['requests']
  }, headers)
}
