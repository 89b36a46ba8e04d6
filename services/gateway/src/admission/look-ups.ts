/** One look-up, shared by all who may. It can be queued: then it has not begun, so it begins after everything that has happened. */
export interface LookUp<T> {
  /** The `moment()` at which it began; Infinity while queued. */
  begunAt: number
  /** The incarnation that it was begun for. */
  fence?: string
  begin: () => void
  result: Promise<T>
}

export interface LookUpsOptions<T> {
  /** A moment in the order of this process's events. */
  moment: () => number
  /** Asks key-service. */
  ask: (digest: string, begunAt: number) => Promise<T>
  /** Most that a queued look-up waits for the one before it, milliseconds. */
  queueMs: number
}

/** Single flight: who may join which look-up of a digest (design.md section 5). At most one waits behind those that run. */
export class LookUps<T> {
  readonly #options: LookUpsOptions<T>
  /** By digest: the look-up that began last and still runs, and the one that waits behind it. */
  readonly #running = new Map<string, LookUp<T>>()
  readonly #queued = new Map<string, LookUp<T>>()

  constructor (options: LookUpsOptions<T>) {
    this.#options = options
  }

  /** Any look-up will do: the record it brings is validated by the script. */
  any (digest: string): LookUp<T> {
    const lookUp = this.#running.get(digest) ?? this.#queued.get(digest) ?? this.#create(digest)
    if (!this.#running.has(digest)) lookUp.begin()
    return lookUp
  }

  /** A look-up that begins after a moment, and for a request that holds a fence one that was begun for a fence too. */
  begunAfter (digest: string, moment: number, fence?: string): LookUp<T> {
    const running = this.#running.get(digest)
    if (running !== undefined && running.begunAt > moment && (fence === undefined || running.fence !== undefined)) return running
    const lookUp = this.#queued.get(digest) ?? this.#enqueue(digest)
    if (fence !== undefined) lookUp.fence ??= fence
    return lookUp
  }

  /**
   * Begins when the running look-up has ended, but waits for it no longer than `queueMs`. Never before the replies that this turn
   * of the event loop brings are read: all of them may share it then.
   */
  #enqueue (digest: string): LookUp<T> {
    const lookUp = this.#create(digest)
    this.#queued.set(digest, lookUp)
    setImmediate(() => {
      const running = this.#running.get(digest)
      if (running === undefined) lookUp.begin()
      else {
        const timer = setTimeout(lookUp.begin, this.#options.queueMs)
        running.result.catch(() => {}).finally(() => { clearTimeout(timer); lookUp.begin() })
      }
    })
    return lookUp
  }

  #create (digest: string): LookUp<T> {
    let start = (): void => {}
    const started = new Promise<void>(resolve => { start = resolve })
    const lookUp: LookUp<T> = {
      begunAt: Infinity,
      begin: () => {
        if (lookUp.begunAt !== Infinity) return
        lookUp.begunAt = this.#options.moment()
        if (this.#queued.get(digest) === lookUp) this.#queued.delete(digest)
        this.#running.set(digest, lookUp)
        start()
      },
      result: started
        .then(async () => await this.#options.ask(digest, lookUp.begunAt))
        .finally(() => { if (this.#running.get(digest) === lookUp) this.#running.delete(digest) })
    }
    return lookUp
  }
}
