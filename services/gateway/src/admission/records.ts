import type { KeyRecord } from '@keygate/contracts'
import type { RedisConnection } from '@keygate/rate-limit'
import { KeyServiceUnavailableError, type KeyServiceClient } from '../key-service/client.ts'

/** A record with what decides how long it may be used. */
export interface Entry {
  digest: string
  record: KeyRecord
  /** The connection's generation when the look-up began. */
  generation: number
  /** When the look-up began, in the order of this process's events. */
  begunAt: number
  /** The same on the monotonic clock, milliseconds. */
  begunMs: number
  /** The look-up's place in the feed of changes. */
  cursor: string
  /** When the last confirmation of it, by its look-up or by the script, began. Monotonic milliseconds. */
  confirmedMs: number
}

/** `fence`: the incarnation that the look-up was begun for, only after a `stale` answer. */
export type Found = { outcome: 'found', entry: Entry, fence?: string } | { outcome: 'unknown' }

/** One look-up, shared by all who may. It can be queued: then it has not begun, so it begins after everything that has happened. */
interface Flight {
  /** Infinity while queued. */
  begunAt: number
  fence?: string
  begin: () => void
  result: Promise<Entry | null>
}

export interface RecordsOptions {
  keyService: Pick<KeyServiceClient, 'verify'>
  connection: Pick<RedisConnection, 'generation'>
  recordTtlMs: number
  /** Least time between two attempts to refresh old records while key-service does not answer, milliseconds. */
  retryMs?: number
  /** Most that a request with an old record waits for a new one, milliseconds. */
  patienceMs?: number
  /** Most that a queued look-up waits for the one before it, milliseconds. */
  queueMs?: number
  /** Most records kept; the one looked up longest ago goes first. */
  capacity?: number
  nowMs?: () => number
}

/**
 * The records of keys by their secret's digest: looked up once, shared, and used only under the rules of design.md section 5.
 * Nothing here says whether a record is current; the script confirms that with every decision.
 */
export class Records {
  readonly #options: Required<RecordsOptions>
  readonly #entries = new Map<string, Entry>()
  /** By digest: the look-up that began last and still runs, and the one that waits behind it. */
  readonly #running = new Map<string, Flight>()
  readonly #queued = new Map<string, Flight>()
  #events = 0
  #lastFailureMs = -Infinity
  #isInDoubt = false
  #isProbing = false

  constructor (options: RecordsOptions) {
    this.#options = { retryMs: 1000, patienceMs: 250, queueMs: 25, capacity: 100_000, nowMs: () => performance.now(), ...options }
  }

  /** A moment in the order of this process's events: arrivals, replies and beginnings of look-ups. */
  moment (): number { return ++this.#events }

  /**
   * The record for a request that holds no fence, cached or looked up.
   * @param arrivedAt the request's `moment()`. @throws {KeyServiceUnavailableError}
   */
  async find (digest: string, arrivedAt: number): Promise<Found> {
    const cached = this.#entries.get(digest)
    if (cached !== undefined && cached.generation === this.#options.connection.generation) {
      const entry = this.#isOld(cached) ? await this.#refresh(cached) : cached
      if (entry !== null) return { outcome: 'found', entry }
    }
    const flight = this.#any(digest)
    const entry = await flight.result
    if (entry !== null) return { outcome: 'found', entry }
    // "Unknown" was read from a moment before this request came: the key may have been created since.
    if (flight.begunAt > arrivedAt) return { outcome: 'unknown' }
    return toFound(await this.#begunAfter(digest, arrivedAt).result)
  }

  /**
   * The record for a request that was answered `stale`: from a look-up begun after that answer, with the fence of that look-up.
   * @param repliedAt the `moment()` of the answer. @throws {KeyServiceUnavailableError}
   */
  async findAfterStale (digest: string, repliedAt: number, incarnation: string): Promise<Found> {
    const flight = this.#begunAfter(digest, repliedAt, incarnation)
    return toFound(await flight.result, flight.fence)
  }

  /** The record that is held, if any. Only for one who knows another way to confirm it. */
  held (digest: string): Entry | undefined {
    return this.#entries.get(digest)
  }

  /** The record from a look-up begun after a moment, for a request that no script will confirm. @throws {KeyServiceUnavailableError} */
  async findBegunAfter (digest: string, moment: number): Promise<Found> {
    return toFound(await this.#begunAfter(digest, moment).result)
  }

  /** True for about a second after key-service did not answer: it need not be asked for every request. */
  get keyServiceIsAway (): boolean {
    return this.#options.nowMs() - this.#lastFailureMs < this.#options.retryMs
  }

  /** The oldest cursor of the records held, after those were forgotten that nothing has confirmed since `confirmedAfterMs`. */
  oldestCursor (confirmedAfterMs: number): string | undefined {
    let oldest: string | undefined
    for (const [digest, { cursor, confirmedMs }] of this.#entries) {
      if (confirmedMs < confirmedAfterMs) this.#entries.delete(digest)
      else if (oldest === undefined || BigInt(cursor) < BigInt(oldest)) oldest = cursor
    }
    return oldest
  }

  clear (): void { this.#entries.clear() }

  /** Forgets a record that was found not to be current, unless a newer one has taken its place. */
  drop (entry: Entry): void {
    if (this.#entries.get(entry.digest) === entry) this.#entries.delete(entry.digest)
  }

  #isOld (entry: Entry): boolean {
    return this.#options.nowMs() - entry.begunMs >= this.#options.recordTtlMs
  }

  /**
   * Asks again for an old record. While key-service does not answer the old one goes on, since the script still confirms it: nobody
   * waits longer than `patienceMs`, and once it is in doubt one look-up a second tries, whatever the number of keys and requests.
   */
  async #refresh (old: Entry): Promise<Entry | null> {
    if (this.#isInDoubt && (this.#isProbing || this.keyServiceIsAway)) return old
    const isProbe = this.#isProbing = this.#isInDoubt
    let timer: NodeJS.Timeout | undefined
    const patience = new Promise<Entry>(resolve => {
      timer = setTimeout(() => {
        this.#isInDoubt = true
        this.#lastFailureMs = this.#options.nowMs()
        resolve(old)
      }, this.#options.patienceMs)
    })
    const flight = this.#any(old.digest)
    const settled = flight.result.finally(() => { if (isProbe) this.#isProbing = false })
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

  /** Any look-up will do: the record it brings is validated by the script. */
  #any (digest: string): Flight {
    const flight = this.#running.get(digest) ?? this.#queued.get(digest) ?? this.#create(digest)
    if (!this.#running.has(digest)) flight.begin()
    return flight
  }

  /** A look-up that begins after a moment, and for a request that holds a fence one that was begun for a fence too. */
  #begunAfter (digest: string, moment: number, fence?: string): Flight {
    const running = this.#running.get(digest)
    if (running !== undefined && running.begunAt > moment && (fence === undefined || running.fence !== undefined)) return running
    const flight = this.#queued.get(digest) ?? this.#enqueue(digest)
    if (fence !== undefined) flight.fence ??= fence
    return flight
  }

  /**
   * Begins when the running look-up has ended, but waits for it no longer than `queueMs`. Never before the replies that this turn
   * of the event loop brings are read: all of them may share it then.
   */
  #enqueue (digest: string): Flight {
    const flight = this.#create(digest)
    this.#queued.set(digest, flight)
    setImmediate(() => {
      const running = this.#running.get(digest)
      if (running === undefined) flight.begin()
      else {
        const timer = setTimeout(flight.begin, this.#options.queueMs)
        running.result.catch(() => {}).finally(() => { clearTimeout(timer); flight.begin() })
      }
    })
    return flight
  }

  #create (digest: string): Flight {
    let start = (): void => {}
    const started = new Promise<void>(resolve => { start = resolve })
    const flight: Flight = {
      begunAt: Infinity,
      begin: () => {
        if (flight.begunAt !== Infinity) return
        flight.begunAt = this.moment()
        if (this.#queued.get(digest) === flight) this.#queued.delete(digest)
        this.#running.set(digest, flight)
        start()
      },
      result: started.then(async () => await this.#ask(digest, flight.begunAt)).finally(() => { if (this.#running.get(digest) === flight) this.#running.delete(digest) })
    }
    return flight
  }

  async #ask (digest: string, begunAt: number): Promise<Entry | null> {
    const begun = { begunAt, begunMs: this.#options.nowMs(), generation: this.#options.connection.generation }
    try {
      const answer = await this.#options.keyService.verify(digest)
      this.#isInDoubt = false
      return answer.outcome === 'unknown' ? this.#forget(digest, begunAt) : this.#keep({ digest, record: answer.record, cursor: answer.cursor, confirmedMs: begun.begunMs, ...begun })
    } catch (error) {
      this.#isInDoubt = true
      this.#lastFailureMs = this.#options.nowMs()
      throw error
    }
  }

  /** A look-up that began later may have ended earlier: what it brought stays. */
  #keep (entry: Entry): Entry {
    const kept = this.#entries.get(entry.digest)
    if (kept === undefined || kept.begunAt < entry.begunAt) {
      this.#entries.delete(entry.digest)
      this.#entries.set(entry.digest, entry)
      if (this.#entries.size > this.#options.capacity) this.#entries.delete(this.#entries.keys().next().value as string)
    }
    return entry
  }

  #forget (digest: string, begunAt: number): null {
    const kept = this.#entries.get(digest)
    if (kept !== undefined && kept.begunAt < begunAt) this.#entries.delete(digest)
    return null
  }
}

function toFound (entry: Entry | null, fence?: string): Found {
  return entry === null ? { outcome: 'unknown' } : { outcome: 'found', entry, ...(fence === undefined ? {} : { fence }) }
}
