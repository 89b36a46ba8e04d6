import { Type, type Static } from 'typebox'
import { NextCursor, Timestamp, Uuid, ascii, integer, nullable, oneOf, page, patterned, text } from '../schemas.ts'

const whole = (minimum: number, description: string) => integer(minimum, Number.MAX_SAFE_INTEGER, { description })

export const AuditEvent = Type.Object({
  id: whole(1, 'goes up with time; its gaps mean nothing'),
  at: Timestamp,
  chain: nullable(ascii(36, { description: 'the project\'s id, or `installation`; null: written before there were chains' })),
  seq: nullable(whole(1, 'its number in the chain: from 1, without gaps')),
  hash: nullable(ascii(43, { description: 'over the event and the hash of the one before it' })),
  projectId: nullable(Uuid),
  keyId: nullable(text(100)),
  actor: Type.Object({
    type: oneOf(['token', 'person', 'host', 'nobody'], { description: '`host`: the command line of key-service; `nobody`: not known, as at a failed sign-in' }),
    id: text(400),
    name: text(400, { description: 'as it was then' })
  }),
  action: ascii(100, { description: 'what was done, such as `key.rotate`' }),
  requestId: ascii(64, { description: 'finds the request in the log' }),
  details: Type.Record(Type.String(), Type.Unknown())
}, {
  examples: [{
    id: 4711,
    at: '2026-11-20T10:00:00.000Z',
    chain: '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10',
    seq: 12,
    hash: 'q2mX1nY0m7cV0rV7bq7oT2o0H8m6d0l1m4m8X3JrV6E',
    projectId: '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10',
    keyId: 'key_0123456789ABCDEFGHIJKL',
    actor: { type: 'person', id: 'usr_0123456789ABCDEFGHIJKL', name: 'Maria' },
    action: 'key.reveal',
    requestId: '5b0e6a9c-9a43-4a39-8d1c-0d4a2f1f7b11',
    details: { reason: 'moved to a new server' }
  }]
})
export type AuditEvent = Static<typeof AuditEvent>

export const AuditEventList = Type.Object({ data: Type.Array(AuditEvent, { maxItems: 100 }), nextCursor: NextCursor })

const moment = (description: string) => Type.Optional(Type.String({ format: 'date-time', maxLength: 40, description }))

export const ListAuditEvents = Type.Object({
  action: Type.Optional(patterned('^[A-Za-z][A-Za-z.-]*$', 'must be an action such as key.rotate, or the beginning of one that ends with a dot', { maxLength: 100, description: 'one action, such as `key.rotate`; with a dot at its end all that begin so, such as `key.`' })),
  actorId: Type.Optional(text(200, { minLength: 1, description: 'id of a service token or a person' })),
  keyId: Type.Optional(patterned('^key_[0-9A-Za-z]{22}$', 'must be the id of a key: key_ and 22 letters or digits', { maxLength: 26, description: 'id of a key' })),
  from: moment('not before this moment'),
  until: moment('before this moment'),
  ...page
}, { additionalProperties: false })
export type ListAuditEvents = Static<typeof ListAuditEvents>
