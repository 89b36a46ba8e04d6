import type { Api, Catalogue, Operation } from '@keygate/api-catalog'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'

/** What a route carries in its config: the operation that the catalogue lists there. */
export interface ApiRoute { api: Api, operation: Operation }

declare module 'fastify' {
  interface FastifyContextConfig { apiRoute?: ApiRoute }
}

/** The operation that a request matched. @throws {Error} on a route that is not of the catalogue. */
export function routeOf (request: FastifyRequest): ApiRoute {
  const { apiRoute } = request.routeOptions.config
  if (apiRoute === undefined) throw new Error('this route is not of the catalogue')
  return apiRoute
}

/**
 * Step 1: one route per operation of the catalogue, matched by Fastify's own router. Nobody matches paths twice, and there is no
 * list of exceptions: what is not in the catalogue is not there.
 */
export const routes = fp<{ catalogue: Catalogue }>(async (app, { catalogue }) => {
  for (const api of catalogue.apis) {
    for (const operation of [...api.operations].sort(headFirst)) {
      app.route({
        method: operation.method,
        url: api.prefix + toRouterPath(operation.path),
        config: { apiRoute: { api, operation } },
        onRequest: operation.access === 'public' ? app.admitAddress : app.admitKey,
        handler: async (request: FastifyRequest, reply: FastifyReply) => await app.forward(request, reply)
      })
    }
  }
}, { name: 'routes', dependencies: ['admission', 'proxy'] })

/** An explicit HEAD goes before the GET that would bring its own. */
function headFirst (a: Operation, b: Operation): number {
  return Number(b.method === 'HEAD') - Number(a.method === 'HEAD')
}

/** `/forms/{formId}` -> `/forms/:formId`; a literal colon is doubled, as the router wants it. */
export function toRouterPath (path: string): string {
  return path.replaceAll(':', '::').replace(/\{([^}]+)\}/g, ':$1')
}
