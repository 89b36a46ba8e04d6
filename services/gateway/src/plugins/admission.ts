import { normalizeIP } from '@fastify/rate-limit'
import type { KeyRecord } from '@keygate/contracts'
import { StoreUnavailableError, draft7Headers, hashAddress, limitsOfKey } from '@keygate/rate-limit'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { admit, type AdmitOptions } from '../admission/admit.ts'
import { authorize, canonicalAddress, type Attempt } from '../admission/authorize.ts'
import { limitsOfAddress } from '../admission/limits.ts'
import { canonicalProjectId, isBearer } from '../admission/credentials.ts'
import { retirementHeaders } from '../admission/retirement-headers.ts'
import { routeOf } from './routes.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** The key that the request was admitted with; null on public operations. */
    principal: KeyRecord | null
  }
  interface FastifyInstance {
    /** Steps 2 to 5 of an operation that takes keys, or that is listed and takes none. */
    admitKey: (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>
    /** The limit of an operation that is open to everyone, per address. */
    admitAddress: (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>
  }
}

/** Steps 2 to 5: credentials, verify, authorize, decide. Each refusal ends the request before its body is read. */
export const admission = fp<AdmitOptions>(async (app, options) => {
  app.decorateRequest('principal', null)

  app.decorate('admitKey', async (request: FastifyRequest, reply: FastifyReply) => {
    const { api, operation } = routeOf(request)
    const pathProject = api.projectParameter === null ? undefined : (request.params as Record<string, string>)[api.projectParameter]
    const pathProjectId = pathProject === undefined ? null : canonicalProjectId(pathProject)
    if (pathProject !== undefined && pathProjectId === null) return await reply.refuse('invalid_project_id')
    const malformed = await app.readCredentials(request, reply, api)
    if (malformed === 'missing_credentials' && operation.anonymous) return await app.admitAddress(request, reply)
    if (malformed !== null || request.credentials === null) return await reply.refuse(malformed ?? 'missing_credentials')

    const attempt: Attempt = {
      credentials: request.credentials,
      hasBearer: isBearer(request.headers.authorization),
      operation,
      optInScopes: api.optInScopes,
      pathProjectId,
      address: canonicalAddress(request.ip)
    }
    const admission = await admit({
      digest: request.secretDigest,
      judge: record => authorize(record, attempt),
      limits: record => limitsOfKey(record, api, operation, () => hashAddress(normalizeIP(request.ip)))
    }, options)
    if (admission.outcome === 'refused') return await reply.refuse(admission.code, admission)
    request.principal = admission.record
    if (admission.decision !== undefined) reply.headers(draft7Headers(admission.decision))
    reply.headers(retirementHeaders(admission.record))
  })

  app.decorate('admitAddress', async (request: FastifyRequest, reply: FastifyReply) => {
    const { api } = routeOf(request)
    const limits = { cost: 1, limits: limitsOfAddress(api, hashAddress(normalizeIP(request.ip))) }
    try {
      const decision = await options.limiter.decide(limits)
      if (decision.outcome === 'limited') return await reply.refuse('limited', { decision })
      if (decision.outcome === 'admitted') reply.headers(draft7Headers(decision))
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error
      const alone = options.limiter.decideAlone(limits)
      if (alone.outcome === 'limited') return await reply.refuse('limited', { alone })
      if (alone.outcome === 'closed') return await reply.refuse('store_unavailable')
    }
  })
}, { name: 'admission', dependencies: ['refusals', 'credentials'] })
