import type { Redis } from 'ioredis'
import { RedisConnection, RedisStore } from '../src/index.ts'

/** Asked by `concurrency.test.ts`: decisions of one process, as fast as it can, on Redis's clock. */
export interface Order { url: string, log: string, limit: number, windowSeconds: number, decisions: number, callers: number }

/** What this process was told: when the script decided, as the script itself says, and whether it admitted. */
export interface Told { micros: number[], admitted: boolean[], withoutRedis: number }

// The script replies in microseconds, a decision carries milliseconds: read on the way.
class Watched extends RedisConnection {
  override async call<T> (send: (client: Redis) => Promise<T>): Promise<T> {
    const reply = await super.call(send)
    if (Array.isArray(reply)) {
      told.micros.push(Number(reply[1]))
      told.admitted.push(reply[0] === 1)
    }
    return reply
  }
}

const told: Told = { micros: [], admitted: [], withoutRedis: 0 }

process.on('message', async ({ url, log, limit, windowSeconds, decisions, callers }: Order) => {
  const connection = new Watched(url, { timeoutMs: 30_000 })
  await new Promise<void>(resolve => { connection.once('ready', resolve) })
  const store = new RedisStore(connection)
  const limits = [{ policy: { name: 'default', limit, windowSeconds, algorithm: 'sliding' as const, partition: 'key' as const }, log }]
  let left = decisions
  const call = async (): Promise<void> => {
    while (left-- > 0) await store.decide({ cost: 1, limits }).catch(() => { told.withoutRedis++ })
  }
  await Promise.all(Array.from({ length: callers }, call))
  await connection.close()
  process.send?.(told, () => { process.disconnect() })
})
