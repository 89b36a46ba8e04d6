import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { Agent, errors } from 'undici'
import { canonicalAddress } from '../admission/authorize.ts'
import type { RefusalCode } from '../errors.ts'
import { forwardedHeaders, returnedHeaders } from '../proxy/headers.ts'
import { upstreamPath } from '../proxy/path.ts'
import { routeOf } from './routes.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Step 6: hands the request to the upstream and its answer back, both as streams. */
    forward: (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply>
  }
}

export const proxy = fp<{ timeoutMs: number }>(async (app, { timeoutMs }) => {
  const agent = new Agent({ connections: 128, connect: { timeout: Math.min(timeoutMs, 2000) }, headersTimeout: timeoutMs, bodyTimeout: timeoutMs })
  app.addHook('onClose', async () => { await agent.close() })

  // Bodies are passed on as they come; nothing here parses them.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, payload, done) => { done(null, payload) })

  app.decorate('forward', async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { api, operation } = routeOf(request)
    const target = new URL(api.upstream)
    const clientLeft = new AbortController()
    const onClose = (): void => { if (!reply.raw.writableFinished) clientLeft.abort() }
    if (reply.raw.destroyed) onClose() // it left while the key was being checked: the event is over
    else reply.raw.once('close', onClose)
    try {
      const answer = await agent.request({
        origin: target.origin,
        path: upstreamPath(target.pathname, operation.path, request),
        method: request.method,
        headers: forwardedHeaders(request.raw, {
          carriers: api.carriers, address: canonicalAddress(request.ip), protocol: request.protocol, requestId: request.id, principal: request.principal
        }),
        body: hasBody(request) ? request.raw : null,
        signal: clientLeft.signal,
        responseHeaders: 'raw'
      })
      for (const [name, value] of returnedHeaders(answer.headers as unknown as Buffer[] | string[], request.principal)) reply.header(name, value)
      reply.code(answer.statusCode)
      return await reply.send(answer.body)
    } catch (error) {
      if (clientLeft.signal.aborted) return reply.hijack()
      request.log.warn({ err: error }, 'upstream failed')
      return await reply.refuse(failureOf(error as Error))
    }
  })
}, { name: 'proxy', dependencies: ['refusals'] })

/** RFC 9112 section 6: a request has a body exactly when one of these fields announces it. */
function hasBody ({ headers }: FastifyRequest): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'
}

function failureOf (error: Error & { code?: string }): RefusalCode {
  // It may have answered, 413 say, and closed without reading on; what was sent before the reset cannot be read any more.
  if (error.code === 'EPIPE') return 'upstream_closed'
  return error instanceof errors.HeadersTimeoutError || error instanceof errors.ConnectTimeoutError || error instanceof errors.BodyTimeoutError
    ? 'upstream_timeout'
    : 'upstream_unreachable'
}
