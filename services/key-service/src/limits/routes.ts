import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Catalogue } from '@keygate/api-catalog'
import { RedisStore, StoreUnavailableError, type RedisConnection } from '@keygate/rate-limit'
import { ProblemError } from '@keygate/service-kit'
import { whileStill } from '../access/still.ts'
import { recordAudit } from '../audit/audit-log.ts'
import type { Database } from '../db/database.ts'
import { keyNotFound } from '../errors.ts'
import { holdProject } from '../keys/repository.ts'
import { contextOf } from '../plugins/authentication.ts'
import { KeyParams, noContent } from '../schemas.ts'
import { applicableLimits, isOfKeyAlone } from './applicable.ts'
import { readLiveLimits } from './live-limits.ts'
import { findLimitedKey } from './queries.ts'
import { LiveLimits } from './schemas.ts'

export interface LimitRoutesOptions { database: Database, redis: RedisConnection, catalogue: Catalogue }

const tags = ['keys']
const url = '/projects/:projectId/keys/:keyId/limit'

/** A key's limits as Redis has them at this moment. */
export const limitRoutes: FastifyPluginAsyncTypebox<LimitRoutesOptions> = async (app, { database, redis, catalogue }) => {
  const store = new RedisStore(redis)

  app.get(url, {
    config: { permission: 'keys:read', problems: [404] },
    schema: { tags, operationId: 'getKeyLimit', summary: 'The key\'s limits and what is left of them; asking counts nothing', params: KeyParams, response: { 200: LiveLimits } }
  }, async request => {
    const key = await database.run(async db => await findLimitedKey(db, request.params))
    if (key === undefined) throw keyNotFound()
    return { data: await orUnavailable(readLiveLimits(store, applicableLimits(key, catalogue))) }
  })

  app.delete(url, {
    config: { permission: 'limits:reset', bodyIsOptional: true, problems: [404] },
    schema: {
      tags,
      operationId: 'resetKeyLimit',
      summary: 'Forget what was counted for this key alone; what is counted per project or address stays',
      params: KeyParams,
      response: { 204: noContent }
    }
  }, async (request, reply) => {
    const context = contextOf(request)
    await whileStill(database, context, async tx => {
      await holdProject(tx, request.params.projectId)
      const key = await findLimitedKey(tx, request.params)
      if (key === undefined) throw keyNotFound()
      const limits = applicableLimits(key, catalogue).filter(isOfKeyAlone)
      await recordAudit(tx, context, { action: 'limit.reset', projectId: key.projectId, keyId: key.keyId, details: { policies: limits.map(({ policy }) => policy.name) } })
      // Last, and before the commit: what Redis has not forgotten is not written down as forgotten. A commit that is lost leaves
      // counters at nothing and the caller with a 503, who asks again and is then written down.
      if (limits.length > 0) await orUnavailable(store.reset(limits))
    })
    return await reply.code(204).send()
  })
}

async function orUnavailable<T> (answer: Promise<T>): Promise<T> {
  return await answer.catch((error: Error) => {
    if (!(error instanceof StoreUnavailableError)) throw error
    throw new ProblemError(
      { status: 503, code: 'limits_unavailable', detail: 'Redis, where requests are counted, does not answer. Try again.' },
      { 'retry-after': '1' },
      { cause: error }
    )
  })
}
