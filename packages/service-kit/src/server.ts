import { randomUUID } from 'node:crypto'
import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import Fastify, { LogController, type FastifyInstance, type FastifyHttpOptions } from 'fastify'
import { createValidator } from './compilers.ts'
import { prepareDrain } from './drain.ts'
import { loggerOptions } from './logger.ts'
import { ProblemError, answerClientError, answerConnect, answerFrameworkError } from './problem.ts'
import { childLoggerFactory } from './request-log.ts'
import { routeLabelOf, watchRequests } from './request-end.ts'

export interface ServerOptions {
  service: string
  logLevel: string
  /** Proxies whose `X-Forwarded-For` is believed, as addresses or CIDRs; none by default. */
  trustProxy?: string[]
  /** What a client's own request id may not be beside its characters: it is logged, and told to others. */
  refusesRequestId?: (id: string) => boolean
  /** More of Fastify's own options, for what only one service needs. */
  fastify?: FastifyHttpOptions<Server>
}

const acceptableRequestId = /^[\w-]{1,64}$/

/** As Node reads it: what does not match is its 'checkExpectation'. */
const continueExpectation = /(?:^|\W)100-continue(?:$|\W)/i

/**
 * A Fastify server with what both services share: request ids, logging, time-outs, strict validation.
 *
 * Fastify waits for ever for a slow request by default (`requestTimeout` 0); a minute is generous for one whose headers and body we need.
 */
export function createServer (options: ServerOptions): FastifyInstance {
  const app: FastifyInstance = Fastify({
    logger: loggerOptions(options.service, options.logLevel, process.stdout.isTTY === true),
    childLoggerFactory,
    logController: new LogController({ disableRequestLogging: true }), // one line per request is written below
    genReqId: request => {
      const given = request.headers['x-request-id']
      return typeof given === 'string' && acceptableRequestId.test(given) && options.refusesRequestId?.(given) !== true ? given : randomUUID()
    },
    trustProxy: options.trustProxy === undefined || options.trustProxy.length === 0 ? false : options.trustProxy,
    requestTimeout: 60_000,
    keepAliveTimeout: 72_000, // longer than the usual 60 s of a balancer, so that it never sends into a closing connection
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) => { // before any route, so before any hook
      watch(request, reply)
      answerFrameworkError(error, request, reply)
    },
    clientErrorHandler: answerClientError,
    ...options.fastify
  })
  app.setValidatorCompiler(createValidator())
  prepareDrain(app)
  const watch = watchRequests(app)
  app.onRequestEnd((request, { status, seconds, isCut }) => {
    request.log.info({ req: request, route: routeLabelOf(request), status, ms: Math.round(seconds * 10_000) / 10, ...isCut && { isCut } }, 'request')
  })
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    watch(request, reply)
    const { expect } = request.headers
    done(expect === undefined || continueExpectation.test(expect)
      ? undefined
      : new ProblemError({ status: 417, code: 'expectation_failed', detail: 'The only expectation that is met here is 100-continue. Leave the Expect header out.' }))
  })
  // Node would answer these itself, without a body: the one becomes an ordinary request, the other gets its answer by hand.
  app.server.on('checkExpectation', (request, response) => { app.server.emit('request', request, response) })
  app.server.on('connect', ({ method, url }, socket: Socket) => {
    answerConnect(socket)
    app.log.info({ req: { method, url, ip: socket.remoteAddress }, status: 405 }, 'request')
  })
  return app
}
