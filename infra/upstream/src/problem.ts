import { STATUS_CODES } from 'node:http'
import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify'

/** Answers an RFC 9457 problem. */
export function problem (reply: FastifyReply, status: number, detail: string): FastifyReply {
  return reply.code(status).type('application/problem+json')
    .send({ type: 'about:blank', title: STATUS_CODES[status] ?? 'Error', status, detail })
}

/** The one answer for everything that is not there, or is somebody else's: the two must not be told apart. */
export function notFound (reply: FastifyReply, what: string): FastifyReply {
  return problem(reply, 404, `There is no such ${what}.`)
}

/** Turns Fastify's own errors into problems; what is our fault is logged and told in general words. */
export function answerProblems (app: FastifyInstance): void {
  app.setNotFoundHandler((_request, reply) => notFound(reply, 'address'))
  app.setErrorHandler<FastifyError>((error, request, reply) => {
    const status = error.statusCode ?? 500
    if (status < 500) return problem(reply, status, error.message)
    request.log.error({ err: error }, 'unexpected error')
    return problem(reply, 500, 'The demo API failed. Its log says why.')
  })
}
