import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { corsHeaders, isPreflight, preflightHeaders } from '../admission/cors.ts'
import { addFields } from './own-fields.ts'
import { matchOf } from './routes.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Lets pages of other origins read the answer where the API's settings say so, and answers a preflight by them. Where they say
     * `forward`, the upstream answers for itself.
     */
    answerCors: (request: FastifyRequest, reply: FastifyReply, done: () => void) => void
  }
}

/** CORS by an API's `cors` setting, for requests that are admitted already. */
export const cors = fp(async app => {
  app.decorate('answerCors', (request: FastifyRequest, reply: FastifyReply, done: () => void): void => {
    const { target } = matchOf(request)
    const { api } = target
    const { origin } = request.headers
    if (api.cors === 'forward') { done(); return }
    addFields(request, corsHeaders(api.cors, origin))
    const isListed = target.kind === 'operation' || target.kind === 'options'
    if (isListed && isPreflight(request.method, request.headers)) reply.code(204).headers(preflightHeaders(api.cors, api, target.methods, origin)).send()
    else done()
  })
}, { name: 'cors', dependencies: ['own-fields'] })
