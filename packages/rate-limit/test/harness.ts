import { once } from 'node:events'
import { startRedis } from '@keygate/local'
import { MemoryStore, RedisStore, connectRedis, logKey, type DecideOutcome, type Decision, type LimitedBy, type Policy, type RedisConnection, type Store } from '../src/index.ts'

/** One second in the unit of the stores' clocks. */
export const second = 1_000_000
/** Where injected clocks begin: a time of 16 digits, as microseconds have today. */
export const epoch = 1_700_000_000 * second

export interface Clock { micros: number }

/** A store whose time is given. */
export interface Opened { store: Store, clock: Clock }

export interface StoreUnderTest { name: 'redis' | 'memory', open: () => Opened }

/** Both stores, and the Redis behind one of them. A call may take long: a busy machine is no fault of the algorithm. */
export async function startStores () {
  const redis = await startRedis()
  const connection = await connected(redis.url)
  // Known to Redis before the first pipelined call, or NOSCRIPT would let later calls overtake it.
  await new RedisStore(connection).peek([limitedBy(sliding(1))])
  const stores: StoreUnderTest[] = [
    { name: 'redis', open: () => withClock(nowMicros => new RedisStore(connection, { nowMicros })) },
    { name: 'memory', open: () => withClock(nowMicros => new MemoryStore({ nowMicros })) }
  ]
  const close = async (): Promise<void> => {
    await connection.close()
    await redis.stop()
  }
  return { redis, connection, stores, close }
}

export async function connected (url: string, timeoutMs = 30_000): Promise<RedisConnection> {
  const connection = connectRedis(url, { timeoutMs })
  await once(connection, 'ready')
  return connection
}

function withClock (open: (nowMicros: () => number) => Store): Opened {
  const clock = { micros: epoch }
  return { store: open(() => clock.micros), clock }
}

export const sliding = (limit: number, windowSeconds = 60, name = 'default'): Policy => ({ name, limit, windowSeconds, algorithm: 'sliding', partition: 'key' })
export const fixed = (limit: number, windowSeconds = 60, name = 'default'): Policy => ({ ...sliding(limit, windowSeconds, name), algorithm: 'fixed' })

let names = 0
export const freshKey = (): string => `key_${++names}`

/** A policy and its log, of a subject that nobody else counts. */
export function limitedBy (policy: Policy, keyId = freshKey()): LimitedBy {
  return { policy, log: logKey('p', { kind: 'key' }, { kind: 'key', keyId }, policy) }
}

export function decided (outcome: DecideOutcome): Decision {
  if (outcome.outcome !== 'admitted' && outcome.outcome !== 'limited') throw new Error(`not decided: ${outcome.outcome}`)
  return outcome
}

/** Decides at a moment. Calls that are not awaited reach the store in their order. */
export async function decideAt ({ store, clock }: Opened, micros: number, limits: LimitedBy[], cost = 1): Promise<Decision> {
  clock.micros = micros
  return decided(await store.decide({ cost, limits }))
}
