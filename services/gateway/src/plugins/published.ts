import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { isHeld } from '../docs/etag.ts'
import { contentSecurityPolicy } from '../docs/page.ts'
import type { LiveCatalogue } from '../routing/live-catalogue.ts'
import { matchOf } from './routes.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Answers with an API's document, or the page made of it. */
    publish: (request: FastifyRequest, reply: FastifyReply) => void
  }
}

/** To be asked for again each time: what is enforced can change at any moment. */
const headers = { 'cache-control': 'no-cache', 'x-content-type-options': 'nosniff' }
const headersOf = {
  document: { ...headers, 'content-type': 'application/json; charset=utf-8' },
  docs: { ...headers, 'content-type': 'text/html; charset=utf-8', 'content-security-policy': contentSecurityPolicy, 'referrer-policy': 'no-referrer' }
}

/** What the gateway tells of each API itself, from the table that it enforces. */
export const published = fp<{ live: LiveCatalogue }>(async (app, { live }) => {
  app.decorate('publish', (request: FastifyRequest, reply: FastifyReply): void => {
    const { kind, api } = matchOf(request).target
    const name = kind === 'docs' ? 'docs' : 'document'
    const { body, etag } = live.textsOf(api)[name]
    reply.headers(headersOf[name]).header('etag', etag)
    if (isHeld(etag, request.headers['if-none-match'])) reply.removeHeader('content-type').code(304).send()
    else reply.send(body)
  })
}, { name: 'published' })
