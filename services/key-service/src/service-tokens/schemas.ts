import { Type, type Static } from 'typebox'
import { permissions } from '../access/permissions.ts'
import { NextCursor, Timestamp, Uuid, ascii, nullable, oneOf, page, text } from '../schemas.ts'

const Permission = oneOf([...permissions])

export const ServiceToken = Type.Object({
  id: ascii(26),
  name: text(100),
  permissions: Type.Array(Permission, { maxItems: permissions.length }),
  projectId: nullable({ ...Uuid, description: 'the one project that it sees; null: all' }),
  hint: text(100),
  fromFile: Type.Boolean({ description: 'it stands in KEYGATE_SERVICE_TOKENS_FILE, and ends when it no longer does' }),
  expiresAt: nullable(Timestamp),
  createdAt: Timestamp,
  createdBy: text(100)
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

export const ServiceTokenWithToken = Type.Object({ ...ServiceToken.properties, token: ascii(100, { description: 'shown this once' }) })

export const ServiceTokenList = Type.Object({ data: Type.Array(Type.Unsafe<ServiceToken>({ $ref: 'ServiceToken#' }), { maxItems: 100 }), nextCursor: NextCursor })

export const CreateServiceToken = Type.Object({
  name: text(400, { description: '1 to 100 characters after trimming, no control characters' }),
  permissions: Type.Array(Permission, { minItems: 1, maxItems: permissions.length, uniqueItems: true, description: 'at most what the maker may do there' }),
  projectId: Type.Optional(nullable({ ...Uuid, description: 'the one project that it sees; owners of projects must name one of theirs' })),
  expiresAt: Type.Optional(nullable(ascii(40, { description: 'a date-time with its offset, or a date, which means its end in UTC' })))
}, { additionalProperties: false, examples: [{ name: 'deploy', permissions: ['projects:read', 'keys:read'], projectId: '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10' }] })
export type CreateServiceToken = Static<typeof CreateServiceToken>

export const ListServiceTokens = Type.Object(page, { additionalProperties: false })
export type ListServiceTokens = Static<typeof ListServiceTokens>

export const ServiceTokenParams = Type.Object({ tokenId: ascii(26, { description: 'id of the service token, `tok_...`' }) })
