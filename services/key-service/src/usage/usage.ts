import { randomBytes } from 'node:crypto'
import { connectRedis } from '@keygate/rate-limit'
import type { Registry } from '@keygate/service-kit'
import type { FastifyBaseLogger } from 'fastify'
import type { Database } from '../db/database.ts'
import type { LastUse } from '../keys/last-use.ts'
import { createUsageConsumer } from './consumer.ts'
import { createIncarnationWatch } from './incarnations.ts'
import { createUsageMetrics } from './metrics.ts'
import { repeatedly } from './repeatedly.ts'
import { createUsageStream, type UsageStream } from './stream.ts'
import { createTails } from './tails.ts'
import { createUsageUpkeep } from './upkeep.ts'

export interface UsageParts {
  database: Database
  redisUrl: string
  lastUse: LastUse
  log: FastifyBaseLogger
  registry: Registry
  intervalMs: number
  lateMs: number
  silentMs: number
  logRetentionDays: number | undefined
}

export interface Usage {
  stream: UsageStream
  start: () => void
  stop: () => Promise<void>
}

/** Batches are large and nobody waits for them, so they have a connection with a patience of its own. Milliseconds. */
const redisTimeoutMs = 5000
const upkeepEveryMs = 600_000

/** What gateways have counted, on its way into PostgreSQL, and what becomes of it there. */
export function createUsage ({ database, redisUrl, lastUse, log, registry, intervalMs, lateMs, silentMs, logRetentionDays }: UsageParts): Usage {
  const redis = connectRedis(redisUrl, { timeoutMs: redisTimeoutMs })
  const stream = createUsageStream(redis, `key-service-${randomBytes(9).toString('base64url')}`, lateMs)
  const metrics = createUsageMetrics(registry, stream)
  const consumer = createUsageConsumer({ database, stream, lastUse, metrics, incarnations: createIncarnationWatch(redis), log, intervalMs, takeOverEveryMs: lateMs / 2 })
  const tails = createTails({ database, redis, stream, silentMs })
  const upkeep = createUsageUpkeep({ database, log, logRetentionDays, oldestBatchMs: async () => await stream.backlog().then(({ oldestMs }) => oldestMs, () => 0) })
  const settling = repeatedly(async () => { await tails.settle() }, { everyMs: silentMs / 10, log, failure: 'what dead gateways have left cannot be settled; it is tried again' })
  const keeping = repeatedly(upkeep.run, { everyMs: upkeepEveryMs, log, failure: 'partitions of usage cannot be made or dropped; it is tried again' })
  return {
    stream,
    start: () => {
      consumer.start()
      settling.start()
      keeping.start()
    },
    stop: async () => {
      await Promise.all([consumer.stop(), settling.stop(), keeping.stop()])
      await redis.close()
    }
  }
}
