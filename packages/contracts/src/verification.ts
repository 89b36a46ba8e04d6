import { Type, type Static } from 'typebox'
import { count, freeText, machineText, moment, uuid } from './bounds.ts'
import { Logging } from './logging.ts'
import { PolicySchema } from './policy.ts'

const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()])

/** What the gateway asks: which key has the secret with this digest? The secret itself never crosses the wire. */
export const VerificationRequest = Type.Object({
  digest: Type.String({ pattern: '^[A-Za-z0-9_-]{43}$', maxLength: 43, description: 'base64url of the SHA-256 of the secret' }),
  projectId: Type.Optional(uuid({ description: 'given: a key of another project is unknown' }))
}, { additionalProperties: false })
export type VerificationRequest = Static<typeof VerificationRequest>

/** Everything that admission depends on, from ONE statement of PostgreSQL (design.md section 5). */
export const KeyRecord = Type.Object({
  projectId: uuid(),
  keyId: machineText(100),
  keyVersion: count(1),
  projectVersion: count(1),
  status: Type.Union([Type.Literal('active'), Type.Literal('disabled'), Type.Literal('revoked')]),
  scopes: Type.Array(freeText(1000), { maxItems: 100_000 }),
  allowedForAll: Type.Boolean(),
  allowedHosts: nullable(Type.Array(machineText(100, { description: 'address or CIDR, canonical' }), { maxItems: 10_000 })),
  notAfterMs: nullable(moment({ description: 'the key\'s expiry, Unix milliseconds rounded down' })),
  policies: nullable(Type.Object({
    owner: Type.Union([Type.Literal('key'), Type.Literal('project')]),
    list: Type.Array(PolicySchema, { maxItems: 1000 })
  }, { description: 'the key\'s own policies, else the project\'s; null: the API\'s apply' })),
  logging: Logging,
  secretId: machineText(100),
  secretState: Type.Union([Type.Literal('current'), Type.Literal('retiring')]),
  secretNotAfterMs: nullable(moment({ description: 'end of a rotation\'s grace, Unix milliseconds rounded down' })),
  secretRetiredAtMs: Type.Optional(nullable(moment({ description: 'when the rotation that retires this secret happened, Unix milliseconds; absent: not told' })))
})
export type KeyRecord = Static<typeof KeyRecord>

/** `found` also for disabled, revoked and expired keys: the gateway judges. `cursor` is where polling of changes starts. */
export const VerificationOutcome = Type.Union([
  Type.Object({ outcome: Type.Literal('found'), record: KeyRecord, cursor: machineText(100) }),
  Type.Object({ outcome: Type.Literal('unknown'), cursor: machineText(100) })
])
export type VerificationOutcome = Static<typeof VerificationOutcome>

/**
 * As a gateway takes it: `logging` may have a shape that it does not know yet. What is written down about a request never decides
 * whether it is admitted.
 */
export const AcceptedOutcome = Type.Union([
  Type.Object({ ...VerificationOutcome.anyOf[0].properties, record: Type.Object({ ...KeyRecord.properties, logging: Type.Unknown() }) }),
  VerificationOutcome.anyOf[1]
])
