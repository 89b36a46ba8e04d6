/** So many wait behind the one that runs; more are turned away. */
const waitingAtMost = 16

/** Addresses that are remembered as past their budget of refusals; the one whose time ends first is forgotten first. */
const addressesAtMost = 10_000

/**
 * Addresses that have used up their budget of refusals, and a queue for each: one look-up at a time, so that guessing from one place
 * cannot load key-service, however many connections it is done over.
 */
export class LookUpQueues {
  readonly #untilMs = new Map<string, number>()
  readonly #queues = new Map<string, { last: Promise<unknown>, length: number }>()
  readonly #nowMs: () => number

  constructor (nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs
  }

  /** An address was refused past its budget, which is empty for so long. */
  suspect (address: string, forMs: number): void {
    this.#untilMs.delete(address)
    this.#untilMs.set(address, this.#nowMs() + forMs)
    if (this.#untilMs.size > addressesAtMost) this.#untilMs.delete(this.#untilMs.keys().next().value as string)
  }

  get suspectsAny (): boolean { return this.#untilMs.size > 0 }

  isSuspect (address: string): boolean {
    const until = this.#untilMs.get(address)
    if (until === undefined) return false
    if (this.#nowMs() < until) return true
    this.#untilMs.delete(address)
    return false
  }

  /** Does `work` after all that was queued for the address before. `null`: too many wait already, nothing was done. */
  async inTurn<T> (address: string, work: () => Promise<T>): Promise<T | null> {
    const queue = this.#queues.get(address) ?? { last: Promise.resolve(), length: 0 }
    if (queue.length > waitingAtMost) return null
    this.#queues.set(address, queue)
    queue.length++
    const result = queue.last.then(work)
    queue.last = result.catch(() => {})
    try {
      return await result
    } finally {
      if (--queue.length === 0) this.#queues.delete(address)
    }
  }
}
