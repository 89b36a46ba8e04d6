import { Type, type Static } from 'typebox'
import { nullable, oneOf } from '../schemas.ts'

const LiveLimit = Type.Object({
  api: nullable(Type.String({ description: 'null: it counts over all APIs' })),
  operation: nullable(Type.String({ description: 'the one operation that it counts, in addition to the others; null: every operation' })),
  owner: oneOf(['key', 'project', 'api', 'operation'], { description: 'whose list it stands in' }),
  name: Type.String(),
  limit: Type.Integer(),
  windowSeconds: Type.Integer(),
  algorithm: oneOf(['sliding', 'fixed']),
  partition: oneOf(['key', 'project', 'address'], { description: 'what is counted apart. Of `address` there are no numbers here: each address has its own' }),
  remaining: nullable(Type.Integer({ description: 'as in the RateLimit field' })),
  resetSeconds: nullable(Type.Integer({ description: 'as in the RateLimit field' })),
  admittedAgoMs: Type.Array(Type.Integer(), { description: 'how long ago the counted requests were admitted, the newest 120 at most, oldest first; empty for `fixed`, which only counts' })
})
export type LiveLimit = Static<typeof LiveLimit>

export const LiveLimits = Type.Object({ data: Type.Array(LiveLimit) }, {
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
