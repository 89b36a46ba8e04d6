import type { FastifyRequest } from 'fastify'

/**
 * The project that the gateway found the key to belong to.
 *
 * Only a gateway may be able to reach this API: the header is believed as it stands, because the gateway removes what a client sent under this name.
 */
export function ownerOf (request: FastifyRequest): string | undefined {
  const header = request.headers['x-keygate-project']
  return typeof header === 'string' && header !== '' ? header : undefined
}
