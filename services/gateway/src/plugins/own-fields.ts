import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'

declare module 'fastify' {
  interface FastifyRequest {
    /** What the gateway itself says in the answer, whoever gives the rest of it: raw pairs. Null: nothing yet. */
    ownFields: string[] | null
  }
}

/** Adds fields to whatever will be answered. */
export function addFields (request: FastifyRequest, fields: Readonly<Record<string, string>>): void {
  const pairs = request.ownFields ??= []
  for (const name in fields) pairs.push(name, fields[name] as string)
}

/**
 * The gateway's own fields (RateLimit, CORS, the end of a secret) wait on the request: most answers are the upstream's, and are written past
 * Fastify; the others get them here. To collect them out of Fastify's reply cost more than to verify the key.
 */
export const ownFields = fp(async app => {
  app.decorateRequest('ownFields', null)
  app.addHook('onSend', (request, reply, payload, done) => {
    const pairs = request.ownFields ?? []
    for (let i = 0; i < pairs.length; i += 2) reply.header(pairs[i] as string, pairs[i + 1])
    done(null, payload)
  })
}, { name: 'own-fields' })
