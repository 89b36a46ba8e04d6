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
}

/** `fence`: the incarnation that the look-up was begun for, only after a `stale` answer. */
export type Found = { outcome: 'found', entry: Entry, fence?: string } | { outcome: 'unknown' }

interface Flight { begunAt: number, fence?: string, result: Promise<Entry | null> }

export interface RecordsOptions {
  keyService: KeyServiceClient
  connection: Pick<RedisConnection, 'generation'>
  recordTtlMs: number
  /** Least time between two attempts to refresh old records while key-service does not answer, milliseconds. */
  retryMs?: number
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
  readonly #flights = new Map<string, Flight>()
  #events = 0
  #lastFailureMs = -Infinity

  constructor (options: RecordsOptions) {
    this.#options = { retryMs: 1000, capacity: 100_000, nowMs: () => performance.now(), ...options }
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
    const flight = this.#flights.get(digest) ?? this.#begin(digest)
    const entry = await flight.result
    if (entry !== null) return { outcome: 'found', entry }
    // "Unknown" was read from a moment before this request came: the key may have been created since.
    if (flight.begunAt > arrivedAt) return { outcome: 'unknown' }
    return toFound(await this.#join(digest, arrivedAt).result)
  }

  /**
   * The record for a request that was answered `stale`: from a look-up begun after that answer, with the fence of that look-up.
   * @param repliedAt the `moment()` of the answer. @throws {KeyServiceUnavailableError}
   */
  async findAfterStale (digest: string, repliedAt: number, incarnation: string): Promise<Found> {
    const running = this.#flights.get(digest)
    const flight = running !== undefined && running.begunAt > repliedAt && running.fence !== undefined ? running : this.#begin(digest, incarnation)
    return toFound(await flight.result, flight.fence)
  }

  /** Forgets a record that was found not to be current, unless a newer one has taken its place. */
  drop (entry: Entry): void {
    if (this.#entries.get(entry.digest) === entry) this.#entries.delete(entry.digest)
  }

  #isOld (entry: Entry): boolean {
    return this.#options.nowMs() - entry.begunMs >= this.#options.recordTtlMs
  }

  /** Asks again for an old record. While key-service is away the old one goes on: the script still confirms it. */
  async #refresh (old: Entry): Promise<Entry | null> {
    if (this.#options.nowMs() - this.#lastFailureMs < this.#options.retryMs) return old
    try {
      return await (this.#flights.get(old.digest) ?? this.#begin(old.digest)).result
    } catch (error) {
      if (!(error instanceof KeyServiceUnavailableError)) throw error
      return old
    }
  }

  #join (digest: string, after: number): Flight {
    const running = this.#flights.get(digest)
    return running !== undefined && running.begunAt > after ? running : this.#begin(digest)
  }

  #begin (digest: string, fence?: string): Flight {
    const begun = { begunAt: this.moment(), begunMs: this.#options.nowMs(), generation: this.#options.connection.generation }
    const result = this.#options.keyService.verify(digest).then(
      answer => answer.outcome === 'unknown' ? this.#forget(digest, begun.begunAt) : this.#keep({ digest, record: answer.record, ...begun }),
      error => {
        this.#lastFailureMs = this.#options.nowMs()
        throw error
      }
    ).finally(() => { if (this.#flights.get(digest) === flight) this.#flights.delete(digest) })
    const flight: Flight = { begunAt: begun.begunAt, result, ...(fence === undefined ? {} : { fence }) }
    this.#flights.set(digest, flight)
    return flight
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
