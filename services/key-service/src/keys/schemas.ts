import { Type, type Static } from 'typebox'
import { PolicyList, PolicyListInput } from '../policies/schemas.ts'
import { Timestamp, effect, nullable, oneOf } from '../schemas.ts'

const projectId = '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10'

const example = {
  id: 'key_9fK2mQ4xT7aB1cD3eF5gH6',
  projectId,
  name: 'Accounting',
  description: null,
  status: 'active',
  hint: 'kg_…a1Z9',
  allowedForAll: false,
  scopes: ['submissions'],
  role: null,
  allowedHosts: null,
  expiresAt: null,
  policies: null,
  logging: { all: null, scopes: {} },
  sealed: true,
  version: 3,
  effective: 'everywhere',
  effectiveAt: '2026-11-20T10:00:00.000Z',
  createdAt: '2026-11-19T09:30:00.000Z',
  createdBy: 'local-operator',
  lastUsedAt: null,
  endpoints: [{ api: 'forms', url: 'https://api.example.org/app/api/v1' }]
}

export const Key = Type.Object({
  id: Type.String(),
  projectId: Type.String({ format: 'uuid' }),
  name: Type.String(),
  description: nullable(Type.String()),
  status: oneOf(['active', 'disabled', 'expired', 'revoked']),
  hint: Type.String({ description: 'what may be shown of the secret' }),
  allowedForAll: Type.Boolean({ description: 'every scope except opt-in ones; `scopes` is kept for when this ends' }),
  scopes: Type.Array(Type.String()),
  role: nullable(Type.String()),
  allowedHosts: nullable(Type.Array(Type.String())),
  expiresAt: nullable(Timestamp),
  policies: PolicyList,
  logging: Type.Object({ all: nullable(Timestamp), scopes: Type.Record(Type.String(), nullable(Timestamp)) }),
  sealed: Type.Boolean({ description: 'the secret cannot be revealed again' }),
  version: Type.Integer(),
  ...effect,
  createdAt: Timestamp,
  createdBy: Type.String(),
  lastUsedAt: nullable(Timestamp),
  endpoints: Type.Array(Type.Object({ api: Type.String(), url: nullable(Type.String()) }))
}, { $id: 'Key', examples: [example] })
export type Key = Static<typeof Key>

const secret = Type.String({ description: 'shown this once', examples: ['kg_0123456789ABCDEFGHIJKL_3S5D6s'] })
export const KeyWithSecret = Type.Object({ ...Key.properties, secret }, {
  $id: 'KeyWithSecret',
  examples: [{ ...example, secret: 'kg_0123456789ABCDEFGHIJKL_3S5D6s' }]
})

export const KeyList = Type.Object({ data: Type.Array(Type.Unsafe<Key>({ $ref: 'Key#' })), nextCursor: nullable(Type.String()) })

const settings = {
  name: Type.String({ description: '1 to 100 characters after trimming, no control characters' }),
  description: nullable(Type.String({ description: 'at most 400 characters' })),
  scopes: Type.Array(Type.String(), { maxItems: 1000, description: 'names from the catalogue' }),
  allowedForAll: Type.Boolean({ description: 'every scope except opt-in ones' }),
  expiresAt: nullable(Type.String({ description: 'a date-time; a bare date means the end of that day, UTC' })),
  allowedHosts: nullable(Type.Array(Type.String(), { minItems: 1, maxItems: 100, description: 'IPv4, IPv6 or CIDR; null: any host' })),
  policies: PolicyListInput
}

const { name, ...others } = settings
export const CreateKey = Type.Object({
  name,
  ...Type.Partial(Type.Object(others)).properties,
  active: Type.Optional(Type.Boolean({ default: true }))
}, { additionalProperties: false, examples: [{ name: 'Accounting', scopes: ['submissions'], expiresAt: '2027-01-31' }] })
export type CreateKey = Static<typeof CreateKey>

/** RFC 7396: a field that is absent stays as it is. */
export const EditKey = Type.Object(Type.Partial(Type.Object(settings)).properties, {
  additionalProperties: false, minProperties: 1, examples: [{ description: 'monthly export', allowedHosts: ['192.0.2.0/24'] }]
})
export type EditKey = Static<typeof EditKey>

export const RotateKey = Type.Object({
  gracePeriodSeconds: Type.Integer({ minimum: 0, maximum: 366 * 24 * 3600, default: 0, description: 'how long the old secret works beside the new one' })
}, { additionalProperties: false, examples: [{ gracePeriodSeconds: 3600 }] })

export const RevokeKey = Type.Object({ reason: Type.Optional(Type.String({ description: 'at most 400 characters; goes into the audit trail' })) }, { additionalProperties: false })

export const ListKeys = Type.Object({
  search: Type.Optional(Type.String({ maxLength: 100, description: 'three characters or more: anywhere in name or description; fewer: the beginning of the name' })),
  status: Type.Optional(oneOf(['active', 'disabled', 'expired', 'revoked'])),
  sort: oneOf(['createdAt', '-createdAt', 'name', '-name'], { default: '-createdAt' }),
  cursor: Type.Optional(Type.String({ maxLength: 1000 })),
  limit: Type.Integer({ minimum: 1, maximum: 100, default: 50 })
}, { additionalProperties: false })
export type ListKeys = Static<typeof ListKeys>
