import { KeyServiceUnavailableError } from '../key-service/client.ts'

export interface RefreshingOptions {
  /** Least time between two attempts to refresh while key-service does not answer, milliseconds. */
  retryMs: number
  /** Most that a request with an old record waits for a new one, milliseconds. */
  patienceMs: number
  nowMs: () => number
}

/**
 * How old records are asked for again. While key-service does not answer the old ones go on, since the script still confirms them:
 * nobody waits longer than `patienceMs`, and once it is in doubt one look-up a second tries, whatever the number of keys and requests.
 */
export class Refreshing {
  readonly #options: RefreshingOptions
  #lastFailureMs = -Infinity
  #isInDoubt = false
  #isProbing = false

  constructor (options: RefreshingOptions) {
    this.#options = options
  }

  /** True for a while after key-service did not answer: it need not be asked for every request. */
  get isAway (): boolean {
    return this.#options.nowMs() - this.#lastFailureMs < this.#options.retryMs
  }

  /** A look-up was answered. */
  answered (): void { this.#isInDoubt = false }

  /** A look-up failed, or takes longer than anybody should wait. */
  failed (): void {
    this.#isInDoubt = true
    this.#lastFailureMs = this.#options.nowMs()
  }

  /** What a look-up brings, begun by `lookUp`; or `old`, if it is not the time for one, if it fails, or if it takes too long. */
  async insteadOf<T> (old: T, lookUp: () => Promise<T | null>): Promise<T | null> {
    if (this.#isInDoubt && (this.#isProbing || this.isAway)) return old
    const isProbe = this.#isProbing = this.#isInDoubt
    let timer: NodeJS.Timeout | undefined
    const patience = new Promise<T>(resolve => {
      timer = setTimeout(() => {
        this.failed()
        resolve(old)
      }, this.#options.patienceMs)
    })
    const settled = lookUp().finally(() => { if (isProbe) this.#isProbing = false })
    try {
      return await Promise.race([settled, patience])
    } catch (error) {
      if (!(error instanceof KeyServiceUnavailableError)) throw error
      return old
    } finally {
      clearTimeout(timer)
      settled.catch(() => {})
    }
  }
}
