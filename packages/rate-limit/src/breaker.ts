export interface BreakerOptions {
  /** It opens after so many failures ... */
  failures?: number
  /** ... within so many milliseconds. */
  withinMs?: number
  /** While open, one call in this time (plus up to half of it at random) tries whether the other side is back. */
  probeMs?: number
  /** Monotonic milliseconds. */
  nowMs?: () => number
  random?: () => number
}

/**
 * Keeps latency flat while Redis does not answer: without it every request would wait for the whole deadline.
 *
 * Probes are single, so that replicas which see Redis come back do not storm it, and jittered, so that they do not come together.
 */
export class Breaker {
  readonly #options: Required<BreakerOptions>
  #failedAt: number[] = []
  #nextProbeMs: number | undefined
  #probing = false

  constructor (options: BreakerOptions = {}) {
    this.#options = { failures: 5, withinMs: 1000, probeMs: 250, nowMs: () => performance.now(), random: Math.random, ...options }
  }

  get isOpen (): boolean { return this.#nextProbeMs !== undefined }

  /** Whether `allows` would say yes, without taking the probe. */
  get wouldAllow (): boolean {
    return this.#nextProbeMs === undefined || (!this.#probing && this.#options.nowMs() >= this.#nextProbeMs)
  }

  /** Whether a call may be made now. One that was allowed must be told as `succeeded`, `failed` or `unasked`. */
  allows (): boolean {
    const allowed = this.wouldAllow
    if (allowed && this.isOpen) this.#probing = true
    return allowed
  }

  succeeded (): void {
    this.#failedAt.length = 0
    this.#nextProbeMs = undefined
    this.#probing = false
  }

  /** Nothing was sent, so nothing was learnt: the next call may try instead. */
  unasked (): void {
    this.#probing = false
  }

  failed (): void {
    const now = this.#options.nowMs()
    this.#failedAt = [...this.#failedAt, now].slice(-this.#options.failures).filter(at => now - at < this.#options.withinMs)
    this.#probing = false
    if (this.isOpen || this.#failedAt.length >= this.#options.failures) {
      this.#nextProbeMs = now + this.#options.probeMs * (1 + this.#options.random() / 2)
    }
  }
}
