import type { FastifyRateLimitOptions, FastifyRateLimitStore, FastifyRateLimitStoreCtor } from '@fastify/rate-limit'
import { addressTag, hashAddress, logKey } from './names.ts'
import type { Policy } from './policy.ts'
import type { Store } from './store.ts'

type Callback = Parameters<FastifyRateLimitStore['incr']>[1]

/**
 * A store class for `@fastify/rate-limit` (11.2 or later): the plugin's own counts a fixed window, this one the shared exact log.
 *
 * The plugin makes the object itself and passes none of our options, so the class closes over them. It reads only `current` and
 * `ttl` of the answer: `limit + 1` and the time to wait say "denied" exactly. Denied calls are not counted, so the plugin's
 * `ban` above 0 never triggers. `name` keeps the limits of different purposes apart.
 */
export function createFastifyStore (store: Pick<Store, 'decide'>, name: string): FastifyRateLimitStoreCtor {
  return class SlidingWindowStore implements FastifyRateLimitStore {
    readonly #scope: string

    constructor (_options?: FastifyRateLimitOptions, scope = name) {
      this.#scope = scope
    }

    incr (key: string, callback: Callback, timeWindow: number, max: number): void {
      const policy: Policy = { name: this.#scope, limit: max, windowSeconds: Math.max(1, Math.ceil(timeWindow / 1000)), algorithm: 'sliding', partition: 'address' }
      const addressHash = hashAddress(key)
      const log = logKey(addressTag(addressHash), { kind: 'api', api: this.#scope }, { kind: 'address', addressHash }, policy)
      store.decide({ cost: 1, limits: [{ policy, log }] }).then(outcome => {
        if (outcome.outcome === 'admitted') callback(null, { current: max - outcome.remaining, ttl: outcome.resetMs })
        else if (outcome.outcome === 'limited') callback(null, { current: max + 1, ttl: outcome.retryAfterMs })
        else callback(new Error(`unexpected outcome ${outcome.outcome}`))
      }, (error: Error) => { callback(error) })
    }

    /** A route or limiter with options of its own counts apart; it comes without a method and url from `createRateLimit()`. */
    child (options: unknown): FastifyRateLimitStore {
      const { method, url } = (options as { routeInfo?: { method?: string | string[], url?: string } }).routeInfo ?? {}
      return new SlidingWindowStore(undefined, `${this.#scope} ${String(method ?? '')} ${url ?? ''}`.trim().slice(0, 200))
    }
  } as unknown as FastifyRateLimitStoreCtor
}
