import { StoreUnavailableError, type RedisConnection } from './connection.ts'

export const gatewaysKey = 'kg:gateways'

/**
 * Tells Redis that this replica is there. Fulfils with how many were seen lately, by Redis's clock. @throws {StoreUnavailableError}
 *
 * Two round trips and no script: it is not on any request's path, and what is between them harms nothing.
 *
 * @param name this replica's own random name; '' only looks. @param countsMs how long a beat counts.
 */
export async function beat (connection: RedisConnection, name: string, countsMs = 60_000): Promise<number> {
  const [seconds, micros] = await connection.call(async client => await client.time()) as [number | string, number | string]
  const now = Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
  const replies = await connection.call(async client => {
    const pipeline = client.pipeline()
    if (name !== '') pipeline.zadd(gatewaysKey, now, name)
    return await pipeline.zremrangebyscore(gatewaysKey, '-inf', now - countsMs).pexpire(gatewaysKey, countsMs).zcard(gatewaysKey).exec()
  })
  const [error, seen] = replies?.at(-1) ?? []
  if (error !== null && error !== undefined) throw new StoreUnavailableError(error.message, { cause: error })
  return Number(seen)
}

export interface HeartbeatOptions {
  connection: RedisConnection
  /** This replica's own random name. */
  name: string
  /** How many replicas there are, if the operator says so; else those that are seen are counted. */
  replicas?: number | undefined
  everyMs?: number
  /** How long a replica that beats no more is still counted. */
  countsMs?: number
}

/**
 * Knows how many replicas there are, for the day when Redis is away: the most that were seen in the last minute before it went. A
 * Redis that came back empty shows only those that have beaten since, so what was seen before counts for one more minute. A replica
 * that has never reached Redis takes itself for the only one, unless the operator gave the number.
 */
export class Heartbeat {
  readonly #options: HeartbeatOptions
  readonly #timer: NodeJS.Timeout
  #seen: { atMs: number, replicas: number }[] = []

  constructor (options: HeartbeatOptions) {
    this.#options = options
    const countsMs = options.countsMs ?? 60_000
    const tick = (): void => {
      const atMs = performance.now()
      beat(options.connection, options.name, countsMs).then(replicas => {
        this.#seen = [...this.#seen.filter(seen => atMs - seen.atMs < countsMs && seen.replicas > replicas), { atMs, replicas }]
      }, () => {})
    }
    options.connection.on('ready', () => {
      this.#seen = [{ atMs: performance.now(), replicas: this.#most() }]
      tick()
    })
    tick()
    this.#timer = setInterval(tick, options.everyMs ?? 5000).unref()
  }

  get replicas (): number { return this.#options.replicas ?? this.#most() }

  stop (): void { clearInterval(this.#timer) }

  #most (): number { return Math.max(1, ...this.#seen.map(seen => seen.replicas)) }
}
