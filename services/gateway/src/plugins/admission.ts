import type { KeyRecord } from '@keygate/contracts'
import { StoreUnavailableError, draft7Headers, hashAddress } from '@keygate/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { admit, type AdmitOptions } from '../admission/admit.ts'
import { canonicalAddress } from '../admission/address.ts'
import { authorize, type Attempt } from '../admission/authorize.ts'
import type { Admission, Candidate } from '../admission/candidate.ts'
import { isPreflight } from '../admission/cors.ts'
import { countedAddress, limitsOfAddress, limitsOfRequest } from '../admission/limits.ts'
import { canonicalProjectId, isBearer } from '../admission/credentials.ts'
import { retirementHeaders } from '../admission/retirement-headers.ts'
import { refusals, type RefusalCode } from '../errors.ts'
import type { OperationTarget } from '../routing/target.ts'
import type { Booking } from '../usage/booking.ts'
import { addFields } from './own-fields.ts'
import { matchOf, operationOf } from './routes.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** The key that the request was admitted with; null where no key is asked for. */
    principal: KeyRecord | null
    /** What the key was judged by, to judge it again while its answer is open. */
    candidate: Candidate | null
  }
  interface FastifyInstance {
    /** Steps 2 to 5 for whatever the request is for. */
    admit: (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>
    /** The limit of what needs no key, per address. */
    admitAddress: (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>
    /** Judges the key of an admitted request once more, at no cost. `null`: it is good, or nobody can say at the moment. */
    judgeAgain: (request: FastifyRequest) => Promise<RefusalCode | null>
  }
}

/** Steps 2 to 5: credentials, verify, authorize, decide. Each refusal ends the request before its body is read. */
export const admission = fp<AdmitOptions>(async (app, options) => {
  app.decorateRequest('principal', null)
  app.decorateRequest('candidate', null)

  // It waits for nothing itself: each promise on the way of every request is time.
  app.decorate('admit', (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply | undefined> => {
    const { target } = matchOf(request)
    if (app.hasSecretInTarget(request)) return reply.refuse('key_in_query')
    const isAsked = isPreflight(request.method, request.headers)
    if (target.kind === 'operation' && target.operation.access !== 'public' && !isAsked) return admitKey(app, options, request, reply)
    if (target.kind === 'options' && !isAsked) return reply.refuse('not_found')
    return app.admitAddress(request, reply)
  })

  app.decorate('admitAddress', async (request: FastifyRequest, reply: FastifyReply) => {
    const { api } = matchOf(request).target
    const limits = { cost: 1, limits: limitsOfAddress(api, hashAddress(countedAddress(request.ip))) }
    try {
      const decision = await options.limiter.decide(limits)
      if (decision.outcome === 'limited') return await reply.refuse('limited', { decision })
      if (decision.outcome === 'admitted') addFields(request, draft7Headers(decision))
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error
      const alone = options.limiter.decideAlone(limits)
      if (alone.outcome === 'limited') return await reply.refuse('limited', { alone })
      if (alone.outcome === 'closed') return await reply.refuse('store_unavailable')
    }
  })

  app.decorate('judgeAgain', async ({ candidate }: FastifyRequest) => {
    if (candidate === null) return null
    const admission = await admit({ ...candidate, isFree: true }, options)
    // A 503 says nothing about the key.
    return admission.outcome === 'refused' && isRefusalOfKey(admission.code) ? admission.code : null
  })
}, { name: 'admission', dependencies: ['refusals', 'credentials', 'own-fields', 'usage'] })

/** An operation that takes keys, or that is listed and takes none. */
async function admitKey (app: FastifyInstance, options: AdmitOptions, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply | undefined> {
  const { target, parameters } = operationOf(request)
  const { api, operation, projectPlace } = target
  const pathProject = projectPlace === null ? undefined : parameters[projectPlace]
  const pathProjectId = pathProject === undefined ? null : canonicalProjectId(pathProject)
  if (pathProject !== undefined && pathProjectId === null) return await reply.refuse('invalid_project_id')
  const malformed = app.readCredentials(request, reply, api.carriers)
  const hasBearer = isBearer(request.headers.authorization)
  if (malformed === 'missing_credentials') {
    if (operation.anonymous) return await app.admitAddress(request, reply)
    // For the upstream to check: an offered scheme that is not ours.
    if (hasBearer && operation.offersBearer && api.otherSchemes === 'forward') return await app.admitAddress(request, reply)
  }
  if (malformed !== null || request.credentials === null) return await reply.refuse(malformed ?? 'missing_credentials')

  const attempt: Attempt = { credentials: request.credentials, hasBearer, operation, optInScopes: api.optInScopes, pathProjectId, address: canonicalAddress(request.ip) }
  const candidate: Candidate = {
    digest: request.secretDigest,
    judge: record => authorize(record, attempt),
    limits: record => limitsOfRequest(record, target, () => hashAddress(countedAddress(request.ip)))
  }
  const admission = await admitInTurn(app, options, request, candidate)
  app.book(request, bookingOf(admission, target))
  if (admission.outcome === 'refused') return await reply.refuse(admission.code, admission)
  request.principal = admission.record
  request.candidate = candidate
  if (admission.decision !== undefined) addFields(request, draft7Headers(admission.decision))
  addFields(request, retirementHeaders(admission.record))
}

/** `null`: no key is known that the request could be booked under. */
function bookingOf (admission: Admission, target: OperationTarget): Booking | null {
  const { record, atMs, line = null } = admission
  if (record === undefined || atMs === undefined) return null
  if (admission.outcome === 'admitted') return { record, target, outcome: 'admitted', code: null, atMs, line }
  return { record, target, outcome: admission.code === 'limited' ? 'limited' : 'refused', code: admission.code, atMs, line: null }
}

/** An address that is past its budget of refusals waits its turn for a look-up; a key that is known here needs none. */
export function admitInTurn (app: FastifyInstance, options: AdmitOptions, request: FastifyRequest, candidate: Candidate): Promise<Admission> {
  return app.lookUpQueues.suspectsAny ? admitSuspect(app, options, request, candidate) : admit(candidate, options)
}

async function admitSuspect ({ lookUpQueues }: FastifyInstance, options: AdmitOptions, request: FastifyRequest, candidate: Candidate): Promise<Admission> {
  const address = countedAddress(request.ip)
  if (!lookUpQueues.isSuspect(address) || options.records.held(candidate.digest) !== undefined) return await admit(candidate, options)
  return await lookUpQueues.inTurn(address, async () => await admit(candidate, options)) ?? { outcome: 'refused', code: 'too_many_look_ups' }
}

function isRefusalOfKey (code: RefusalCode): boolean {
  return [401, 403].includes(refusals[code].status)
}
