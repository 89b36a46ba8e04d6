/** Something that waits until there is a place for it. */
export interface Waiting {
  /** It has a place from now on, and must give it back. */
  proceed: () => void
}

/** Whose share a place is of. */
export interface Caller {
  /** The same for all requests that share. */
  name: string
  /** Names cost nothing without a key, so all of these together have one share as well. */
  isKeyless: boolean
}

export interface GateOptions {
  /** How many may be inside at once. */
  places: number
  /** How many may wait. */
  room: number
}

/** How many of something callers have, each and those without a key together. */
class Shares {
  readonly #each = new Map<string, number>()
  #keyless = 0
  #free: number

  constructor (all: number) { this.#free = all }

  get free (): number { return this.#free }

  /**
   * Nobody takes what would leave less than it has then: whoever is alone gets half, two who take all they can a third each, and there is always
   * something left for one who has nothing yet (the dynamic threshold of Choudhury and Hahne, 1998, with its factor 1).
   */
  mayTake ({ name, isKeyless }: Caller): boolean {
    return (this.#each.get(name) ?? 0) < this.#free && (!isKeyless || this.#keyless < this.#free)
  }

  change ({ name, isKeyless }: Caller, by: 1 | -1): void {
    const has = (this.#each.get(name) ?? 0) + by
    if (has > 0) this.#each.set(name, has)
    else this.#each.delete(name)
    if (isKeyless) this.#keyless += by
    this.#free -= by
  }
}

/**
 * Who may be inside, and in which order the others follow: callers take turns, and each caller's own come in the order of their arrival,
 * so that whoever sends much waits for itself. Whoever leaves the queue is gone from it at once.
 */
export class Gate {
  readonly #places: Shares
  readonly #room: Shares
  readonly #queues = new Map<string, { caller: Caller, waiting: Set<Waiting> }>()
  #waiting = 0

  constructor ({ places, room }: GateOptions) {
    this.#places = new Shares(places)
    this.#room = new Shares(room)
  }

  get free (): number { return this.#places.free }
  get waiting (): number { return this.#waiting }

  /** `in`: it has a place. `waits`: `proceed` will be called, unless it is forgotten before. `full`: nothing will come of it. */
  enter (waiting: Waiting, caller: Caller): 'in' | 'waits' | 'full' {
    // Nobody waits who may have a place: `leave` hands them on.
    if (this.#places.mayTake(caller)) {
      this.#places.change(caller, 1)
      return 'in'
    }
    if (!this.#room.mayTake(caller)) return 'full'
    this.#room.change(caller, 1)
    const queue = this.#queues.get(caller.name)
    if (queue === undefined) this.#queues.set(caller.name, { caller, waiting: new Set([waiting]) })
    else queue.waiting.add(waiting)
    this.#waiting++
    return 'waits'
  }

  /** It does not wait any more. False: it did not. */
  forget (waiting: Waiting, caller: Caller): boolean {
    const queue = this.#queues.get(caller.name)
    if (queue?.waiting.delete(waiting) !== true) return false
    this.#waiting--
    this.#room.change(caller, -1)
    if (queue.waiting.size === 0) this.#queues.delete(caller.name)
    return true
  }

  /** Gives a place back, which goes to whoever is next and may have it. */
  leave (caller: Caller): void {
    this.#places.change(caller, -1)
    // More than one may follow: with each place that is free all may have one more.
    while (this.#waiting > 0 && this.#handOn());
  }

  #handOn (): boolean {
    for (const [name, { caller, waiting }] of this.#queues) {
      const [next] = waiting
      if (next === undefined || !this.#places.mayTake(caller)) continue
      this.forget(next, caller)
      this.#places.change(caller, 1)
      if (this.#queues.delete(name)) this.#queues.set(name, { caller, waiting }) // behind all others
      // Not from within the one that left: undici does not expect the next request in the middle of an answer.
      queueMicrotask(() => { next.proceed() })
      return true
    }
    return false
  }
}
