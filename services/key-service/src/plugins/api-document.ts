import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import fp from 'fastify-plugin'
import type { FastifySchema } from 'fastify'
import { Key, KeyWithSecret } from '../keys/schemas.ts'
import { Project } from '../projects/schemas.ts'
import { Problem } from '../schemas.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Statuses of problems that the route can answer beside those that every route can. */
    problems?: number[]
  }
}

const info = {
  title: 'Keygate key-service',
  version: '1',
  description: 'Projects, their keys, and what the gateways ask about them. Errors are problems (RFC 9457); programs compare their `code`.'
}

const descriptions: Record<number, string> = {
  400: 'Not JSON, a wrong type, an unknown or a missing field',
  401: 'No valid service token',
  403: 'The token lacks the permission',
  404: 'No such project or key, or one of somebody else',
  409: 'The key\'s status does not allow it',
  410: 'The cursor is too old',
  413: 'The body is too large',
  415: 'The body is not JSON',
  422: 'Well-formed, but not acceptable',
  500: 'A fault of ours',
  503: 'A part of the service is away; try again'
}

/** The OpenAPI document, made from the routes' own schemas, at `/openapi.json` and as a page at `/docs`. */
export const apiDocument = fp(async app => {
  for (const schema of [Problem, Key, KeyWithSecret, Project]) app.addSchema(schema)
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info,
      servers: [{ url: '/', description: 'this service' }],
      tags: [
        { name: 'projects', description: 'What owns keys' },
        { name: 'keys', description: 'The life of a key' },
        { name: 'verification', description: 'For gateways' }
      ],
      components: { securitySchemes: { serviceToken: { type: 'http', scheme: 'bearer', description: 'A service token, `kgs_...`' } } },
      security: [{ serviceToken: [] }]
    },
    refResolver: { buildLocalReference: (json, _base, _fragment, i) => typeof json['$id'] === 'string' ? json['$id'] : `def-${i}` },
    // Problems are added to the document alone. In the routes' schemas each would cost a serializer at start, and none would be used:
    // problems are written in one place, as text.
    transform: ({ schema, url, route }) => {
      const { permission, problems = [] } = route.config ?? {}
      if (permission === undefined) return { schema, url }
      return { url, schema: documented(schema, permission, [...route.method === 'GET' ? [] : [413, 415], 400, 401, 403, ...problems, 500, 503]) }
    }
  })
  await app.register(swaggerUi, { routePrefix: '/docs', uiConfig: { persistAuthorization: false }, logLevel: 'warn' })
  app.get('/openapi.json', { schema: { hide: true } as FastifySchema }, async () => app.swagger())
}, { name: 'api-document' })

function documented (schema: FastifySchema, permission: string, statuses: number[]): FastifySchema {
  const problems = statuses.sort((a, b) => a - b).map(status => [status, {
    description: descriptions[status],
    content: { 'application/problem+json': { schema: { $ref: 'Problem#' } } }
  }])
  return {
    ...schema,
    description: `Needs the permission \`${permission}\`.`,
    response: { ...schema.response as object, ...Object.fromEntries(problems) }
  } as FastifySchema
}
