import { Type, type Static } from 'typebox'
import { integer, nullable, oneOf, text } from '../schemas.ts'

const most = Number.MAX_SAFE_INTEGER

const LiveLimit = Type.Object({
  api: nullable(text(64, { description: 'null: it counts over all APIs' })),
  operation: nullable(text(2000, { description: 'the one operation that it counts, in addition to the others; null: every operation' })),
  owner: oneOf(['key', 'project', 'api', 'operation'], { description: 'whose list it stands in' }),
  name: text(64),
  limit: integer(1, most),
  windowSeconds: integer(1, most),
  algorithm: oneOf(['sliding', 'fixed']),
  partition: oneOf(['key', 'project', 'address'], { description: 'what is counted apart. Of `address` there are no numbers here: each address has its own' }),
  remaining: nullable(integer(0, most, { description: 'as in the RateLimit field' })),
  resetSeconds: nullable(integer(1, most, { description: 'as in the RateLimit field' })),
  admittedAgoMs: Type.Array(integer(0, most), { maxItems: 120, description: 'how long ago the counted requests were admitted, the newest 120 at most, oldest first; empty for `fixed`, which only counts' })
})
export type LiveLimit = Static<typeof LiveLimit>

export const LiveLimits = Type.Object({ data: Type.Array(LiveLimit, { maxItems: 10_000 }) }, {
  examples: [{
    data: [{
      api: 'forms',
      operation: null,
      owner: 'api',
      name: 'default',
      limit: 20,
      windowSeconds: 60,
      algorithm: 'sliding',
      partition: 'key',
      remaining: 18,
      resetSeconds: 45,
      admittedAgoMs: [15_000, 20]
    }]
  }]
})
export type LiveLimits = Static<typeof LiveLimits>
