import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import fp from 'fastify-plugin'
import type { FastifyContextConfig, FastifySchema } from 'fastify'
import { Key, KeyWithSecret, KeyWithUsage, ListedKey } from '../keys/schemas.ts'
import { Me, Member, Operator } from '../people/schemas.ts'
import { Project } from '../projects/schemas.ts'
import { Role } from '../roles/schemas.ts'
import { Problem } from '../schemas.ts'
import { ServiceToken } from '../service-tokens/schemas.ts'
import { completeDocument, type OpenApiDocument } from './complete-document.ts'
import { documentPagePolicy } from './security-headers.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Statuses of problems that the route can answer beside those that every route can. */
    problems?: number[]
  }
}

const document = {
  openapi: '3.1.0' as const,
  info: {
    title: 'Keygate key-service',
    version: '1',
    description: 'Projects, their keys, and what the gateways ask about them. Errors are problems (RFC 9457); programs compare their `code`.',
    contact: { name: 'Whoever runs this installation' },
    license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' }
  },
  servers: [{ url: '/', description: 'this service, in production as on a local machine', 'x-internal': false }],
  tags: [
    { name: 'audit', description: 'Who did what' },
    { name: 'catalogue', description: 'The APIs behind the gateway, and their scopes' },
    { name: 'health', description: 'What the service works with' },
    { name: 'keys', description: 'The life of a key' },
    { name: 'members', description: 'Who belongs to a project' },
    { name: 'operators', description: 'Who runs the installation' },
    { name: 'people', description: 'Signing in and out' },
    { name: 'projects', description: 'What owns keys' },
    { name: 'request-log', description: 'Requests of what was switched to be logged, one by one' },
    { name: 'roles', description: 'Named sets of scopes that keys can be bound to' },
    { name: 'service-tokens', description: 'How programs call this service' },
    { name: 'usage', description: 'What became of requests, in numbers' },
    { name: 'verification', description: 'For gateways' }
  ],
  components: {
    securitySchemes: {
      serviceToken: { type: 'http' as const, scheme: 'bearer', description: 'A service token, `kgs_...`' },
      session: { type: 'apiKey' as const, in: 'cookie' as const, name: '__Host-keygate_session', description: 'What signing in begins, for pages of this service; on a machine itself, over http, it is `keygate_session`' }
    }
  }
}

/** The OpenAPI document, made from the routes' own schemas, at `/openapi.json` and as a page at `/docs`. */
export const apiDocument = fp(async app => {
  for (const schema of [Problem, Key, KeyWithSecret, KeyWithUsage, ListedKey, Project, Me, Member, Operator, Role, ServiceToken]) app.addSchema(schema)
  const configs = new Map<string, FastifyContextConfig>()
  await app.register(swagger, {
    openapi: document,
    refResolver: { buildLocalReference: (json, _base, _fragment, i) => typeof json['$id'] === 'string' ? json['$id'] : `def-${i}` },
    transform: ({ schema, url, route }) => {
      const { operationId } = schema as { operationId?: string }
      if (operationId !== undefined && route.config !== undefined) configs.set(operationId, route.config)
      const { body, ...others } = schema as FastifySchema
      // What a DELETE takes is nothing (strict-requests.ts), and OpenAPI has no word for that.
      return { schema: route.method === 'DELETE' ? others : schema, url }
    },
    // What holds for every route is added to the document alone. In the routes' schemas each problem would cost a serializer at start,
    // and none would be used: problems are written in one place, as text.
    transformObject: made => completeDocument((made as unknown as { openapiObject: OpenApiDocument }).openapiObject, configs) as object
  })
  await app.register(swaggerUi, { routePrefix: '/docs', staticCSP: documentPagePolicy, uiConfig: { persistAuthorization: false }, logLevel: 'warn' })
  app.get('/openapi.json', { schema: { hide: true } as FastifySchema }, async () => app.swagger())
}, { name: 'api-document' })
