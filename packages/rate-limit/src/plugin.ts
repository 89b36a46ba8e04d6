import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { StoreUnavailableError } from './connection.ts'
import { violatedPolicies, type Decision } from './decision.ts'
import { draft7Headers, wholeSeconds } from './headers.ts'
import type { Limiter, LocalOutcome } from './limiter.ts'
import { hashAddress, logKey } from './names.ts'
import type { Policy } from './policy.ts'
import type { DecideOutcome, LimitedBy } from './store.ts'

export interface SharedLimitOptions {
  limiter: Limiter
  /** Keeps the counts of different registrations apart. */
  name: string
  /** All of them hold for each request, all or nothing. */
  policies: Policy[]
  /** Who is counted: a user's id, an address. Only a hash of it stands in Redis. */
  subject: (request: FastifyRequest) => string
}

/**
 * The shared window for any Fastify app, without another plugin: an `onRequest` hook that sets the draft-7 fields and answers 429.
 *
 * Register it where the subject is known already; routes outside that scope are not limited. While Redis is away each process
 * counts its share and no RateLimit field is sent (`whenStoreIsDown` of each policy).
 */
export const sharedLimit = fp<SharedLimitOptions>(async (app: FastifyInstance, { limiter, name, policies, subject }) => {
  app.addHook('onRequest', async (request, reply) => {
    const addressHash = hashAddress(subject(request))
    const limits = policies.map((policy): LimitedBy => ({ policy, log: logKey(`s:${addressHash}`, { kind: 'api', api: name }, { kind: 'address', addressHash }, policy) }))
    const outcome = await decide(limiter, limits)
    if ('nowMs' in outcome && (outcome.outcome === 'admitted' || outcome.outcome === 'limited')) reply.headers(draft7Headers(outcome))
    if (outcome.outcome === 'limited') return await refuse(reply, outcome)
    if (outcome.outcome === 'closed') {
      return await reply.header('retry-after', '1').code(503).type('application/problem+json').send(Buffer.from(JSON.stringify({
        type: 'https://iana.org/assignments/http-problem-types#temporary-reduced-capacity', title: 'Service Unavailable', status: 503
      })))
    }
  })
}, { name: '@keygate/rate-limit' })

async function decide (limiter: Limiter, limits: LimitedBy[]): Promise<DecideOutcome | LocalOutcome> {
  try {
    return await limiter.decide({ cost: 1, limits })
  } catch (error) {
    if (!(error instanceof StoreUnavailableError)) throw error
    return limiter.decideAlone({ cost: 1, limits })
  }
}

/** RFC 9457, with the type and member that draft-ietf-httpapi-ratelimit-headers registers. As bytes: Fastify adds a charset to JSON text. */
async function refuse (reply: FastifyReply, outcome: Decision | LocalOutcome & { outcome: 'limited' }): Promise<FastifyReply> {
  const isAlone = 'violated' in outcome
  if (isAlone && outcome.retryAfterMs > 0) reply.header('retry-after', wholeSeconds(outcome.retryAfterMs))
  return await reply.code(429).type('application/problem+json').send(Buffer.from(JSON.stringify({
    type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
    title: 'Too Many Requests',
    status: 429,
    'violated-policies': isAlone ? outcome.violated : violatedPolicies(outcome)
  })))
}
