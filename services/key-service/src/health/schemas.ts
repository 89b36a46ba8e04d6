import { Type, type Static } from 'typebox'
import { nullable } from '../schemas.ts'

export const Health = Type.Object({
  redis: Type.Object({ reachable: Type.Boolean({ description: 'from key-service; gateways may see otherwise' }) }),
  gateways: Type.Object({
    count: nullable(Type.Integer({ description: 'that reached Redis lately; null: Redis cannot say' })),
    seenWithinSeconds: Type.Integer()
  }),
  outbox: Type.Object({
    undelivered: Type.Integer({ description: 'raised versions that Redis has not confirmed' }),
    oldestSeconds: Type.Integer({ description: 'for how long the oldest of them has waited' })
  }),
  share: Type.Object({
    replicas: Type.Integer({ description: 'by how many each gateway divides a limit while it reaches no Redis, unless its KEYGATE_REPLICAS says otherwise: the most that were seen lately' })
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
