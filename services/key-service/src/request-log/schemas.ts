import { Type, type Static } from 'typebox'
import { Format } from '../download/schemas.ts'
import { NextCursor, Timestamp, Uuid, ascii, integer, nullable, oneOf, page, patterned, text } from '../schemas.ts'

const outcomes = ['admitted', 'limited', 'refused', 'upstream_error'] as const
const whole = (description: string) => integer(0, Number.MAX_SAFE_INTEGER, { description })

export const LoggedRequest = Type.Object({
  at: Timestamp,
  requestId: text(200),
  projectId: Uuid,
  keyId: ascii(100),
  secretId: ascii(100, { description: 'which of the key\'s secrets it came with' }),
  api: text(1000),
  operation: text(4000),
  method: ascii(20),
  scope: text(1000, { description: 'under which it was allowed; empty: the operation is in none' }),
  outcome: oneOf([...outcomes], { description: '`limited`: 429 of a key\'s limit; `refused`: 401 or 403 of a key that is known; `upstream_error`: admitted, and ended in a 5xx' }),
  code: nullable(ascii(100, { description: 'of the refusal; null: there was none' })),
  status: integer(100, 999),
  ms: whole('from the request\'s arrival to the end of the answer'),
  bytes: whole('of the upstream\'s body as it was passed on'),
  address: ascii(100, { description: 'the client\'s, or a hash of it' }),
  client: text(100, { description: 'the first product of the User-Agent; empty: none' }),
  replica: text(300, { description: 'the gateway that answered' })
}, {
  examples: [{
    at: '2026-11-20T10:00:00.123Z',
    requestId: '5b0e6a9c-9a43-4a39-8d1c-0d4a2f1f7b11',
    projectId: '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10',
    keyId: 'key_9fK2mQ4xT7aB1cD3eF5gH6',
    secretId: 'sec_0123456789ABCDEFGHIJKL',
    api: 'forms',
    operation: 'GET /forms/{formId}/submissions',
    method: 'GET',
    scope: 'submissions',
    outcome: 'admitted',
    code: null,
    status: 200,
    ms: 12,
    bytes: 4711,
    address: '192.0.2.7',
    client: 'curl/8.5.0',
    replica: 'gateway-1:8080'
  }]
})
export type LoggedRequest = Static<typeof LoggedRequest>

export const LogList = Type.Object({ data: Type.Array(LoggedRequest, { maxItems: 100 }), nextCursor: NextCursor })

const moment = (description: string) => Type.Optional(Type.String({ format: 'date-time', maxLength: 40, description }))

const filters = {
  outcome: Type.Optional(oneOf([...outcomes], { description: 'only requests that ended so' })),
  status: Type.Optional(patterned('^[1-9]([0-9][0-9]|xx)$', 'must be a status such as 404, or a class of them such as 5xx', { maxLength: 3, description: 'what was answered, such as `404`, or a class, such as `5xx`' })),
  code: Type.Optional(patterned('^[a-z0-9_]+$', 'must be a code of a refusal such as key_disabled', { maxLength: 100, description: 'of the refusal, such as `key_disabled`' })),
  operation: Type.Optional(text(4000, { description: 'as rows name it' })),
  api: Type.Optional(text(1000, { description: 'name of an API' })),
  scope: Type.Optional(text(1000, { description: 'under which it was allowed; empty: requests in none' })),
  secretId: Type.Optional(ascii(100, { description: 'id of a secret' })),
  requestId: Type.Optional(text(200, { description: 'as the answer told it in X-Request-Id' })),
  address: Type.Optional(ascii(100, { description: 'as rows show it' })),
  from: moment('not before this moment'),
  until: moment('before this moment')
}
const ofProject = {
  keyId: Type.Optional(patterned('^key_[0-9A-Za-z]{22}$', 'must be the id of a key: key_ and 22 letters or digits', { maxLength: 26, description: 'of one key, also of one that was deleted' })),
  ...filters
}

export const ListKeyLog = Type.Object({ ...filters, ...page }, { additionalProperties: false })
export const ListProjectLog = Type.Object({ ...ofProject, ...page }, { additionalProperties: false })
export const ExportKeyLog = Type.Object({ ...filters, format: Format }, { additionalProperties: false })
export const ExportProjectLog = Type.Object({ ...ofProject, format: Format }, { additionalProperties: false })

/** What rows are asked for; `keyId` absent: those of all keys. */
export type LogFilters = Omit<Static<typeof ListProjectLog>, 'cursor' | 'limit'>
export type LogPage = Static<typeof ListProjectLog>
