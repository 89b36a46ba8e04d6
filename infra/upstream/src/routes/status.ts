import type { FastifyInstance } from 'fastify'

/** The one operation that needs no key. */
export function statusRoutes (app: FastifyInstance): void {
  app.get('/status', { config: { operationId: 'getStatus' } }, () => ({ status: 'ok' }))
}
