import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../db/database.ts'
import { keyNotFound } from '../errors.ts'
import { KeyParams } from '../schemas.ts'
import { listCallers } from './callers.ts'
import { CallerList } from './callers-schemas.ts'
import { keyWasThere } from './queries.ts'

export interface CallerRoutesOptions { database: Pick<Database, 'run'> }

/** Who would notice if a key, or its old secret, ended. */
export const callerRoutes: FastifyPluginAsyncTypebox<CallerRoutesOptions> = async (app, { database }) => {
  app.get('/projects/:projectId/keys/:keyId/callers', {
    config: { permission: 'usage:read', problems: [404] },
    schema: { tags: ['usage'], operationId: 'listCallers', summary: 'Who calls with a key, newest first, at most 50, and who still uses its old secret', params: KeyParams, response: { 200: CallerList } }
  }, async request => {
    return await database.run(async db => {
      if (!await keyWasThere(db, request.params)) throw keyNotFound()
      return await listCallers(db, request.params)
    })
  })
}
