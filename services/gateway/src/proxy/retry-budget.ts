/** Each forwarded request earns a tenth of a retry, so retries add at most a tenth to an upstream's load (B3-09). */
const earned = 0.1

/** Enough for the connections that an upstream closes at the same moment, such as at its restart. */
const most = 10

/** How many requests may be sent once more: an upstream that is failing must not be asked twice as often as one that is well. */
export class RetryBudget {
  #saved = most

  /** One more request was forwarded. */
  earn (): void { this.#saved = Math.min(most, this.#saved + earned) }

  /** Takes one retry, if there is one. */
  spend (): boolean {
    if (this.#saved < 1) return false
    this.#saved -= 1
    return true
  }
}
