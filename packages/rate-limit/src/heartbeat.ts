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
  /** This replica's own random name; '' only looks, until `announce` gives one. */
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
  readonly #tick: () => void
  #name: string
  #hasLeft = false
  #beating: Promise<void> = Promise.resolve()
  #seen: { atMs: number, replicas: number }[] = []

  constructor (options: HeartbeatOptions) {
    this.#options = options
    this.#name = options.name
    const countsMs = options.countsMs ?? 60_000
    const tick = this.#tick = (): void => {
      if (this.#hasLeft) return
      const atMs = performance.now()
      this.#beating = beat(options.connection, this.#name, countsMs).then(replicas => {
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

  /** From now on it is counted: its requests are taken. */
  announce (name: string): void {
    if (this.#hasLeft) return
    this.#name = name
    this.#tick()
  }

  stop (): void { clearInterval(this.#timer) }

  /** Stops, and is not counted any more, if Redis can be told; else not after a minute. */
  async leave (): Promise<void> {
    this.stop()
    this.#hasLeft = true
    await this.#beating // one that is under way would undo it
    const name = this.#name
    if (name !== '') await this.#options.connection.call(async client => await client.zrem(gatewaysKey, name)).catch(() => {})
  }

  #most (): number { return Math.max(1, ...this.#seen.map(seen => seen.replicas)) }
}
