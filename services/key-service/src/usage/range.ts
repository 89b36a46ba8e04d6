import { instantOf } from '../audit/queries.ts'
import { unacceptable } from '../errors.ts'

const minuteMs = 60_000
const hourMs = 3_600_000
const dayMs = 86_400_000

/** How long one step is, how many are told when nobody says from when, and how many days may be asked for at once: as many as are kept. */
export const intervals = {
  minute: { ms: minuteMs, steps: 60, mostDays: 7 },
  hour: { ms: hourMs, steps: 24, mostDays: 90 },
  day: { ms: dayMs, steps: 30, mostDays: Infinity }
} as const
export type Interval = keyof typeof intervals

/** The same where all keys of a project are compared: their rows are as many as there are keys, and nobody waits long. */
export const topKeysDays = { hour: 7, day: 31 } as const

/** Whole steps, in UTC: from the beginning of one until the end of another. ISO 8601. */
export interface Range { from: string, until: string }

/** What PostgreSQL and an ISO text of four digits both know. */
const [firstMs, lastMs] = [Date.parse('0001-01-01T00:00:00.000Z'), Date.parse('9999-12-31T23:59:59.999Z')]

/**
 * The steps that a request is about: all that the time from `from` until `until` touches, each as a whole. Without `until` the last one is
 * the step that is running; without `from` there are as many as a chart shows. Pure.
 *
 * @param most how many days may be asked for, by interval; without it as many as are kept.
 * @throws {ProblemError} 422: not a moment, the wrong way round, or longer than that.
 */
export function rangeOf <I extends Interval> ({ interval, from, until }: { interval: I, from?: string, until?: string }, nowMs: number, most?: Record<I, number>): Range {
  const { ms, steps, mostDays: keptDays } = intervals[interval]
  const mostDays = most?.[interval] ?? keptDays
  const down = (moment: number): number => Math.floor(moment / ms) * ms
  const up = (moment: number): number => Math.ceil(moment / ms) * ms
  const untilMs = until === undefined ? down(nowMs) + ms : Date.parse(instantOf('/until', until))
  const fromMs = from === undefined ? Math.max(firstMs, up(untilMs) - steps * ms) : Date.parse(instantOf('/from', from))
  if (fromMs >= untilMs) {
    throw unacceptable([from === undefined
      ? { pointer: '/until', message: 'must be later' }
      : { pointer: '/from', message: until === undefined ? 'must not lie in the future; give until as well, or an earlier from' : 'must be before until' }])
  }
  // One step more, because who asks for "the last 7 days" has another clock.
  if ((until === undefined ? nowMs : untilMs) - fromMs > mostDays * dayMs + ms) {
    throw unacceptable([{ pointer: '/from', message: `must be at most ${mostDays} days before until when interval is ${interval}; ask for a longer interval, or for less at a time` }])
  }
  return { from: isoOf(down(fromMs)), until: isoOf(Math.min(up(untilMs), lastMs)) }
}

/** The beginning of the hour that a moment lies in. ISO 8601. */
export function hourOf (moment: string): string {
  return isoOf(Math.floor(Date.parse(moment) / hourMs) * hourMs)
}

function isoOf (ms: number): string {
  return new Date(ms).toISOString()
}
