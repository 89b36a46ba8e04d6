import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { isDigest } from '@keygate/api-key'
import { VerificationOutcome, VerificationRequest, examples } from '@keygate/contracts'
import { Counter, type Registry } from '@keygate/service-kit'
import type { Database } from '../db/database.ts'
import { boundProjectOf, callerOf } from '../plugins/authentication.ts'
import { pepperMissing, unacceptable } from '../errors.ts'
import { findUnknownPeppers } from '../vault/keys-present.ts'
import type { PepperUpkeep } from '../vault/pepper-upkeep.ts'
import type { Peppers } from '../vault/peppers.ts'
import { findByDigest } from './queries.ts'

export interface VerificationOptions { database: Database, peppers: Peppers, pepperUpkeep: PepperUpkeep, registry: Registry }

/** What the gateways ask. It judges nothing: a disabled, revoked or expired key is found, and the gateway decides by its record. */
export const verificationRoutes: FastifyPluginAsyncTypebox<VerificationOptions> = async (app, { database, peppers, pepperUpkeep, registry }) => {
  const verifications = new Counter({
    name: 'key_service_verifications_total',
    help: 'Look-ups of a secret by its digest.',
    labelNames: ['outcome'],
    registers: [registry]
  })

  app.post('/verifications', {
    config: { permission: 'keys:verify', problems: [422] },
    schema: {
      tags: ['verification'],
      operationId: 'verify',
      summary: 'Which key has the secret with this digest?',
      body: { ...VerificationRequest, examples: [examples.verificationRequest] },
      response: { 200: { ...VerificationOutcome, examples: [examples.found, examples.unknown] } }
    }
  }, async (request): Promise<VerificationOutcome> => {
    const { digest, projectId } = request.body as VerificationRequest
    if (!isDigest(digest)) throw unacceptable([{ pointer: '/digest', message: 'is not a SHA-256 in base64url' }])
    const bound = boundProjectOf(callerOf(request))
    const wanted = [projectId, bound].filter(id => typeof id === 'string')
    const { found, cursor } = await database.run(async db => await findByDigest(db, peppers.all(digest).map(keyed => keyed.digest), wanted))
    if (found === null && (await database.run(async db => await findUnknownPeppers(db, peppers))).length > 0) throw pepperMissing()
    verifications.inc({ outcome: found === null ? 'unknown' : 'found' })
    if (found === null) return { outcome: 'unknown', cursor }
    const { record, pepperId } = found
    if (pepperId !== peppers.currentId) pepperUpkeep.note({ secretId: record.secretId, digest })
    return { outcome: 'found', record, cursor }
  })
}
