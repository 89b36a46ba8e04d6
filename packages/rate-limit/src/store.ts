import type { Decision } from './decision.ts'
import { policyFault, type Policy } from './policy.ts'

/** One policy and the log it is counted in. */
export interface LimitedBy { policy: Policy, log: string }

/** The versions a request's record was made of, to be confirmed before anything is counted. */
export interface VersionsSeen {
  projectId: string
  keyId: string
  keyVersion: number
  projectVersion: number
  /** The incarnation (`#`) that the record's look-up was begun for; only a record looked up after a `stale` answer has one. */
  fence?: string | undefined
  /** Who counts: this process's own random name. */
  bootId: string
  /** The connection's generation when the record's look-up began. */
  generation: number
}

export interface DecideRequest {
  /** 0 only looks: it charges nothing and is never `limited`. */
  cost: number
  limits: LimitedBy[]
  versions?: VersionsSeen | undefined
  /** Unix milliseconds, rounded down; at or after it the answer is `expired`. */
  notAfterMs?: number | undefined
}

export type DecideOutcome =
  | Decision
  /** The record is not the current one. Nothing was charged. */
  | { outcome: 'stale', incarnation: string, keyVersion: number | null, projectVersion: number | null }
  | { outcome: 'expired', nowMs: number }
  /** The connection has changed since the record was looked up; nothing was sent. Ask key-service again. */
  | { outcome: 'reconnected' }

/** Where admissions are counted. One contract holds for all stores (`test/store-contract.ts`). */
export interface Store {
  /**
   * Counts the request under every policy, all or nothing.
   *
   * @throws {RangeError} a cost or limit that cannot be counted; nothing was asked.
   * @throws {StoreUnavailableError} the store cannot answer; a charge may have been made and must not be repeated.
   */
  decide: (request: DecideRequest) => Promise<DecideOutcome>
  /** What a request would find, as a decision of cost 0: charges nothing and is always `admitted`. */
  peek: (limits: LimitedBy[]) => Promise<Decision>
  /** Forgets what was admitted under these policies: an administrator's act, the next window begins empty. */
  reset: (limits: LimitedBy[]) => Promise<void>
}

/** A wrong number must not reach a store: `NaN` or a text would be compared and limit nothing. */
export function assertCountable ({ cost, limits }: Pick<DecideRequest, 'cost' | 'limits'>): void {
  if (!Number.isSafeInteger(cost) || cost < 0) throw new RangeError(`cost must be a whole number of 0 or more, but is ${String(cost)}`)
  if (limits.length === 0) throw new RangeError('a decision needs at least one policy')
  for (const [i, { policy, log }] of limits.entries()) {
    const fault = policyFault(policy)
    if (fault !== undefined) throw new RangeError(fault)
    // Each would be judged before the other is charged: together they would pass the limit.
    for (let j = 0; j < i; j++) if (limits[j]?.log === log) throw new RangeError(`two policies of one request are counted in the same log ${log}`)
  }
}
