import type { Policy } from './policy.ts'
import { Stamps } from './stamps.ts'

/**
 * The algorithm of the script in `decide-script.ts`, for a log in this process's memory. All moments are microseconds.
 *
 * Judging is pure; `redate`, `charge` and `note` change the log. A moment `t` counts at `now` as long as `t > now - window`.
 */
export type WindowLog = SlidingLog | FixedLog

interface SlidingLog { algorithm: 'sliding', windowMicros: number, stamps: Stamps }
/** `count` since `start`, the moment of the first request of the window. */
interface FixedLog { algorithm: 'fixed', windowMicros: number, start: number, count: number }

export function emptyLog ({ algorithm, windowSeconds }: Pick<Policy, 'algorithm' | 'windowSeconds'>): WindowLog {
  const windowMicros = windowSeconds * 1_000_000
  return algorithm === 'sliding' ? { algorithm, windowMicros, stamps: new Stamps() } : { algorithm, windowMicros, start: 0, count: 0 }
}

/** What a log says of a request, before anything is charged. */
export interface Judgement {
  admits: boolean
  /** How much counts now. */
  used: number
  /** The oldest moment that counts, if any does. */
  oldest: number | undefined
  /** How many of the log's oldest entries have left the window. */
  dead: number
  /** The moment at which a charge is written down: later than the clock while that is held. */
  now: number
  /** By how much the log has to be re-dated first, see `stepBack`. */
  shift: number
  /** Milliseconds until the request could be admitted; 0: now, -1: never. */
  retryAfterMs: number
}

export function judge (log: WindowLog, limit: number, cost: number, time: number): Judgement {
  const { now, shift } = stepBack(latest(log), log.windowMicros, time)
  const cut = now + shift - log.windowMicros
  const dead = log.algorithm === 'sliding' ? log.stamps.countUpTo(cut) : log.start > cut ? 0 : log.count
  const used = lengthOf(log) - dead
  const leaving = (nth: number): number => (log.algorithm === 'sliding' ? log.stamps.at(dead + nth - 1) : log.start) - shift
  const admits = cost === 0 || used + cost <= limit
  let retryAfterMs = 0
  // Counted from the clock, not from where it is held: who waits so long must be admitted.
  if (!admits) retryAfterMs = cost > limit ? -1 : Math.ceil((leaving(used + cost - limit) + log.windowMicros - time) / 1000)
  return { admits, used, oldest: used > 0 ? leaving(1) : undefined, dead, now, shift, retryAfterMs }
}

/** Milliseconds until the oldest entry leaves the window, or the window's length when it is empty. */
export function resetAfterMs ({ windowMicros }: WindowLog, oldest: number | undefined, time: number): number {
  return Math.ceil(((oldest ?? time) + windowMicros - time) / 1000)
}

/** Writes down that the log's clock has stepped back by more than a window: all ages stay. */
export function redate (log: WindowLog, { shift }: Judgement): void {
  if (log.algorithm === 'sliding') log.stamps.shift(shift)
  else log.start -= shift
}

/** Counts an admitted request and returns the oldest moment that counts now. */
export function charge (log: WindowLog, { dead, now, oldest = now }: Judgement, cost: number): number {
  if (log.algorithm === 'sliding') {
    if (dead > 0) log.stamps.drop(dead)
    log.stamps.push(now, cost)
  } else {
    log.count += cost - dead
    log.start = oldest
  }
  return oldest
}

/** Writes down what was admitted elsewhere, and keeps no more than the newest `share`. */
export function note (log: WindowLog, share: number, cost: number, time: number): void {
  const judgement = judge(log, share, 0, time)
  if (judgement.shift > 0) redate(log, judgement)
  charge(log, judgement, Math.min(cost, share))
  if (log.algorithm === 'fixed') log.count = Math.min(log.count, share)
  else if (log.stamps.length > share) log.stamps.drop(log.stamps.length - share)
}

/** The moment from which nothing in the log counts any more. */
export function endOf (log: WindowLog): number {
  return lengthOf(log) === 0 ? -Infinity : latest(log) + log.windowMicros
}

/**
 * A clock behind the log's last entry has stepped back. By a window or less: it is held at that entry until time has caught up.
 * By more: the log is re-dated so that its last entry is now. Either way nothing leaves early and nothing stays two windows long.
 */
function stepBack (last: number, windowMicros: number, time: number): { now: number, shift: number } {
  if (last <= time) return { now: time, shift: 0 }
  return last - time > windowMicros ? { now: time, shift: last - time } : { now: last, shift: 0 }
}

function latest (log: WindowLog): number {
  if (log.algorithm === 'fixed') return log.start
  return log.stamps.length === 0 ? -Infinity : log.stamps.at(log.stamps.length - 1)
}

function lengthOf (log: WindowLog): number {
  return log.algorithm === 'sliding' ? log.stamps.length : log.count
}
