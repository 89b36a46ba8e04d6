import { randomUUID } from 'node:crypto'
import type { Server } from 'node:http'
import Fastify, { LogController, type FastifyInstance, type FastifyHttpOptions } from 'fastify'
import { loggerOptions } from './logger.ts'
import { answerClientError, answerFrameworkError } from './problem.ts'
import { createValidator } from './validation.ts'

export interface ServerOptions {
  service: string
  logLevel: string
  /** Proxies whose `X-Forwarded-For` is believed, as addresses or CIDRs; none by default. */
  trustProxy?: string[]
  /** More of Fastify's own options, for what only one service needs. */
  fastify?: FastifyHttpOptions<Server>
}

const acceptableRequestId = /^[\w-]{1,64}$/

/**
 * A Fastify server with what both services share: request ids, logging, time-outs, strict validation.
 *
 * Fastify waits for ever for a slow request by default (`requestTimeout` 0); a minute is generous for one whose headers and body we need.
 */
export function createServer (options: ServerOptions): FastifyInstance {
  const app = Fastify({
    logger: loggerOptions(options.service, options.logLevel, process.stdout.isTTY === true),
    logController: new LogController({ disableRequestLogging: true }), // one line per request is written below
    genReqId: request => {
      const given = request.headers['x-request-id']
      return typeof given === 'string' && acceptableRequestId.test(given) ? given : randomUUID()
    },
    trustProxy: options.trustProxy === undefined || options.trustProxy.length === 0 ? false : options.trustProxy,
    requestTimeout: 60_000,
    keepAliveTimeout: 72_000, // longer than the usual 60 s of a balancer, so that it never sends into a closing connection
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    frameworkErrors: answerFrameworkError,
    clientErrorHandler: answerClientError,
    ...options.fastify
  })
  app.setValidatorCompiler(createValidator())
  app.addHook('onRequest', async (request, reply) => { reply.header('x-request-id', request.id) })
  app.addHook('onResponse', async (request, reply) => {
    request.log.info({ req: request, route: request.routeOptions.url, status: reply.statusCode, ms: Math.round(reply.elapsedTime * 10) / 10 }, 'request')
  })
  return app
}
