import { ProblemError } from '@keygate/service-kit'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { isPreflight } from '../admission/cors.ts'
import { methodFault } from '../ingress/problems.ts'
import { targetFault } from '../ingress/target.ts'
import { identityHeaders } from '../proxy/request-headers.ts'
import type { LiveCatalogue } from '../routing/live-catalogue.ts'
import { methods } from '../routing/table.ts'
import { matchOf } from './routes.ts'

/** What the proxy may take of one header, in characters: nginx is given 64 KiB for all (infra/nginx/forward-auth.conf), and takes more for a gateway that fails. */
const longestField = 60_000

/**
 * Forward-auth: whether a request that another proxy has before it may pass, for nginx's `auth_request` (infra/nginx/forward-auth.conf).
 *
 * The proxy asks with GET, names method and target in `X-Original-Method` and `X-Original-URI` and sends the client's own headers along.
 * 204 carries who it is, for the proxy to set on its request to the upstream. A refusal is 401 or, whatever it is, 403, since nginx makes
 * 500 of anything else; `X-Keygate-Status` has the true status, and `X-Keygate-Problem` the problem, since nginx drops the body.
 */
export const authorizeForProxy = fp<{ live: LiveCatalogue }>(async (app, { live }) => {
  const match = (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void => {
    const [method, url] = [headerOf(request, 'x-original-method'), headerOf(request, 'x-original-uri')]
    if (method === undefined || url === undefined) {
      done(new ProblemError({ status: 400, code: 'original_request_missing', detail: 'Send the request\'s method in X-Original-Method and its path and query in X-Original-URI.' }))
      return
    }
    const fault = methods.includes(method as typeof methods[number]) ? targetFault(url) : methodFault()
    if (fault !== null) { done(fault); return }
    const found = live.table.match(method, url)
    // What the gateway would tell itself is not there for a proxy that asks about an upstream.
    request.match = found?.target.kind === 'document' || found?.target.kind === 'docs' ? null : found
    if (request.match === null) reply.refuse('not_found').catch(done)
    else done()
  }

  const admitOriginal = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply | undefined> => {
    if (app.hasSecretInTarget(request)) return await reply.refuse('key_in_query')
    // The gateway itself would leave such a field out; a proxy that asks cannot tell by a value.
    if (app.passedFields(matchOf(request).target.api).hasAstray(request.raw.rawHeaders)) return await reply.refuse('key_in_header')
    // A browser's preflight brings no key, and the upstream answers it.
    return isPreflight(headerOf(request, 'x-original-method') ?? '', request.headers) ? await app.admitAddress(request, reply) : await app.admit(request, reply)
  }

  app.route({
    method: ['GET', 'HEAD'],
    url: '/.keygate/authorize',
    onRequest: [match, admitOriginal],
    onSend: (_request, reply, payload, done) => {
      const { statusCode } = reply
      if (statusCode < 400) { done(null, payload); return }
      reply.code(statusCode === 401 ? 401 : 403).removeHeader('content-type')
        .header('x-keygate-status', statusCode).header('x-keygate-problem', oneLine(payload))
      done(null, '') // nginx closes the connection rather than read a body that it will not use
    },
    handler: async (request, reply) => {
      const headers = identityHeaders(request.principal)
      if (headers.some(text => text.length > longestField)) return await reply.refuse('scopes_too_long')
      for (let i = 0; i < headers.length; i += 2) reply.header(headers[i] as string, headers[i + 1])
      return await reply.code(204).send()
    }
  })
}, { name: 'authorize', dependencies: ['admission'] })

function headerOf ({ headers }: FastifyRequest, name: string): string | undefined {
  const value = headers[name]
  return typeof value === 'string' ? value : undefined
}

/** A problem as a field's value: JSON of one line already, its other characters escaped (RFC 9110 section 5.5). */
function oneLine (payload: unknown): string {
  const text = Buffer.isBuffer(payload) ? payload.toString('utf8') : String(payload ?? '')
  return text.replace(/[^\x20-\x7e]/g, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
