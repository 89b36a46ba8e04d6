import rateLimit from '@fastify/rate-limit'
import { createFastifyStore, draft7Headers, violatedPolicies, wholeSeconds, type Limiter } from '@keygate/rate-limit'
import { sendProblem } from '@keygate/service-kit'
import type { FastifyReply } from 'fastify'
import fp from 'fastify-plugin'
import type { Grounds } from '../admission/candidate.ts'
import { challengeOf } from '../admission/challenges.ts'
import { corsHeaders } from '../admission/cors.ts'
import { countedAddress } from '../admission/limits.ts'
import { LookUpQueues } from '../admission/look-up-queues.ts'
import { retirementHeaders } from '../admission/retirement-headers.ts'
import { refusals as table, type RefusalCode } from '../errors.ts'
import type { Metrics } from '../metrics.ts'

declare module 'fastify' {
  interface FastifyReply {
    /** Answers a refusal, with what may be told of the grounds that it rests on. */
    refuse: (code: RefusalCode, grounds?: Grounds) => Promise<FastifyReply>
  }
  interface FastifyInstance {
    /** Addresses past their budget of refusals, whose look-ups come one after the other. */
    lookUpQueues: LookUpQueues
  }
}

export interface RefusalOptions { limiter: Limiter, metrics: Metrics, limit: number, realm: string }

/** What guessing and scanning look like: only these are counted against an address, never against a key. */
const countedStatuses: number[] = [401, 403, 404]

/**
 * Answers refusals, and counts them per address (an IPv6 address by its /64, which one customer commonly holds).
 * Past the budget a refusal answers 429 with `Retry-After` alone: the pair would claim something about a key.
 */
export const refusals = fp<RefusalOptions>(async (app, { limiter, metrics, limit, realm }) => {
  await app.register(rateLimit, {
    global: false,
    max: limit,
    timeWindow: 60_000,
    keyGenerator: ({ ip }) => countedAddress(ip),
    store: createFastifyStore({ decide: async request => await limiter.decideAnyway(request) }, 'refusals')
  })
  const countRefusal = app.createRateLimit()
  const queues = new LookUpQueues()
  app.decorate('lookUpQueues', queues)

  app.decorateReply('refuse', async function (this: FastifyReply, code: RefusalCode, { record, decision, alone, carriers }: Grounds = {}): Promise<FastifyReply> {
    const { request } = this
    const { status, detail } = table[code]
    if (request.match !== null) this.headers(corsHeaders(request.match.target.api.cors, request.headers.origin))
    if (countedStatuses.includes(status)) {
      const count = await countRefusal(request)
      if (!count.isAllowed && count.isExceeded) {
        metrics.refusals.inc({ code: 'too_many_refusals' })
        queues.suspect(countedAddress(request.ip), count.ttl)
        return await sendProblem(request, this.header('retry-after', wholeSeconds(count.ttl)), { code: 'too_many_refusals', ...table.too_many_refusals })
      }
    }
    metrics.refusals.inc({ code })
    if (status === 401) this.header('www-authenticate', challengeOf(code, request.match?.target ?? null, realm, carriers))
    else {
      if (decision !== undefined) this.headers(draft7Headers(decision))
      if (record !== undefined) this.headers(retirementHeaders(record))
    }
    if (status === 503) this.header('retry-after', '1')
    if (alone !== undefined && alone.retryAfterMs > 0) this.header('retry-after', wholeSeconds(alone.retryAfterMs))
    const violated = code === 'limited'
      ? { type: 'https://iana.org/assignments/http-problem-types#quota-exceeded', 'violated-policies': alone?.violated ?? (decision === undefined ? [] : violatedPolicies(decision)) }
      : {}
    return await sendProblem(request, this, { code, status, detail, ...violated })
  })
}, { name: 'refusals' })
