import { Type, type Static } from 'typebox'
import { permissions } from '../access/permissions.ts'
import { Timestamp, nullable, oneOf } from '../schemas.ts'

const Permission = oneOf([...permissions])

export const ServiceToken = Type.Object({
  id: Type.String(),
  name: Type.String(),
  permissions: Type.Array(Permission),
  projectId: nullable(Type.String({ format: 'uuid', description: 'the one project that it sees; null: all' })),
  hint: Type.String(),
  fromFile: Type.Boolean({ description: 'it stands in KEYGATE_SERVICE_TOKENS_FILE, and ends when it no longer does' }),
  expiresAt: nullable(Timestamp),
  createdAt: Timestamp,
  createdBy: Type.String()
}, {
  $id: 'ServiceToken',
  examples: [{
    id: 'tok_4VfTq2mYx8LrB6cPz1DsWk',
    name: 'deploy',
    permissions: ['projects:read', 'keys:read'],
    projectId: '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10',
    hint: 'kgs_…q7Lm',
    fromFile: false,
    expiresAt: null,
    createdAt: '2026-11-20T10:00:00.000Z',
    createdBy: 'Ada'
  }]
})
export type ServiceToken = Static<typeof ServiceToken>

export const ServiceTokenWithToken = Type.Object({ ...ServiceToken.properties, token: Type.String({ description: 'shown this once' }) })

export const ServiceTokenList = Type.Object({ data: Type.Array(Type.Unsafe<ServiceToken>({ $ref: 'ServiceToken#' })), nextCursor: nullable(Type.String()) })

export const CreateServiceToken = Type.Object({
  name: Type.String({ description: '1 to 100 characters after trimming, no control characters' }),
  permissions: Type.Array(Permission, { minItems: 1, uniqueItems: true, description: 'at most what the maker may do there' }),
  projectId: Type.Optional(nullable(Type.String({ format: 'uuid', description: 'the one project that it sees; owners of projects must name one of theirs' }))),
  expiresAt: Type.Optional(nullable(Type.String({ description: 'a date-time with its offset, or a date, which means its end in UTC' })))
}, { additionalProperties: false, examples: [{ name: 'deploy', permissions: ['projects:read', 'keys:read'], projectId: '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10' }] })
export type CreateServiceToken = Static<typeof CreateServiceToken>

export const ListServiceTokens = Type.Object({
  cursor: Type.Optional(Type.String({ maxLength: 1000 })),
  limit: Type.Integer({ minimum: 1, maximum: 100, default: 50 })
}, { additionalProperties: false })
export type ListServiceTokens = Static<typeof ListServiceTokens>

export const ServiceTokenParams = Type.Object({ tokenId: Type.String({ description: 'id of the service token, `tok_...`' }) })
