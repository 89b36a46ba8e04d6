import { Breaker, type BreakerOptions } from './breaker.ts'
import { StoreUnavailableError } from './connection.ts'
import type { Decision } from './decision.ts'
import type { MemoryStore } from './memory-store.ts'
import type { Policy } from './policy.ts'
import type { DecideOutcome, DecideRequest, RedisStore } from './redis-store.ts'

/** What a decision without Redis is. It is of this replica alone, so its numbers are not for the RateLimit fields. */
export type LocalOutcome =
  | { outcome: 'admitted' }
  | { outcome: 'limited', retryAfterMs: number, violated: string[] }
  | { outcome: 'expired' }
  /** A policy says `whenStoreIsDown: closed`. */
  | { outcome: 'closed' }

export interface LimiterOptions {
  store: RedisStore
  memory: MemoryStore
  /** How many replicas share a limit when each counts alone. */
  replicas: () => number
  breaker?: BreakerOptions
  onChange?: (state: 'shared' | 'alone') => void
}

/** A replica's part of a limit while it counts alone: all parts together are at most the limit, but each is at least 1. */
export function shareOf (policy: Pick<Policy, 'limit'>, replicas: number): number {
  return Math.max(1, Math.floor(policy.limit / replicas))
}

/**
 * Decisions by Redis while it answers, and by this replica's share while it does not.
 *
 * The two are separate calls on purpose: between them the caller has to make sure that what it knows of the key may be used
 * without the script's confirmation.
 */
export class Limiter {
  readonly #options: LimiterOptions
  readonly #breaker: Breaker
  #alone = false
  /** Redis's clock minus ours, milliseconds, as last measured. */
  #offsetMs = 0

  constructor (options: LimiterOptions) {
    this.#options = options
    this.#breaker = new Breaker(options.breaker)
  }

  /** True while this replica counts alone: there is no connection, or Redis is asked no more than one probe at a time. */
  get isAlone (): boolean { return !this.#options.store.isReady || this.#breaker.isOpen }

  /** False when `decide` would fail without asking: there is no connection, or Redis did not answer lately. */
  get canAsk (): boolean { return this.#options.store.isReady && this.#breaker.wouldAllow }

  /** Redis's clock, as far as it is known here. Unix milliseconds. */
  nowMs (): number { return Date.now() + this.#offsetMs }

  /** As `RedisStore.decide`, but at once a `StoreUnavailableError` while Redis is known not to answer. */
  async decide (request: DecideRequest): Promise<DecideOutcome> {
    if (!this.#breaker.allows()) throw new StoreUnavailableError('it did not answer lately', { asked: false })
    try {
      const outcome = await this.#options.store.decide(request)
      if (outcome.outcome === 'reconnected') this.#breaker.unasked()
      else this.#breaker.succeeded()
      this.notice()
      this.#learn(request, outcome)
      return outcome
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) this.#breaker.unasked()
      else if (error.ofKey) this.#breaker.succeeded()
      else this.#breaker.failed()
      this.notice()
      throw error
    }
  }

  /**
   * The decision that this replica makes alone, policy by policy as `whenStoreIsDown` says: `open` ones are not counted,
   * one `closed` one closes all, the others are counted in memory at this replica's share of the limit.
   */
  decideAlone ({ cost, limits, notAfterMs }: DecideRequest): LocalOutcome {
    if (notAfterMs !== undefined && this.nowMs() >= notAfterMs) return { outcome: 'expired' }
    if (cost === 0) return { outcome: 'admitted' }
    if (limits.some(({ policy }) => policy.whenStoreIsDown === 'closed')) return { outcome: 'closed' }
    const counted = limits.filter(({ policy }) => policy.whenStoreIsDown !== 'open')
    if (counted.length === 0) return { outcome: 'admitted' }
    const replicas = this.#options.replicas()
    const decision = this.#options.memory.decideNow({ cost, limits: counted }, { limitOf: policy => shareOf(policy, replicas) }) as Decision
    return decision.outcome === 'admitted'
      ? { outcome: 'admitted' }
      : { outcome: 'limited', retryAfterMs: decision.retryAfterMs, violated: decision.policies.filter(p => p.retryAfterMs !== 0).map(p => p.policy.name) }
  }

  /** For limits that rest on nothing but an address: by Redis, else by this replica's share. */
  async decideAnyway (request: DecideRequest): Promise<DecideOutcome> {
    try {
      return await this.decide(request)
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error
      const replicas = this.#options.replicas()
      return this.#options.memory.decideNow(request, { limitOf: policy => shareOf(policy, replicas) })
    }
  }

  /** Every admission is also written down here, so that counting alone does not begin with a fresh share. */
  #learn ({ cost, limits }: DecideRequest, outcome: DecideOutcome): void {
    if (outcome.outcome !== 'admitted' && outcome.outcome !== 'limited') return
    this.#offsetMs = outcome.nowMs - Date.now()
    if (outcome.outcome === 'limited' || cost === 0) return
    const replicas = this.#options.replicas()
    this.#options.memory.note(limits, { cost, shareOf: policy => shareOf(policy, replicas) })
  }

  /** Tells `onChange` once per change; to be called when the connection's state has changed, too. */
  notice (): void {
    if (this.#alone === this.isAlone) return
    this.#alone = this.isAlone
    this.#options.onChange?.(this.#alone ? 'alone' : 'shared')
  }
}
