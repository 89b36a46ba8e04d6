import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { startRedis, startTcpProxy, type Redis, type TcpProxy } from '@keygate/local'
import { MemoryStore, logKey, type LimitedBy, type Policy } from '@keygate/rate-limit'
import { Redis as Client } from 'ioredis'
import { Replica, type ReplicaOptions } from './replica.ts'

export interface StageOptions extends Pick<ReplicaOptions, 'timeoutMs' | 'breaker'> {
  replicas?: number
  limit?: number
  /** Replicas reach Redis through a TCP proxy. */
  proxied?: boolean
  /** Further settings of Redis. */
  args?: string[]
}

/** Some replicas with a connection each over one real Redis, and what a fault needs to get at it. */
export interface Stage {
  redis: Redis
  proxy: TcpProxy | undefined
  replicas: Replica[]
  policy: Policy
  /** The one subject that is counted. */
  subject: LimitedBy[]
  /** Past the proxy; a new one each time, since a fault may have ended the last. */
  admin: <T>(work: (client: Client) => Promise<T>) => Promise<T>
  /** Everything that a fault has started ends with the stage. */
  onClose: (end: () => unknown) => void
  close: () => Promise<void>
}

/** A window that no test outlives, so sums need no clock. */
const windowSeconds = 3600

/** Opens a stage whose replicas have all reached Redis. */
export async function openStage ({ replicas: count = 3, limit = 30, proxied = false, args = [], ...options }: StageOptions = {}): Promise<Stage> {
  const redis = await startRedis({ args })
  const proxy = proxied ? await startTcpProxy(redis.port) : undefined
  const url = `redis://127.0.0.1:${proxy?.port ?? redis.port}`
  const replicas = Array.from({ length: count }, () => new Replica(url, { memory: new MemoryStore(), replicas: () => count, ...options }))
  await Promise.all(replicas.map(async ({ connection }) => { if (!connection.isReady) await once(connection, 'ready') }))
  const policy: Policy = { name: 'default', limit, windowSeconds, algorithm: 'sliding', partition: 'key' }
  const ends: Array<() => unknown> = []
  const stage: Stage = {
    redis,
    proxy,
    replicas,
    policy,
    subject: subjectOf(policy, 'key_1'),
    admin: async work => await withClient(stage.redis.port, work),
    onClose: end => { ends.push(end) },
    close: async () => {
      for (const replica of replicas) await replica.close()
      for (const end of ends) await end()
      await proxy?.stop()
      await stage.redis.kill()
      await stage.redis.stop()
    }
  }
  return stage
}

/** The log of one key. */
export function subjectOf (policy: Policy, keyId: string): LimitedBy[] {
  return [{ policy, log: logKey('p', { kind: 'key' }, { kind: 'key', keyId }, policy) }]
}

export async function withClient<T> (port: number, work: (client: Client) => Promise<T>, password?: string): Promise<T> {
  // Without the ready check, since a Redis that is busy or loading is asked too.
  const client = new Client(port, '127.0.0.1', { retryStrategy: () => 20, enableReadyCheck: false, ...password === undefined ? {} : { password } })
  client.on('error', () => {})
  try {
    return await work(client)
  } finally {
    client.disconnect()
  }
}

/** Waits for a condition, far longer than it can need. @throws {Error} it does not come true. */
export async function until (what: string, condition: () => boolean | Promise<boolean>, withinMs = 30_000): Promise<void> {
  const end = performance.now() + withinMs
  while (!await condition()) {
    if (performance.now() > end) throw new Error(`still not: ${what}`)
    await delay(5)
  }
}

/** Every replica keeps asking, this many at a time, until the returned function is called. */
export function load ({ replicas, subject }: Stage, atOnce: number): () => Promise<void> {
  const running = new AbortController()
  const loops = replicas.map(async replica => {
    while (!running.signal.aborted) await Promise.all([delay(2), ...Array.from({ length: atOnce }, async () => await replica.ask(subject))])
  })
  return async () => {
    running.abort()
    await Promise.all(loops)
  }
}

/** Looks (which costs nothing) until every replica is counting as said. */
export async function untilAll ({ replicas, subject }: Stage, state: 'shared' | 'alone'): Promise<void> {
  await Promise.all(replicas.map(async replica => await until(`counting ${state}`, async () => {
    const looks = await Promise.all(Array.from({ length: 5 }, async () => await replica.ask(subject, 0)))
    return looks.every(({ by }) => by === (state === 'alone' ? 'alone' : 'redis')) && replica.limiter.isAlone === (state === 'alone')
  })))
}
