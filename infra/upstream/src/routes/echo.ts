import { setTimeout as pause } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type FormParams, formParams } from '../schemas.ts'

interface EchoQuery { status: number, delayMs: number, retryAfter?: number, ownRateLimit: boolean }

const query = {
  type: 'object',
  properties: {
    status: { type: 'integer', minimum: 200, maximum: 599, default: 200 },
    delayMs: { type: 'integer', minimum: 0, maximum: 60_000, default: 0 },
    retryAfter: { type: 'integer', minimum: 0, maximum: 3600 },
    ownRateLimit: { type: 'boolean', default: false }
  }
}

/** Shows what reached this API, and plays a slow, failing or limiting one. No real API should have this. */
export function echoRoutes (app: FastifyInstance): void {
  app.get<{ Params: FormParams, Querystring: EchoQuery }>('/forms/:formId/echo',
    { config: { operationId: 'echo' }, schema: { params: formParams, querystring: query } },
    async (request, reply) => {
      const { status, delayMs, retryAfter, ownRateLimit } = request.query
      if (delayMs > 0) await pauseUnlessGone(delayMs, reply)
      if (retryAfter !== undefined) reply.header('retry-after', retryAfter)
      if (ownRateLimit) reply.headers({ ratelimit: 'limit=1, remaining=0, reset=9', 'ratelimit-policy': '1;w=9' })
      return await reply.code(status).send(status === 204 || status === 304 ? undefined : received(request))
    })
}

function received (request: FastifyRequest): object {
  const [path, search] = request.raw.url?.split(/\?(.*)/s) ?? []
  return { method: request.method, path, query: search ?? '', headers: request.headers, rawHeaders: pairs(request.raw.rawHeaders) }
}

/** Name and value of each header line as it came, so that a header sent twice shows twice. */
function pairs (flat: string[]): string[][] {
  return flat.flatMap((name, index) => index % 2 === 0 ? [[name, flat[index + 1] ?? '']] : [])
}

/** Ends early when the client leaves: a drill with long pauses must not leave timers behind. */
async function pauseUnlessGone (delayMs: number, reply: FastifyReply): Promise<void> {
  const gone = new AbortController()
  const leave = (): void => { gone.abort() }
  reply.raw.once('close', leave)
  await pause(delayMs, undefined, { signal: gone.signal }).catch(() => {})
  reply.raw.off('close', leave)
}
