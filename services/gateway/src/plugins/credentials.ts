import basicAuth from '@fastify/basic-auth'
import { digestSecret, type ImportForm } from '@keygate/api-key'
import type { Api } from '@keygate/api-catalog'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { canonicalProjectId, collapseSpaces, findCarrier, mayBeSecret, type Credentials } from '../admission/credentials.ts'
import type { RefusalCode } from '../errors.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** What the request presents, once step 2 has read it. */
    credentials: Credentials | null
    /** The SHA-256 of the secret, as key-service knows it. */
    secretDigest: string
  }
  interface FastifyInstance {
    readCredentials: (request: FastifyRequest, reply: FastifyReply, api: Api) => Promise<RefusalCode | null>
  }
}

/** Names under which people put keys into a query, where they end in logs. */
const keyLikeQuery = /(?:^|[?&])(?:api[-_]?key|x-api-key|access[-_]?key)=/i

export interface CredentialsOptions {
  realm: string
  /** What issued secrets begin with. */
  prefix: string
  /** Forms of other systems' secrets that this installation takes over. */
  importForms: readonly ImportForm[]
}

/** Step 2: finds and reads the credentials; what is malformed is refused here, before any I/O. */
export const credentials = fp<CredentialsOptions>(async (app, { realm, prefix, importForms }) => {
  await app.register(basicAuth, {
    authenticate: { realm },
    utf8: true,
    // Returning anything from here would count as a failure: the result goes on the request.
    validate: async (username, password, request) => {
      request.credentials = { carrier: { kind: 'basic' }, secret: password, projectId: username }
    }
  })
  app.decorateRequest('credentials', null)
  app.decorateRequest('secretDigest', '')

  app.decorate('readCredentials', async (request: FastifyRequest, reply: FastifyReply, api: Api): Promise<RefusalCode | null> => {
    const carried = findCarrier(request.raw.rawHeaders, api.carriers)
    if (carried.kind === 'ambiguous') return 'ambiguous_credentials'
    if (carried.kind === 'none') return keyLikeQuery.test(request.url) ? 'key_in_query' : 'missing_credentials'
    if (carried.kind === 'header') {
      request.credentials = { carrier: { kind: 'header', name: carried.name }, secret: carried.secret, projectId: null }
    } else {
      request.headers.authorization = collapseSpaces(carried.authorization)
      const isMalformed = await new Promise<boolean>(resolve => { app.basicAuth(request, reply, error => { resolve(error !== undefined && error !== null) }) })
      const projectId = isMalformed ? null : canonicalProjectId(request.credentials?.projectId ?? '')
      if (request.credentials === null || projectId === null) return 'invalid_credentials'
      request.credentials.projectId = projectId
    }
    if (!mayBeSecret(request.credentials.secret, { prefix, importForms })) return 'invalid_credentials'
    request.secretDigest = digestSecret(request.credentials.secret)
    return null
  })
}, { name: 'credentials', dependencies: ['refusals'] })
