import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { errors } from 'undici'
import { canonicalAddress } from '../admission/address.ts'
import { exposedHeaders } from '../admission/cors.ts'
import { countedAddress } from '../admission/limits.ts'
import type { RefusalCode } from '../errors.ts'
import { upstreamConnector } from '../proxy/connector.ts'
import { Forwarding, SlowBodyError, UpstreamBusyError } from '../proxy/forwarding.ts'
import { answerHalfClosed } from '../proxy/half-closed.ts'
import { forwardedHeaders } from '../proxy/request-headers.ts'
import { returnedHeaders } from '../proxy/response-headers.ts'
import { createUpstream, type Upstream } from '../proxy/upstream.ts'
import { pathOf } from '../routing/path-template.ts'
import type { Match } from '../routing/table.ts'
import { matchOf } from './routes.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Step 6: hands the request to the upstream and its answer back, both as streams. The answer is written past Fastify. */
    forward: (request: FastifyRequest, reply: FastifyReply) => void
  }
}

export interface ProxyOptions {
  /** Deadlines in milliseconds: to connect, for the answer's headers, and between two parts of a body. */
  connectTimeoutMs: number
  headersTimeoutMs: number
  idleTimeoutMs: number
  /** The most connections to one upstream, and the most requests that wait for one. */
  connections: number
  queue: number
  /** Upstreams may have addresses that are not public. */
  allowsPrivate: boolean
}

export const proxy = fp<ProxyOptions>(async (app, { connectTimeoutMs, allowsPrivate, ...options }) => {
  const { headersTimeoutMs, idleTimeoutMs } = options
  const connect = upstreamConnector({ timeoutMs: connectTimeoutMs, allowsPrivate })
  const upstreams = new Map<string, Upstream>()
  app.addHook('onClose', async () => { await Promise.all([...upstreams.values()].map(async ({ dispatcher }) => { await dispatcher.destroy() })) })

  answerHalfClosed(app.server)

  // Bodies are passed on as they come; nothing here parses them.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, payload, done) => { done(null, payload) })
  // Whoever waits to be told to go on has not been admitted yet: a refusal comes before the body is sent (RFC 9110 section 10.1.1).
  app.server.on('checkContinue', (request, response) => { app.server.emit('request', request, response) })

  app.decorate('forward', (request: FastifyRequest, reply: FastifyReply): void => {
    const match = matchOf(request)
    const { api, origin } = match.target
    const { principal, raw } = request
    const ownsCors = api.cors !== 'forward'
    const hasBody = announcesBody(request)
    let upstream = upstreams.get(origin)
    if (upstream === undefined) upstreams.set(origin, upstream = createUpstream(origin, { ...options, connect }))
    const fail = (error: Error): void => {
      const code = failureOf(error)
      if (code !== 'request_timeout') request.log.warn({ err: error }, 'upstream failed')
      else reply.header('connection', 'close') // what comes on it now may be the rest of this body
      reply.refuse(code).catch((error: Error) => { request.log.error({ err: error }, 'no answer could be given'); raw.destroy() })
    }
    const forwarding = new Forwarding(raw, reply.raw, {
      upstream,
      origin,
      caller: principal === null ? { name: countedAddress(request.ip), isKeyless: true } : { name: principal.projectId, isKeyless: false },
      path: upstreamPath(match),
      headers: forwardedHeaders(raw, {
        fields: app.passedFields(api),
        ownsBasic: principal !== null || ownsBasic(match),
        address: canonicalAddress(request.ip),
        protocol: request.protocol,
        requestId: request.id,
        principal
      }),
      hasBody,
      tally: request,
      expectsContinue: hasBody && raw.headers.expect !== undefined && raw.httpVersionMinor !== 0, // HTTP/1.0 knows no interim answers
      queueTimeoutMs: headersTimeoutMs,
      idleTimeoutMs,
      answer: (statusCode, rawHeaders) => {
        const { pairs, isCrossOrigin, isEventStream } = returnedHeaders(rawHeaders, { principal, ownsCors, statusCode })
        pairs.push('x-request-id', request.id)
        if (request.ownFields !== null) pairs.push(...request.ownFields)
        if (app.isDraining) pairs.push('connection', 'close')
        if (isCrossOrigin) pairs.push('access-control-expose-headers', exposedHeaders)
        if (isEventStream) pairs.push('x-accel-buffering', 'no') // nginx in front would collect events otherwise
        return pairs
      },
      onBegun: () => { reply.hijack() },
      onFailure: fail,
      onCut: error => { request.log.warn({ err: error }, 'upstream broke off') },
      onEnd: () => { if (principal !== null) app.openStreams.delete(forwarding) }
    })
    if (principal !== null) app.openStreams.add(forwarding, request)
    forwarding.start()
  })
}, { name: 'proxy', dependencies: ['refusals', 'credentials', 'open-streams'] })

/** On an operation that takes Basic as a key, every Basic is meant for us. */
function ownsBasic ({ target }: Match): boolean {
  return target.kind === 'operation' && target.operation.access === 'key'
}

/** What the upstream is asked for: an operation's path written anew, any other as it came, which the ingress found plain. */
function upstreamPath ({ target, parameters, url }: Match): string {
  const query = url.indexOf('?')
  const path = target.kind === 'operation' || target.kind === 'options'
    ? pathOf(target.template, parameters)
    : url.slice(target.api.prefix.length, query === -1 ? undefined : query)
  return (target.basePath + path || '/') + (query === -1 ? '' : url.slice(query))
}

/** RFC 9112 section 6: a request has a body exactly when one of these fields announces it. */
function announcesBody ({ headers }: FastifyRequest): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'
}

function failureOf (error: Error & { code?: string }): RefusalCode {
  if (error instanceof SlowBodyError) return 'request_timeout'
  if (error instanceof UpstreamBusyError) return 'upstream_busy'
  // It may have answered, 413 say, and closed without reading on; what was sent before the reset cannot be read any more.
  if (error.code === 'EPIPE') return 'upstream_closed'
  if (error instanceof errors.HeadersTimeoutError || error instanceof errors.ConnectTimeoutError || error instanceof errors.BodyTimeoutError) return 'upstream_timeout'
  return error instanceof errors.HTTPParserError || error.code === 'ERR_INVALID_CHAR' ? 'upstream_malformed' : 'upstream_unreachable'
}
