import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Heartbeat, StoreUnavailableError, beat, type RedisConnection } from '@keygate/rate-limit'
import type { Database } from '../db/database.ts'
import { measureBacklog } from '../outbox/outbox.ts'
import { Health } from './schemas.ts'

/** A gateway is counted for so long after its last heartbeat. */
const seenWithinSeconds = 60

/** What the dashboard's banner says: is Redis there, how many gateways share the limits, what still waits to be delivered. */
export const healthRoutes: FastifyPluginAsyncTypebox<{ database: Database, redis: RedisConnection }> = async (app, { database, redis }) => {
  // Without a name it only looks, and remembers how many there were when Redis is away, as each gateway does.
  const heartbeat = new Heartbeat({ connection: redis, name: '', countsMs: seenWithinSeconds * 1000 })
  app.addHook('onClose', async () => { heartbeat.stop() })

  app.get('/health', {
    config: { permission: 'catalogue:read' },
    schema: { tags: ['health'], operationId: 'getHealth', summary: 'Redis, gateways, and changes on their way', response: { 200: Health } }
  }, async (): Promise<Health> => {
    const [count, { rows, oldestSeconds }] = await Promise.all([countGateways(redis), database.run(measureBacklog)])
    return {
      redis: { reachable: count !== null },
      gateways: { count, seenWithinSeconds },
      outbox: { undelivered: rows, oldestSeconds: Math.floor(oldestSeconds) },
      share: { replicas: Math.max(heartbeat.replicas, count ?? 1) }
    }
  })
}

/** Null: Redis did not answer. */
async function countGateways (redis: RedisConnection): Promise<number | null> {
  try {
    return await beat(redis, '', seenWithinSeconds * 1000)
  } catch (error) {
    if (error instanceof StoreUnavailableError) return null
    throw error
  }
}
