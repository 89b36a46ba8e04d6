import { setImmediate } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import type { KeyRecord } from '@keygate/contracts'
import { StoreUnavailableError } from '@keygate/rate-limit'
import type { Booking, Ending } from './booking.ts'
import { Fold, type FoldBounds } from './fold.ts'
import { Ledger, type OpenLine } from './ledger.ts'
import { pack } from './pack.ts'
import type { UsageStream } from './stream.ts'

/** Bytes of one entry. */
const longestBatch = 256 * 1024
/** Projects whose memory of Redis is known here. */
const rememberedIncarnations = 100_000

export interface RecorderOptions {
  stream: UsageStream
  bootId: string
  /** Redis's clock as far as it is known here, Unix milliseconds. */
  nowMs: () => number
  log: Pick<FastifyBaseLogger, 'error' | 'warn' | 'info'>
  flushMs: number
  bounds?: FoldBounds
}

/** What admission tells of its decisions. */
export interface DecisionLog {
  /** The script has admitted a request: the line that it stands on until it has ended; `null`: nothing is recorded. */
  admitted: (record: Pick<KeyRecord, 'projectId'>, atMs: number) => OpenLine | null
  /** A decision was asked for and not answered in time: the script may have admitted the request. */
  unanswered: (record: Pick<KeyRecord, 'projectId'>) => void
  /** The memory of Redis in which a project is counted, as a `stale` answer told it. */
  sawIncarnation: (projectId: string, incarnation: string) => void
}

/** For a gateway that records nothing. */
export const noDecisionLog: DecisionLog = { admitted: () => null, unanswered: () => {}, sawIncarnation: () => {} }

/**
 * Usage as it is counted here and sent on its way: every `flushMs` if there is anything to tell. No request waits for it, and none fails by it.
 *
 * A batch that was not confirmed is sent again as it was, since it may have arrived: its number tells. What comes meanwhile is folded into the
 * next ones, so that however long Redis is away, there is one fold that is on its way, one batch of it at a time, and one that grows to its bounds.
 */
export class UsageRecorder implements DecisionLog {
  readonly #options: RecorderOptions
  readonly #ledger = new Ledger()
  readonly #incarnations = new Map<string, string>()
  #fold: Fold
  #news: Array<{ projectId: string, incarnation: string, minute: number }> = []
  /** Batches that are still to be written down, of folds that grow no more; and the one that was sent and is not confirmed. */
  #packs: Array<Generator<string, void>> = []
  #unconfirmed: string | undefined
  #nextSeq = 0
  #replica: string | undefined
  #timer: NodeJS.Timeout | undefined
  #sending: Promise<void> | undefined
  #isStopped = false
  #isFailing = false
  #hasMissed = false
  readonly #droppedBefore = { requests: 0, rows: 0 }

  constructor (options: RecorderOptions) {
    this.#options = options
    this.#fold = new Fold(options.bounds)
  }

  /** Requests and rows that did not fit while nothing could be sent. */
  get dropped (): { requests: number, rows: number } {
    return { requests: this.#droppedBefore.requests + this.#fold.dropped.requests, rows: this.#droppedBefore.rows + this.#fold.dropped.rows }
  }

  admitted ({ projectId }: Pick<KeyRecord, 'projectId'>, atMs: number): OpenLine {
    const line = this.#ledger.lineOf(projectId, hourOf(atMs))
    line.admitted++
    this.#ledger.changed(line)
    return line
  }

  unanswered ({ projectId }: Pick<KeyRecord, 'projectId'>): void {
    const line = this.#ledger.lineOf(projectId, hourOf(this.#options.nowMs()))
    line.unanswered++
    this.#ledger.changed(line)
  }

  sawIncarnation (projectId: string, incarnation: string): void {
    if (this.#incarnations.get(projectId) === incarnation) return
    if (this.#incarnations.size >= rememberedIncarnations) this.#incarnations.clear()
    this.#incarnations.set(projectId, incarnation)
    this.#news.push({ projectId, incarnation, minute: Math.floor(this.#options.nowMs() / 60_000) })
  }

  /**
   * A request has ended. A fault in here is told and counted, never thrown: who calls is what ends answers.
   *
   * @param endingOf reads what is known of the end; it may throw as well.
   */
  ended (booking: Booking, endingOf: () => Ending): void {
    try {
      this.#fold.add(booking, endingOf())
    } catch (error) {
      this.#miss(error)
    }
    // Missed or not, the line says that it has ended: what is not in the sums is told as lost.
    if (booking.line === null) return
    booking.line.finished++
    this.#ledger.changed(booking.line)
  }

  /** From now on batches are sent; the first tells that this boot is there, and what people know it by. */
  start (replica: string): void {
    if (this.#replica !== undefined) return
    this.#replica = replica
    this.#seal()
    const tick = (): void => {
      if (!this.#isStopped) this.#timer = setTimeout(() => { this.#send().then(tick, tick) }, this.#options.flushMs).unref()
    }
    this.#send().then(tick, tick)
  }

  /** Sends what there is, with the last word on every line; to be called when no request is left. It never rejects. */
  async stop (): Promise<void> {
    this.#isStopped = true
    clearTimeout(this.#timer)
    if (this.#replica === undefined) return
    await setImmediate() // connections that were cut just now have told so only after this
    await this.#send() // may be one that was under way
    this.#seal(true)
    await this.#send()
    if (this.#unconfirmed !== undefined) this.#options.log.warn('Redis did not take the last batches of usage: they are lost, and will be counted as lost')
  }

  async #send (): Promise<void> {
    this.#sending ??= this.#attempt().finally(() => { this.#sending = undefined })
    await this.#sending
  }

  /** Everything that there is now, one batch after the other: others want to be answered between them. */
  async #attempt (): Promise<void> {
    try {
      if (this.#unconfirmed === undefined && this.#packs.length === 0 && this.#hasNews) this.#seal()
      for (;;) {
        this.#unconfirmed ??= this.#nextBatch()
        if (this.#unconfirmed === undefined) return
        await this.#options.stream.append(this.#unconfirmed)
        this.#unconfirmed = undefined
        if (this.#isFailing) this.#options.log.info('Redis takes usage again')
        this.#isFailing = false
      }
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) this.#options.log.error({ err: error }, 'usage could not be sent')
      else if (!this.#isFailing) this.#options.log.warn({ reason: error.message }, 'Redis does not take usage; it is kept and sent later')
      this.#isFailing = true
    }
  }

  get #nowMinute (): number { return Math.floor(this.#options.nowMs() / 60_000) }

  get #hasNews (): boolean { return !this.#fold.isEmpty || this.#news.length > 0 || this.#ledger.hasNews(this.#nowMinute) }

  #nextBatch (): string | undefined {
    for (let [first] = this.#packs; first !== undefined; [first] = this.#packs) {
      const batch = first.next().value
      if (batch !== undefined) return batch
      this.#packs.shift()
    }
    return undefined
  }

  /** The fold grows no more, and what it holds is to be sent until it is confirmed. Its totals are those of this moment. */
  #seal (isLast = false): void {
    const { bootId, nowMs, bounds } = this.#options
    const [fold, news, minute] = [this.#fold, this.#news, this.#nowMinute]
    this.#fold = new Fold(bounds)
    this.#news = []
    this.#droppedBefore.requests += fold.dropped.requests
    this.#droppedBefore.rows += fold.dropped.rows
    const lines = isLast ? this.#ledger.takeAll(minute) : this.#ledger.take(minute)
    const head = { version: 1, bootId, atMs: Math.floor(nowMs()), replica: this.#replica ?? '' } as const
    this.#packs.push(pack({ lines, incarnations: news, keys: fold.keys(), rows: fold.rows }, head, () => this.#nextSeq++, longestBatch))
  }

  #miss (error: unknown): void {
    this.#droppedBefore.requests++
    if (this.#hasMissed) return
    this.#hasMissed = true // one tells of all: there may be one for each request
    this.#options.log.error({ err: error }, 'the usage of a request could not be written down; gateway_usage_dropped_total tells of how many')
  }
}

function hourOf (ms: number): number { return Math.floor(ms / 3_600_000) }
