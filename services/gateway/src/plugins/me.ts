import type { Catalogue } from '@keygate/api-catalog'
import type { KeyRecord } from '@keygate/contracts'
import { hashAddress, limitsInApi, limitsOfOperation, wholeSeconds, type KeyLimit, type PolicyDecision } from '@keygate/rate-limit'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { AdmitOptions } from '../admission/admit.ts'
import { canonicalAddress } from '../admission/address.ts'
import { carriersOf } from '../admission/carriers.ts'
import { judgeKey } from '../admission/authorize.ts'
import { countedAddress } from '../admission/limits.ts'
import { retirementHeaders } from '../admission/retirement-headers.ts'
import type { LiveCatalogue } from '../routing/live-catalogue.ts'
import { admitInTurn } from './admission.ts'

/**
 * `GET /.keygate/me`: what a key may know of itself: its scopes, its end, its limits and what is left of them. It comes as the key
 * always does, on whichever API it is for, and is counted under no limit.
 */
export const me = fp<AdmitOptions & { live: LiveCatalogue }>(async (app, { live, ...options }) => {
  app.get('/.keygate/me', async (request, reply) => {
    const { catalogue } = live.table
    if (app.hasSecretInTarget(request)) return await reply.refuse('key_in_query')
    const carriers = carriersOf(catalogue)
    const malformed = app.readCredentials(request, reply, carriers)
    const { credentials } = request
    if (malformed !== null || credentials === null) return await reply.refuse(malformed ?? 'missing_credentials', { carriers })
    const attempt = { credentials, pathProjectId: null, address: canonicalAddress(request.ip) }
    const candidate = { digest: request.secretDigest, judge: (record: KeyRecord) => judgeKey(record, attempt), limits: (record: KeyRecord) => allLimits(record, catalogue, request), isFree: true }
    const admission = await admitInTurn(app, options, request, candidate)
    if (admission.outcome === 'refused') return await reply.refuse(admission.code, { carriers, ...admission.record !== undefined && { record: admission.record } })
    const { record, decision } = admission
    reply.headers(retirementHeaders(record)).header('cache-control', 'no-store')
    return {
      projectId: record.projectId,
      keyId: record.keyId,
      scopes: record.scopes,
      allowedForAll: record.allowedForAll,
      allowedHosts: record.allowedHosts,
      expiresAt: dateOf(record.notAfterMs),
      secret: { state: record.secretState, expiresAt: dateOf(record.secretNotAfterMs) },
      limits: allLimits(record, catalogue, request).map((limit, i) => describe(limit, decision?.policies[i]))
    }
  })
}, { name: 'me', dependencies: ['credentials', 'refusals', 'admission'] })

/** Every list that can count a request of the key: its own or its project's, else each API's; and those of single operations. */
function allLimits (record: KeyRecord, { apis }: Catalogue, { ip }: FastifyRequest): KeyLimit[] {
  const addressHash = (): string => hashAddress(countedAddress(ip))
  const lists = record.policies === null ? apis : apis.slice(0, 1) // a list of its own counts over all APIs
  return [
    ...lists.flatMap(api => limitsInApi(record, api, addressHash)),
    ...apis.flatMap(api => api.operations.flatMap(operation => limitsOfOperation(record, api, operation, addressHash)))
  ]
}

/** `remaining` and `resetSeconds` are null while the shared count cannot be read. */
function describe ({ policy, owner }: KeyLimit, decision: PolicyDecision | undefined): object {
  return {
    policy: policy.name,
    api: 'api' in owner ? owner.api : null,
    operation: 'operation' in owner ? owner.operation : null,
    limit: policy.limit,
    windowSeconds: policy.windowSeconds,
    remaining: decision?.remaining ?? null,
    resetSeconds: decision === undefined ? null : wholeSeconds(decision.resetMs)
  }
}

function dateOf (ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString()
}
