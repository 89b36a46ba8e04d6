import { Type, type Static } from 'typebox'
import { PolicyList, PolicyListInput } from '../policies/schemas.ts'
import { NextCursor, Timestamp, Uuid, Version, ascii, effect, integer, nullable, oneOf, page, text } from '../schemas.ts'

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
  logging: { all: null, scopes: { submissions: '2027-01-31T23:59:59.999Z' } },
  sealed: false,
  rotation: { until: '2026-11-21T10:00:00.000Z', startedAt: '2026-11-20T10:00:00.000Z', oldSecretHint: 'kg_…7Qe0', oldSecretLastUsedAt: '2026-11-20T11:42:00.000Z' },
  version: 3,
  effective: 'everywhere',
  effectiveAt: '2026-11-20T10:00:00.000Z',
  createdAt: '2026-11-19T09:30:00.000Z',
  createdBy: 'local-operator',
  lastUsedAt: '2026-11-20T11:45:00.000Z',
  endpoints: [{ api: 'forms', url: 'https://api.example.org/app/api/v1' }]
}

const hourly = [...Array<number>(20).fill(0), 12, 310, 42, 7]

/** More scopes than any catalogue has. */
const maxScopes = 1000
const scope = text(200)
/** Judged by `parseName`, which says more than a pattern can; here is room for the spaces that it trims. */
const name = text(400, { description: '1 to 100 characters after trimming, no control characters' })
const description = nullable(text(400))
const moment = ascii(40, { description: 'a date-time; a bare date means the end of that day, UTC' })
const until = ascii(40, { description: 'a date-time, a bare date (the end of that day, UTC), or `forever`' })
const role = nullable(text(400, { description: 'name of a role of the project, whose scopes count beside the key\'s own' }))
const loggedScopes = <S extends object>(value: S, description: string) =>
  ({ type: 'object', additionalProperties: value, propertyNames: { maxLength: 200 }, maxProperties: maxScopes, description })

const Logging = Type.Object({
  all: nullable(until),
  scopes: Type.Unsafe<Record<string, string>>(loggedScopes(until, 'until when, per scope; a scope that is absent is not logged'))
}, { description: 'whose requests are written down, and until when; what has ended is not shown' })

const Rotation = Type.Object({
  until: Timestamp,
  startedAt: Timestamp,
  oldSecretHint: text(40),
  oldSecretLastUsedAt: nullable(Timestamp)
}, { description: 'while the old secret of a rotation still works' })

export const Key = Type.Object({
  id: Type.String({ pattern: '^key_[0-9A-Za-z]{22}$', maxLength: 26 }),
  projectId: Uuid,
  name: text(100),
  description,
  status: oneOf(['active', 'disabled', 'expired', 'revoked']),
  hint: text(40, { description: 'what may be shown of the secret' }),
  allowedForAll: Type.Boolean({ description: 'every scope except opt-in ones; `scopes` is kept for when this ends' }),
  scopes: Type.Array(scope, { maxItems: maxScopes, description: 'its own; its role may have more' }),
  role,
  allowedHosts: nullable(Type.Array(ascii(50), { maxItems: 100 })),
  expiresAt: nullable(Timestamp),
  policies: PolicyList,
  logging: Logging,
  sealed: Type.Boolean({ description: 'the secret cannot be revealed again' }),
  rotation: nullable(Rotation),
  version: Version,
  ...effect,
  createdAt: Timestamp,
  createdBy: text(400),
  lastUsedAt: nullable(Type.String({ ...Timestamp, description: 'when a request was last admitted, in steps of a minute' })),
  endpoints: Type.Array(Type.Object({ api: text(200), url: nullable(text(2000)) }), { maxItems: 1000 })
}, { $id: 'Key', examples: [example] })
export type Key = Static<typeof Key>

const most = Number.MAX_SAFE_INTEGER
const requests24h = Type.Array(integer(0, most), { minItems: 24, maxItems: 24, description: 'requests in each hour (UTC) of the last 24, whatever became of them; the last one is the hour that runs' })

const SinceRevoked = Type.Object({
  admitted: integer(0, most, { description: '0 exactly if no request was admitted since; requests from before in the same minute are left out' }),
  refused: integer(0, most, { description: 'by the minute: refusals from before in the minute of the revocation are among them' }),
  callers: integer(0, most, { description: 'who came since then, of the last 7 days; at most 50 are known' })
}, { description: 'since `effectiveAt`, of a revoked key; null: it is not revoked, or that is not effective everywhere yet' })
export type SinceRevoked = Static<typeof SinceRevoked>

/** In lists. */
export const ListedKey = Type.Object({ ...Key.properties, requests24h }, { $id: 'ListedKey', examples: [{ ...example, requests24h: hourly }] })
export type ListedKey = Static<typeof ListedKey>

/** Asked for by itself. What changes a key answers without what was counted: nobody counts for it in the middle of a change. */
export const KeyWithUsage = Type.Object({ ...Key.properties, requests24h, sinceRevoked: nullable(SinceRevoked) }, { $id: 'KeyWithUsage', examples: [{ ...example, requests24h: hourly, sinceRevoked: null }] })
export type KeyWithUsage = Static<typeof KeyWithUsage>

const secretExample = 'kg_0123456789ABCDEFGHIJKL_3S5D6s'
export const KeyWithSecret = Type.Object({
  ...Key.properties,
  secret: Type.Optional(text(200, { description: 'the new secret; absent for an imported one, which its sender has', examples: [secretExample] })),
  secretOmitted: Type.Optional(Type.Boolean({ description: 'true: the first answer had a secret, and it is no longer kept for this repetition' }))
}, { $id: 'KeyWithSecret', examples: [{ ...example, rotation: null, secret: secretExample }] })

export const KeyList = Type.Object({
  data: Type.Array(Type.Unsafe<ListedKey>({ $ref: 'ListedKey#' }), { maxItems: 100 }),
  nextCursor: NextCursor
})

const settings = {
  name,
  description: nullable(text(400, { description: 'at most 400 characters' })),
  scopes: Type.Array(scope, { maxItems: maxScopes, description: 'names from the catalogue' }),
  allowedForAll: Type.Boolean({ description: 'every scope except opt-in ones' }),
  role,
  expiresAt: nullable(moment),
  allowedHosts: nullable(Type.Array(ascii(50), { minItems: 1, maxItems: 100, description: 'IPv4, IPv6 or CIDR; null: any host' })),
  policies: PolicyListInput,
  logging: Type.Object({
    all: Type.Optional(nullable(until)),
    scopes: Type.Optional(Type.Unsafe<Record<string, string | null>>(loggedScopes(nullable(until), 'a scope that is absent stays as it is; null ends it')))
  }, { additionalProperties: false, description: 'merged into what is there; null ends it. Only what the key may call can be logged' }),
  sealed: Type.Boolean({ description: 'true: the secret can never be revealed again. It cannot be undone' })
}

const imported = Type.Object({
  secret: Type.Optional(text(200, { description: 'in one of the forms that this installation takes over' })),
  digest: Type.Optional(text(43, { description: 'base64url of the secret\'s SHA-256; the key is sealed then' }))
}, { additionalProperties: false, minProperties: 1, maxProperties: 1, description: 'take over a secret that another system has issued, instead of making one' })

const { name: required, ...others } = settings
export const CreateKey = Type.Object({
  name: required,
  ...Type.Partial(Type.Object(others)).properties,
  active: Type.Optional(Type.Boolean({ default: true })),
  import: Type.Optional(imported)
}, { additionalProperties: false, examples: [{ name: 'Accounting', scopes: ['submissions'], expiresAt: '2027-01-31' }] })
export type CreateKey = Static<typeof CreateKey>

/** RFC 7396: a field that is absent stays as it is. */
export const EditKey = Type.Object(Type.Partial(Type.Object(settings)).properties, {
  additionalProperties: false, minProperties: 1, examples: [{ description: 'monthly export', allowedHosts: ['192.0.2.0/24'] }]
})
export type EditKey = Static<typeof EditKey>

const longestGrace = 366 * 24 * 3600
export const RotateKey = Type.Object({
  gracePeriodSeconds: integer(0, longestGrace, { default: 0, description: 'how long the old secret works beside the new one' })
}, { additionalProperties: false, examples: [{ gracePeriodSeconds: 3600 }] })

export const ExtendRotation = Type.Object({
  gracePeriodSeconds: integer(1, longestGrace, { description: 'how long from now on the old secret still works; `rotate/finish` ends it at once' })
}, { additionalProperties: false, examples: [{ gracePeriodSeconds: 86_400 }] })

export const RevokeKey = Type.Object({ reason: Type.Optional(text(400, { description: 'goes into the audit trail' })) }, {
  additionalProperties: false, examples: [{ reason: 'The partner has left.' }]
})

export const RevealKey = Type.Object({ reason: text(200, { description: 'at least 3 characters; goes into the audit trail' }) }, {
  additionalProperties: false, examples: [{ reason: 'The integration server was set up anew.' }]
})

export const RevealedSecret = Type.Object({ secret: text(200) }, { examples: [{ secret: secretExample }] })

export const keySorts = ['name', '-name', 'createdAt', '-createdAt', 'expiresAt', '-expiresAt', 'lastUsedAt', '-lastUsedAt'] as const

export const attentions = ['old-secret-in-use', 'expiring', 'at-limit', 'unused'] as const
export type Attention = typeof attentions[number]
const attention = oneOf([...attentions], {
  description: 'active keys of which: the old secret of a rotation was used in the last 24 hours · the expiry is within 7 days · a request was limited in the last hour · nothing was admitted in 90 days, and they are older'
})

export const AttentionCounts = Type.Object({
  data: Type.Array(Type.Object({ attention, keys: integer(0, most) }), { minItems: attentions.length, maxItems: attentions.length, description: 'how many keys each filter finds' })
}, { examples: [{ data: [{ attention: 'old-secret-in-use', keys: 1 }, { attention: 'expiring', keys: 3 }, { attention: 'at-limit', keys: 0 }, { attention: 'unused', keys: 12 }] }] })
export type AttentionCounts = Static<typeof AttentionCounts>

export const ListKeys = Type.Object({
  search: Type.Optional(text(100, { description: 'three characters or more: anywhere in name or description; fewer: the beginning of the name. In any case' })),
  status: Type.Optional(oneOf(['active', 'disabled', 'expired', 'revoked'], { description: 'only keys with this status' })),
  scope: Type.Optional(text(200, { description: 'keys that may call it: by their own scopes, their role, or because they are allowed for all' })),
  role: Type.Optional(text(100, { description: 'keys bound to the role of this name' })),
  attention: Type.Optional(attention),
  sort: oneOf([...keySorts], { default: '-createdAt', description: 'what has no value comes last, in both directions' }),
  ...page
}, { additionalProperties: false })
export type ListKeys = Static<typeof ListKeys>
