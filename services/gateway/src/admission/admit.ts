import type { KeyRecord } from '@keygate/contracts'
import { StoreUnavailableError, type DecideOutcome, type DecideRequest } from '@keygate/rate-limit'
import type { RefusalCode } from '../errors.ts'
import { KeyServiceUnavailableError } from '../key-service/client.ts'
import type { DecisionLog } from '../usage/recorder.ts'
import { admitAlone, type AdmitAloneOptions } from './admit-alone.ts'
import { costOf, notAfterOf, rounds, whatExpired, type Admission, type Candidate } from './candidate.ts'
import type { Found } from './records.ts'

export interface AdmitOptions extends AdmitAloneOptions {
  bootId: string
  usage: DecisionLog
}

/**
 * Verify, authorize and decide, until the script has confirmed the record that the answer rests on (design.md section 5).
 * Every answer is a value; an exception is a fault of ours.
 */
export async function admit (candidate: Candidate, options: AdmitOptions): Promise<Admission> {
  const { records, limiter, metrics } = options
  const arrivedAt = records.moment()
  // Not to be tried first: every attempt to reconnect makes the records' generation old, and they would all be looked up in vain.
  if (!limiter.canAsk) return await admitAlone(candidate, arrivedAt, undefined, options)
  try {
    return await settle(candidate, arrivedAt, options)
  } catch (error) {
    if (error instanceof KeyServiceUnavailableError) {
      return limiter.isAlone ? await admitAlone(candidate, arrivedAt, undefined, options) : { outcome: 'refused', code: 'key_service_unavailable' }
    }
    if (!(error instanceof StoreUnavailableError)) throw error
    metrics.storeFailures.inc()
    return await admitAlone(candidate, arrivedAt, error.asked ? records.moment() : undefined, options)
  }
}

async function settle (candidate: Candidate, arrivedAt: number, options: AdmitOptions): Promise<Admission> {
  const { records, metrics } = options
  const cached = records.cached(candidate.digest)
  let found: Found = cached === undefined ? await records.find(candidate.digest, arrivedAt) : { outcome: 'found', entry: cached }
  for (let round = 1; found.outcome === 'found'; round++) {
    const { record } = found.entry
    const refusal = candidate.judge(record)
    const begunMs = performance.now()
    const outcome = await decide(found, refusal, candidate, options)
    metrics.decided(outcome.outcome, 'redis')
    if (outcome.outcome !== 'stale' && outcome.outcome !== 'reconnected') found.entry.confirmedMs = begunMs
    switch (outcome.outcome) {
      case 'admitted': {
        const grounds = { record, decision: outcome, atMs: outcome.nowMs }
        if (refusal !== null) return { outcome: 'refused', code: refusal, ...grounds }
        return { outcome: 'admitted', ...grounds, line: candidate.isFree === true ? null : options.usage.admitted(record, outcome.nowMs) }
      }
      case 'limited': return { outcome: 'refused', code: 'limited', record, decision: outcome, atMs: outcome.nowMs }
      case 'expired': return { outcome: 'refused', code: whatExpired(record, refusal, outcome.nowMs), record, atMs: outcome.nowMs }
    }
    records.drop(found.entry)
    if (round === rounds) return { outcome: 'refused', code: 'unsettled' }
    if (outcome.outcome === 'reconnected') {
      found = await records.find(candidate.digest, arrivedAt)
      continue
    }
    metrics.staleRounds.inc()
    options.usage.sawIncarnation(record.projectId, outcome.incarnation)
    found = await records.findAfterStale(candidate.digest, records.moment(), outcome.incarnation)
    if (found.outcome === 'found' && isBehind(found.entry.record, outcome)) {
      metrics.versionAhead.inc()
      return { outcome: 'refused', code: 'version_ahead' }
    }
  }
  return { outcome: 'refused', code: 'invalid_credentials' }
}

async function decide (found: Found & { outcome: 'found' }, refusal: RefusalCode | null, candidate: Candidate, options: AdmitOptions): Promise<DecideOutcome> {
  const question = questionOf(found, refusal, candidate, options)
  try {
    return await options.limiter.decide(question)
  } catch (error) {
    if (error instanceof StoreUnavailableError && error.asked && question.cost > 0) options.usage.unanswered(found.entry.record)
    throw error
  }
}

/** What the script is asked. What is refused costs nothing and is asked as well: also a refusal rests on a record that must be confirmed. */
function questionOf ({ entry: { record, generation }, fence }: Found & { outcome: 'found' }, refusal: RefusalCode | null, candidate: Candidate, { bootId }: AdmitOptions): DecideRequest {
  const { projectId, keyId, keyVersion, projectVersion } = record
  return {
    cost: costOf(candidate, refusal),
    limits: candidate.limits(record),
    notAfterMs: notAfterOf(record),
    versions: { projectId, keyId, keyVersion, projectVersion, fence, generation, bootId }
  }
}

/** PostgreSQL, read after Redis answered, knows less than Redis: an older dump was restored, and any choice could revive a revoked key. */
function isBehind (record: KeyRecord, stored: { keyVersion: number | null, projectVersion: number | null }): boolean {
  return record.keyVersion < (stored.keyVersion ?? 0) || record.projectVersion < (stored.projectVersion ?? 0)
}
