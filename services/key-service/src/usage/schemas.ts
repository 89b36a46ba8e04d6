import { Type, type Static } from 'typebox'
import { DownloadedFile, Format } from '../download/schemas.ts'
import { Timestamp, ascii, integer, nullable, oneOf, patterned, text } from '../schemas.ts'

const count = (description?: string) => integer(0, Number.MAX_SAFE_INTEGER, description === undefined ? {} : { description })
const counts = {
  admitted: count('counted under the limits and let through, however it ended'),
  limited: count('answered 429 because of a limit of the key or project'),
  refused: count('answered 401 or 403 although the secret was right'),
  upstreamErrors: count('of those admitted, the ones that the upstream failed'),
  admittedLocally: count('of those admitted, the ones that a gateway let through alone, because Redis was away')
}
const range = {
  from: Timestamp,
  until: Type.String({ format: 'date-time', maxLength: 30, description: 'the end of the last step', examples: ['2026-11-21T10:00:00.000Z'] })
}

/** What happened in one step of time, of one group if they are told apart. */
export const UsagePoint = Type.Object({
  at: Type.String({ format: 'date-time', maxLength: 30, description: 'when the minute, hour or day (UTC) begins', examples: ['2026-11-20T10:00:00.000Z'] }),
  keyId: Type.Optional(text(100, { description: 'with groupBy=key' })),
  api: Type.Optional(text(1000, { description: 'with groupBy=operation' })),
  operation: Type.Optional(text(4000, { description: 'with groupBy=operation' })),
  scope: Type.Optional(text(1000, { description: 'with groupBy=scope; empty: of operations that are in none' })),
  ...counts
}, {
  examples: [{ at: '2026-11-20T10:00:00.000Z', scope: 'submissions', admitted: 20, limited: 5, refused: 0, upstreamErrors: 0, admittedLocally: 0 }]
})
export type UsagePoint = Static<typeof UsagePoint>

/** A day in minutes, and some more: what the largest chart shows. */
const mostPoints = 1500

export const UsagePage = Type.Object({
  data: Type.Array(UsagePoint, { maxItems: mostPoints, description: 'steps and groups without a request are left out' }),
  nextCursor: nullable(ascii(12_000, { description: 'null: this is the last page' })),
  ...range,
  lost: nullable(count('admissions of the hours that the range touches that are in no row, because a gateway was killed or what it sent did not fit into Redis. Whose they were is not known: null of one key, and with a filter'))
})
export type UsagePage = Static<typeof UsagePage>

const moment = (description: string) => Type.Optional(Type.String({ format: 'date-time', maxLength: 40, description }))
const asked = {
  from: moment('not before this moment; the step that it lies in is told as a whole'),
  until: moment('before this moment; now if it is not given')
}
const filters = {
  api: Type.Optional(text(1000, { description: 'name of an API' })),
  operation: Type.Optional(text(4000, { description: 'an operation, as groupBy=operation tells it' })),
  scope: Type.Optional(text(1000, { description: 'a scope; empty: of operations that are in none' }))
}
const ofAnyKey = { keyId: Type.Optional(patterned('^key_[0-9A-Za-z]{22}$', 'must be the id of a key: key_ and 22 letters or digits', { maxLength: 26, description: 'id of a key' })) }
const interval = oneOf(['minute', 'hour', 'day'], { default: 'hour', description: 'steps in UTC: at most 7 days of minutes, 90 days of hours, any number of days; without `from` the last 60 minutes, 24 hours or 30 days' })
const page = {
  cursor: Type.Optional(ascii(12_000, { description: '`nextCursor` of the page before' })),
  limit: integer(1, mostPoints, { default: 500, description: 'rows per page; 1440 minutes are a day' })
}
const groupOfProject = oneOf(['none', 'scope', 'operation', 'key'], { default: 'none', description: 'what is told apart. Rows are in the order of time, and key by key with `key`' })
const groupOfKey = oneOf(['none', 'scope', 'operation'], { default: 'none', description: 'what is told apart' })

export const ListProjectUsage = Type.Object({ interval, ...asked, groupBy: groupOfProject, ...filters, ...ofAnyKey, ...page }, { additionalProperties: false })
export type ListProjectUsage = Static<typeof ListProjectUsage>
export const ListKeyUsage = Type.Object({ interval, ...asked, groupBy: groupOfKey, ...filters, ...page }, { additionalProperties: false })
export const ExportProjectUsage = Type.Object({ interval, ...asked, groupBy: groupOfProject, ...filters, ...ofAnyKey, format: Format }, { additionalProperties: false })
export type ExportProjectUsage = Static<typeof ExportProjectUsage>
export const ExportKeyUsage = Type.Object({ interval, ...asked, groupBy: groupOfKey, ...filters, format: Format }, { additionalProperties: false })

export const UsageFile = {
  ...DownloadedFile,
  headers: { ...DownloadedFile.headers, 'X-Total-Rows': count('rows when it began, for a progress bar; a step that is still running can add some. Left out of an export that is too large to be counted first: from some 50 000 rows of usage on') }
}

export const ListTopKeys = Type.Object({
  interval: oneOf(['hour', 'day'], { default: 'hour', description: 'steps in UTC: at most 7 days of hours, 31 days of days; without `from` the last 24 hours or 30 days. More is to be had by an export with groupBy=key' }),
  ...asked,
  by: oneOf(['admitted', 'limited', 'refused', 'upstreamErrors'], { default: 'admitted', description: 'what is compared; keys without any are left out' }),
  limit: integer(1, 100, { default: 10, description: 'keys at most' })
}, { additionalProperties: false })
export type ListTopKeys = Static<typeof ListTopKeys>

export const TopKey = Type.Object({
  keyId: text(100),
  name: nullable(text(200, { description: 'null: this key is not known here' })),
  status: oneOf(['active', 'disabled', 'expired', 'revoked', 'deleted']),
  ...counts
}, {
  examples: [{ keyId: 'key_0123456789ABCDEFGHIJKL', name: 'Accounting', status: 'active', admitted: 20, limited: 5, refused: 0, upstreamErrors: 0, admittedLocally: 0 }]
})
export type TopKey = Static<typeof TopKey>
export const TopKeys = Type.Object({ data: Type.Array(TopKey, { maxItems: 100, description: 'most first' }), ...range })
