import { combine, type Decision, type PolicyDecision } from './decision.ts'
import type { Policy } from './policy.ts'
import { assertCountable, type DecideOutcome, type DecideRequest, type LimitedBy, type Store } from './store.ts'
import { Subjects, type Subject } from './subjects.ts'
import { charge, emptyLog, judge, note, redate, resetAfterMs, type Judgement, type WindowLog } from './window.ts'

export interface MemoryStoreOptions {
  /** The most logs it keeps. Default 50 000. */
  capacity?: number
  /** Unix microseconds. Default: the time at start, continued by the monotonic clock, which no one steps. */
  nowMicros?: () => number
}

/** The outcomes that need no Redis. */
export type LocalDecision = Decision | { outcome: 'expired', nowMs: number }

interface Judged { judgement: Judgement, policy: Policy, name: string, limit: number, subject: Subject | undefined, log: WindowLog }

/**
 * Decisions of one process alone, by the same exact algorithm as the script's.
 *
 * Bounded: at most `capacity` logs, each of at most its limit's entries. A subject that is not known is denied while every log
 * still counts; to forget one instead would let whoever sends many subjects reset the others. `versions` are not looked at.
 */
export class MemoryStore implements Store {
  readonly #subjects: Subjects
  readonly #nowMicros: () => number

  constructor ({ capacity = 50_000, nowMicros = monotonicMicros() }: MemoryStoreOptions = {}) {
    this.#subjects = new Subjects(capacity)
    this.#nowMicros = nowMicros
  }

  /** How many logs it keeps, those that have ended but were not needed for room included. */
  get size (): number { return this.#subjects.size }

  async decide (request: DecideRequest): Promise<DecideOutcome> {
    return this.decideNow(request)
  }

  async peek (limits: LimitedBy[]): Promise<Decision> {
    return this.decideNow({ cost: 0, limits }) as Decision
  }

  async reset (limits: LimitedBy[]): Promise<void> {
    for (const { log } of limits) this.#subjects.forget(log)
  }

  /**
   * As `decide`, at once.
   *
   * @param limitOf what counts as the policy's limit in this call: a replica's share of it, a whole number of 1 or more.
   * @throws {RangeError} a cost or limit that cannot be counted.
   */
  decideNow (request: DecideRequest, { limitOf = ({ limit }) => limit }: { limitOf?: (policy: Policy) => number } = {}): LocalDecision {
    assertCountable(request)
    const { cost, limits, notAfterMs } = request
    const time = this.#nowMicros()
    const nowMs = Math.floor(time / 1000)
    if (notAfterMs !== undefined && time >= notAfterMs * 1000) return { outcome: 'expired', nowMs }
    const judged = limits.map(limitedBy => this.#judge(limitedBy, limitOf(limitedBy.policy), cost, time))
    if (!judged.every(j => j.judgement.admits)) return combine('limited', nowMs, judged.map(j => decisionOf(j, j.judgement.oldest, 0, time)))
    if (cost === 0) return combine('admitted', nowMs, judged.map(j => decisionOf(j, j.judgement.oldest, 0, time)))
    const unknown = judged.filter(j => j.subject === undefined).length
    if (unknown > 0 && !this.#subjects.makeRoom(unknown, time, judged.map(j => j.subject))) return this.#full(judged, nowMs, time)
    return combine('admitted', nowMs, judged.map(j => decisionOf(j, this.#charge(j, cost), cost, time)))
  }

  /**
   * Writes down an admission that was made elsewhere, so that counting alone goes on from it: of each log the newest `share` stay.
   * While there is no room for an unknown subject it is left out; it will be denied.
   *
   * @param atMicros when, on this store's clock. Default: now, which is at or after the decision and so never too early.
   */
  note (limits: LimitedBy[], { cost, shareOf, atMicros = this.#nowMicros() }: { cost: number, shareOf: (policy: Policy) => number, atMicros?: number }): void {
    for (const { log: name, policy } of limits) {
      let subject = this.#subjects.find(name, policy)
      if (subject === undefined) {
        if (!this.#subjects.makeRoom(1, atMicros, [])) continue
        subject = this.#subjects.add(name, policy)
      }
      note(subject.log, shareOf(policy), cost, atMicros)
      this.#subjects.touch(subject)
    }
  }

  #judge ({ policy, log: name }: LimitedBy, limit: number, cost: number, time: number): Judged {
    const subject = this.#subjects.find(name, policy)
    const log = subject?.log ?? emptyLog(policy)
    const judgement = judge(log, limit, cost, time)
    // Also for a request that is denied or only looks: a log that kept its later dates would stand still.
    if (judgement.shift > 0) redate(log, judgement)
    return { judgement, policy, name, limit, subject, log }
  }

  #charge (judged: Judged, cost: number): number {
    const subject = judged.subject ?? this.#subjects.add(judged.name, judged.policy)
    const oldest = charge(subject.log, judged.judgement, cost)
    this.#subjects.touch(subject)
    return oldest
  }

  /** The unknown ones have to wait until a log ends. */
  #full (judged: Judged[], nowMs: number, time: number): Decision {
    const waitMs = Math.max(1, Math.ceil((this.#subjects.nextEnd() - time) / 1000))
    return combine('limited', nowMs, judged.map(j => j.subject === undefined
      ? { policy: j.policy, remaining: 0, resetMs: waitMs, retryAfterMs: waitMs }
      : decisionOf(j, j.judgement.oldest, 0, time)))
  }
}

function decisionOf ({ policy, log, limit, judgement: { used, retryAfterMs } }: Judged, oldest: number | undefined, charged: number, time: number): PolicyDecision {
  return { policy, remaining: Math.max(limit - used - charged, 0), resetMs: resetAfterMs(log, oldest, time), retryAfterMs }
}

function monotonicMicros (): () => number {
  const offset = Date.now() - performance.now()
  return () => Math.floor((offset + performance.now()) * 1000)
}
