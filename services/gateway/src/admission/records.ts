import type { RedisConnection } from '@keygate/rate-limit'
import type { KeyServiceClient } from '../key-service/client.ts'
import { LookUps } from './look-ups.ts'
import { RecordCache, type Entry } from './record-cache.ts'
import { Refreshing } from './refreshing.ts'

export type { Entry } from './record-cache.ts'

/** `fence`: the incarnation that the look-up was begun for, only after a `stale` answer. */
export type Found = { outcome: 'found', entry: Entry, fence?: string } | { outcome: 'unknown' }

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
  readonly #options: Pick<RecordsOptions, 'keyService' | 'connection' | 'recordTtlMs'> & { nowMs: () => number }
  readonly #cache: RecordCache
  readonly #lookUps: LookUps<Entry | null>
  readonly #refreshing: Refreshing
  #events = 0

  constructor ({ keyService, connection, recordTtlMs, retryMs = 1000, patienceMs = 250, queueMs = 25, capacity = 100_000, nowMs = () => performance.now() }: RecordsOptions) {
    this.#options = { keyService, connection, recordTtlMs, nowMs }
    this.#cache = new RecordCache(capacity)
    this.#refreshing = new Refreshing({ retryMs, patienceMs, nowMs })
    this.#lookUps = new LookUps({ moment: () => this.moment(), ask: async (digest, begunAt) => await this.#ask(digest, begunAt), queueMs })
  }

  /** A moment in the order of this process's events: arrivals, replies and beginnings of look-ups. */
  moment (): number { return ++this.#events }

  /** The record if it is here and may be used at once, as in nearly every request. */
  cached (digest: string): Entry | undefined {
    const entry = this.#cache.get(digest)
    return entry !== undefined && this.#isOfThisConnection(entry) && !this.#isOld(entry) ? entry : undefined
  }

  /**
   * The record for a request that holds no fence, cached or looked up.
   * @param arrivedAt the request's `moment()`. @throws {KeyServiceUnavailableError}
   */
  async find (digest: string, arrivedAt: number): Promise<Found> {
    const cached = this.#cache.get(digest)
    if (cached !== undefined && this.#isOfThisConnection(cached)) {
      const entry = this.#isOld(cached) ? await this.#refreshing.insteadOf(cached, async () => await this.#lookUps.any(digest).result) : cached
      if (entry !== null) return { outcome: 'found', entry }
    }
    const lookUp = this.#lookUps.any(digest)
    const entry = await lookUp.result
    if (entry !== null) return { outcome: 'found', entry }
    // "Unknown" was read from a moment before this request came: the key may have been created since.
    if (lookUp.begunAt > arrivedAt) return { outcome: 'unknown' }
    return toFound(await this.#lookUps.begunAfter(digest, arrivedAt).result)
  }

  /**
   * The record for a request that was answered `stale`: from a look-up begun after that answer, with the fence of that look-up.
   * @param repliedAt the `moment()` of the answer. @throws {KeyServiceUnavailableError}
   */
  async findAfterStale (digest: string, repliedAt: number, incarnation: string): Promise<Found> {
    const lookUp = this.#lookUps.begunAfter(digest, repliedAt, incarnation)
    return toFound(await lookUp.result, lookUp.fence)
  }

  /** The record that is held, if any. Only for one who knows another way to confirm it. */
  held (digest: string): Entry | undefined {
    return this.#cache.get(digest)
  }

  /** The record from a look-up begun after a moment, for a request that no script will confirm. @throws {KeyServiceUnavailableError} */
  async findBegunAfter (digest: string, moment: number): Promise<Found> {
    return toFound(await this.#lookUps.begunAfter(digest, moment).result)
  }

  /** True for about a second after key-service did not answer: it need not be asked for every request. */
  get keyServiceIsAway (): boolean { return this.#refreshing.isAway }

  /** The oldest cursor of the records held, after those were forgotten that nothing has confirmed since `confirmedAfterMs`. */
  oldestCursor (confirmedAfterMs: number): string | undefined { return this.#cache.oldestCursor(confirmedAfterMs) }

  clear (): void { this.#cache.clear() }

  /** Forgets a record that was found not to be current, unless a newer one has taken its place. */
  drop (entry: Entry): void { this.#cache.drop(entry) }

  /** A record of another generation was true of a memory that may be gone. */
  #isOfThisConnection (entry: Entry): boolean {
    return entry.generation === this.#options.connection.generation
  }

  #isOld (entry: Entry): boolean {
    return this.#options.nowMs() - entry.begunMs >= this.#options.recordTtlMs
  }

  async #ask (digest: string, begunAt: number): Promise<Entry | null> {
    const { keyService, connection, nowMs } = this.#options
    const begun = { begunAt, begunMs: nowMs(), generation: connection.generation }
    try {
      const answer = await keyService.verify(digest)
      this.#refreshing.answered()
      if (answer.outcome === 'unknown') {
        this.#cache.forget(digest, begunAt)
        return null
      }
      const entry = { digest, record: answer.record, cursor: answer.cursor, confirmedMs: begun.begunMs, ...begun }
      this.#cache.keep(entry)
      return entry
    } catch (error) {
      this.#refreshing.failed()
      throw error
    }
  }
}

function toFound (entry: Entry | null, fence?: string): Found {
  return entry === null ? { outcome: 'unknown' } : { outcome: 'found', entry, ...(fence === undefined ? {} : { fence }) }
}
