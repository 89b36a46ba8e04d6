import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { ChangesPage, ChangesQuery, examples } from '@keygate/contracts'
import type { Database } from '../db/database.ts'
import { cursorTooOld } from '../errors.ts'
import { boundProjectOf, callerOf } from '../plugins/authentication.ts'
import { readChanges } from './queries.ts'

/** What the gateways poll: it stands in for Redis while that is away. */
export const changesRoutes: FastifyPluginAsyncTypebox<{ database: Database }> = async (app, { database }) => {
  app.get('/changes', {
    config: { permission: 'keys:verify', problems: [410, 422] },
    schema: {
      tags: ['verification'],
      operationId: 'listChanges',
      summary: 'Versions raised since a cursor; a row may come twice, none is missed',
      querystring: ChangesQuery,
      response: { 200: { ...ChangesPage, examples: [examples.changes] } }
    }
  }, async (request): Promise<ChangesPage> => {
    const { after } = request.query as ChangesQuery
    const only = boundProjectOf(callerOf(request))
    const page = await database.search(async db => await readChanges(db, after, only))
    if (page === 'too-old') throw cursorTooOld()
    return page
  })
}
