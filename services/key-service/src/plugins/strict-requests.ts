import fp from 'fastify-plugin'
import { NoSettings } from '../schemas.ts'

/**
 * What a route does not declare is an unknown field, and that is 400 (design.md section 8): a query that nobody reads would look as
 * if it had been heard (`?dryRun=true`). To be registered before the routes of its scope.
 *
 * A DELETE may come with the empty object, as many clients send it; the other methods without a declared body are those that have none.
 */
export const strictRequests = fp(async app => {
  app.addHook('onRoute', route => {
    route.schema = { querystring: NoSettings, ...route.method === 'DELETE' && { body: NoSettings }, ...route.schema }
  })
}, { name: 'strict-requests' })
