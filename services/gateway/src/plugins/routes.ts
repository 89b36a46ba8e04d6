import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { LiveCatalogue } from '../routing/live-catalogue.ts'
import { methods, type Match } from '../routing/table.ts'
import type { OperationTarget } from '../routing/target.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** What the request is for; null for what is not of the catalogue. */
    match: Match | null
  }
}

/** What a request of the catalogue is for. @throws {Error} on any other. */
export function matchOf (request: FastifyRequest): Match {
  if (request.match === null) throw new Error('this request is not of the catalogue')
  return request.match
}

/** The operation that a request is for. @throws {Error} when it is for none. */
export function operationOf (request: FastifyRequest): { target: OperationTarget, parameters: Match['parameters'] } {
  const { target, parameters } = matchOf(request)
  if (target.kind !== 'operation') throw new Error('this request is for no operation')
  return { target, parameters }
}

/**
 * Step 1: what the catalogue has at a method and path. There is no list of exceptions: what is not in the table is not there.
 *
 * One route of Fastify's stands for all of the catalogue's, so that the catalogue can change while requests run: each keeps what it
 * was matched with.
 */
export const routes = fp<{ live: LiveCatalogue }>(async (app, { live }) => {
  app.decorateRequest('match', null)

  const match = (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void => {
    request.match = live.table.match(request.method, request.raw.url ?? '/')
    request.routeLabel = labelOf(request.match)
    if (request.match === null) reply.refuse('not_found').catch(done)
    else done()
  }

  app.route({
    method: [...methods],
    url: '/*',
    exposeHeadRoute: false,
    onRequest: [match, app.admit, app.answerCors],
    handler: (request, reply) => {
      const { kind } = matchOf(request).target
      if (kind === 'document' || kind === 'docs') app.publish(request, reply)
      else app.forward(request, reply)
    }
  })
}, { name: 'routes', dependencies: ['admission', 'cors', 'proxy', 'published'] })

/** What logs and metrics say of the route: a template, never the path itself. */
function labelOf (match: Match | null): string {
  if (match === null) return 'unmatched'
  const { kind, api } = match.target
  switch (kind) {
    case 'operation': return api.prefix + match.target.operation.path
    case 'document': return `${api.prefix}/openapi.json`
    case 'docs': return `${api.prefix}/docs`
    case 'options': return `${api.prefix} OPTIONS`
    case 'unlisted': return `${api.prefix}/*`
  }
}
