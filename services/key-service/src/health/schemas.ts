import { Type, type Static } from 'typebox'
import { integer, nullable } from '../schemas.ts'

const most = Number.MAX_SAFE_INTEGER

export const Health = Type.Object({
  redis: Type.Object({ reachable: Type.Boolean({ description: 'from key-service; gateways may see otherwise' }) }),
  gateways: Type.Object({
    count: nullable(integer(0, most, { description: 'that reached Redis lately; null: Redis cannot say' })),
    seenWithinSeconds: integer(1, 3600)
  }),
  outbox: Type.Object({
    undelivered: integer(0, most, { description: 'raised versions that Redis has not confirmed' }),
    oldestSeconds: integer(0, most, { description: 'for how long the oldest of them has waited' })
  }),
  share: Type.Object({
    replicas: integer(1, most, { description: 'by how many each gateway divides a limit while it reaches no Redis, unless its KEYGATE_REPLICAS says otherwise: the most that were seen lately' })
  })
}, {
  examples: [{
    redis: { reachable: true },
    gateways: { count: 3, seenWithinSeconds: 60 },
    outbox: { undelivered: 0, oldestSeconds: 0 },
    share: { replicas: 3 }
  }]
})
export type Health = Static<typeof Health>
