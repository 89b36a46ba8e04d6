import type { RedisConnection } from './connection.ts'
import { defineScript, runScript } from './script.ts'

/**
 * Who was seen in the last minute, by Redis's clock.
 * KEYS: `kg:gateways`. ARGV: this replica's name ('' = only look), milliseconds that a beat counts. Reply: how many.
 */
const beatScript = defineScript(`#!lua
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local counts = tonumber(ARGV[2])
if ARGV[1] ~= '' then redis.call('ZADD', KEYS[1], now, ARGV[1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - counts)
redis.call('PEXPIRE', KEYS[1], counts)
return redis.call('ZCARD', KEYS[1])
`)

export const gatewaysKey = 'kg:gateways'

/** Tells Redis that this replica is there. Fulfils with how many were seen in the last minute. @throws {StoreUnavailableError} */
export async function beat (connection: RedisConnection, name: string, countsMs = 60_000): Promise<number> {
  return Number(await runScript(connection, beatScript, [gatewaysKey], [name, countsMs]))
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
