import basicAuth from '@fastify/basic-auth'
import { digestSecret } from '@keygate/api-key'
import type { Api, Carrier } from '@keygate/api-catalog'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { carriersOf } from '../admission/carriers.ts'
import { canonicalProjectId, collapseSpaces, findCarrier, isPlainBasic, namesKeyInQuery, type Credentials } from '../admission/credentials.ts'
import type { OurSecrets } from '../admission/our-secrets.ts'
import type { RefusalCode } from '../errors.ts'
import { PassedFields } from '../proxy/passed-fields.ts'
import type { LiveCatalogue } from '../routing/live-catalogue.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** What the request presents, once step 2 has read it. */
    credentials: Credentials | null
    /** The SHA-256 of the secret, as key-service knows it. */
    secretDigest: string
  }
  interface FastifyInstance {
    /** Whether the request's path or query has one of our secrets in it. */
    hasSecretInTarget: (request: FastifyRequest) => boolean
    /** Which of a client's fields go on to an API's upstream. */
    passedFields: (api: Api) => PassedFields
    /** `null`: the request has `credentials` and `secretDigest` now. Else why not. */
    readCredentials: (request: FastifyRequest, reply: FastifyReply, carriers: Carrier[]) => RefusalCode | null
  }
}

export interface CredentialsOptions { secrets: OurSecrets, live: LiveCatalogue }

/** Step 2: finds and reads the credentials; what is malformed is refused here, before any I/O. */
export const credentials = fp<CredentialsOptions>(async (app, { secrets, live }) => {
  await app.register(basicAuth, {
    utf8: true,
    // With a callback and not a promise, so that all of it is over when `basicAuth` returns: a turn of the microtasks costs more.
    validate: (username, password, request, _reply, done) => {
      request.credentials = { carrier: basic, secret: password, projectId: username }
      done()
    }
  })
  app.decorateRequest('credentials', null)
  app.decorateRequest('secretDigest', '')

  app.decorate('hasSecretInTarget', (request: FastifyRequest): boolean => secrets.isInTarget(request.match?.url ?? request.url))

  const passedFields = new WeakMap<Api, PassedFields>()
  app.decorate('passedFields', (api: Api): PassedFields => {
    let fields = passedFields.get(api)
    if (fields === undefined) passedFields.set(api, fields = new PassedFields(api, carriersOf(live.table.catalogue), secrets))
    return fields
  })

  app.decorate('readCredentials', (request: FastifyRequest, reply: FastifyReply, carriers: Carrier[]): RefusalCode | null => {
    const carried = findCarrier(request.raw.rawHeaders, carriers)
    if (carried.kind === 'ambiguous') return 'ambiguous_credentials'
    if (carried.kind === 'none') return namesKeyInQuery(request.match?.url ?? request.url, carriers) ? 'key_in_query' : 'missing_credentials'
    if (carried.kind === 'header') {
      request.credentials = { carrier: { kind: 'header', name: carried.name }, secret: carried.secret, projectId: null }
    } else {
      request.headers.authorization = collapseSpaces(carried.authorization)
      if (!isPlainBasic(request.headers.authorization)) return 'invalid_credentials'
      app.basicAuth(request, reply, nothing) // what it finds malformed never gets to `validate`
      const projectId = canonicalProjectId(request.credentials?.projectId ?? '')
      if (request.credentials === null || projectId === null) return 'invalid_credentials'
      request.credentials.projectId = projectId
    }
    if (!secrets.mayBe(request.credentials.secret)) return 'invalid_credentials'
    request.secretDigest = digestSecret(request.credentials.secret)
    return null
  })
}, { name: 'credentials', dependencies: ['refusals'] })

const basic: Carrier = { kind: 'basic' }

function nothing (): void {}
