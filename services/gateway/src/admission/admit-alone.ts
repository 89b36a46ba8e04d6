import type { Limiter } from '@keygate/rate-limit'
import { KeyServiceUnavailableError } from '../key-service/client.ts'
import type { ChangeFeed } from '../key-service/change-feed.ts'
import type { Metrics } from '../metrics.ts'
import { costOf, notAfterOf, rounds, whatExpired, type Admission, type Candidate } from './candidate.ts'
import type { Entry, Records } from './records.ts'

export interface AdmitAloneOptions {
  records: Records
  limiter: Limiter
  feed: ChangeFeed
  metrics: Metrics
  /** How long a record goes on that neither Redis nor key-service can confirm, milliseconds; 0 refuses. */
  maxUnconfirmedMs: number
  nowMs?: () => number
}

/** A confirmation counts for so long, from the moment it BEGAN: the bound of a change's lag without Redis (P2). Milliseconds. */
const confirmationMs = 1000

/**
 * Admission while Redis does not answer (design.md section 5): a record is used only while something has confirmed it less than a
 * second ago, and key-service is asked first otherwise; the limit is this replica's share.
 *
 * @param failedAt the `moment()` of a decision that failed although Redis was thought to answer: then only a look-up begun after
 * it will do, since the change that it would have told may be younger than any confirmation. `undefined`: Redis was not asked.
 */
export async function admitAlone (candidate: Candidate, arrivedAt: number, failedAt: number | undefined, options: AdmitAloneOptions): Promise<Admission> {
  const { records, feed } = options
  const nowMs = options.nowMs ?? (() => performance.now())
  feed.keepAlive()
  const held = records.held(candidate.digest)
  if (failedAt === undefined && held !== undefined && isConfirmed(held, feed, confirmationMs, nowMs())) return judge(candidate, held, options)

  let moment = failedAt ?? arrivedAt
  for (let round = 1; round <= rounds; round++) {
    try {
      if (records.keyServiceIsAway && held !== undefined) throw new KeyServiceUnavailableError('it did not answer lately')
      const found = await records.findBegunAfter(candidate.digest, moment)
      if (found.outcome === 'unknown') return { outcome: 'refused', code: 'invalid_credentials' }
      // A look-up that was held up on its way is no confirmation any more, and one that was overtaken by a change is none at all.
      if (isConfirmed(found.entry, feed, confirmationMs, nowMs())) return judge(candidate, found.entry, options)
      moment = records.moment()
    } catch (error) {
      if (!(error instanceof KeyServiceUnavailableError)) throw error
      if (held === undefined || !isConfirmed(held, feed, options.maxUnconfirmedMs, nowMs())) return { outcome: 'refused', code: 'key_service_unavailable' }
      options.metrics.unconfirmed.inc()
      return judge(candidate, held, options)
    }
  }
  return { outcome: 'refused', code: 'unsettled' }
}

/** Nothing newer was told, and something has confirmed the record less than `withinMs` ago. */
export function isConfirmed (entry: Entry, feed: Pick<ChangeFeed, 'covers' | 'isBehind' | 'polledMs' | 'hasAnswered'>, withinMs: number, nowMs: number): boolean {
  if (feed.isBehind(entry.record)) return false
  // Read before the place where the feed begins: a change in between would never be told.
  if (feed.hasAnswered && !feed.covers(entry.cursor)) return false
  const polledMs = feed.hasAnswered && entry.begunMs <= feed.polledMs ? feed.polledMs : -Infinity
  return nowMs - Math.max(entry.confirmedMs, polledMs) < withinMs
}

function judge (candidate: Candidate, { record }: Entry, { limiter, metrics }: AdmitAloneOptions): Admission {
  const refusal = candidate.judge(record)
  const outcome = limiter.decideAlone({ cost: costOf(candidate, refusal), limits: candidate.limits(record), notAfterMs: notAfterOf(record) })
  const atMs = limiter.nowMs()
  metrics.decided(outcome.outcome, 'local')
  switch (outcome.outcome) {
    case 'admitted': return refusal === null ? { outcome: 'admitted', record, atMs } : { outcome: 'refused', code: refusal, record, atMs }
    case 'limited': return { outcome: 'refused', code: 'limited', record, alone: outcome, atMs }
    case 'expired': return { outcome: 'refused', code: whatExpired(record, refusal, atMs), record, atMs }
    case 'closed': return { outcome: 'refused', code: 'store_unavailable' }
  }
}
