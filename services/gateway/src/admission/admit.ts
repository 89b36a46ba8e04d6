import type { KeyRecord } from '@keygate/contracts'
import { StoreUnavailableError, type DecideOutcome, type Decision, type LimitedBy, type RedisStore } from '@keygate/rate-limit'
import type { RefusalCode } from '../errors.ts'
import { KeyServiceUnavailableError } from '../key-service/client.ts'
import type { Metrics } from '../metrics.ts'
import type { Found, Records } from './records.ts'

export interface Candidate {
  /** The secret's digest. */
  digest: string
  /** What is known of the request judges the record: `null`, or why it is refused. */
  judge: (record: KeyRecord) => RefusalCode | null
  limits: (record: KeyRecord) => LimitedBy[]
}

export type Admission =
  | { outcome: 'admitted', record: KeyRecord, decision: Decision }
  /** `decision` where one was made: its numbers go with the answer. */
  | { outcome: 'refused', code: RefusalCode, decision?: Decision }

export interface AdmitOptions { records: Records, store: RedisStore, metrics: Metrics, bootId: string }

/** Each round is a look-up and a decision; more than three means that the key is changed faster than it can be read. */
const rounds = 3

/**
 * Verify, authorize and decide, until the script has confirmed the record that the answer rests on (design.md section 5).
 * Every answer is a value; an exception is a fault of ours.
 */
export async function admit (candidate: Candidate, options: AdmitOptions): Promise<Admission> {
  try {
    return await settle(candidate, options)
  } catch (error) {
    if (error instanceof StoreUnavailableError) {
      options.metrics.storeFailures.inc()
      return { outcome: 'refused', code: 'store_unavailable' }
    }
    if (error instanceof KeyServiceUnavailableError) return { outcome: 'refused', code: 'key_service_unavailable' }
    throw error
  }
}

async function settle (candidate: Candidate, options: AdmitOptions): Promise<Admission> {
  const { records, metrics } = options
  const arrivedAt = records.moment()
  let found: Found = await records.find(candidate.digest, arrivedAt)
  for (let round = 1; found.outcome === 'found'; round++) {
    const { record } = found.entry
    const refusal = candidate.judge(record)
    const outcome = await decide(found, refusal, candidate.limits(record), options)
    switch (outcome.outcome) {
      case 'admitted': return refusal === null ? { outcome: 'admitted', record, decision: outcome } : { outcome: 'refused', code: refusal, decision: outcome }
      case 'limited': return { outcome: 'refused', code: 'limited', decision: outcome }
      case 'expired': return { outcome: 'refused', code: refusal === 'invalid_credentials' ? refusal : whatExpired(record, outcome.nowMs) }
    }
    records.drop(found.entry)
    if (round === rounds) return { outcome: 'refused', code: 'unsettled' }
    if (outcome.outcome === 'reconnected') {
      found = await records.find(candidate.digest, arrivedAt)
      continue
    }
    metrics.staleRounds.inc()
    found = await records.findAfterStale(candidate.digest, records.moment(), outcome.incarnation)
    if (found.outcome === 'found' && isBehind(found.entry.record, outcome)) {
      metrics.versionAhead.inc()
      return { outcome: 'refused', code: 'version_ahead' }
    }
  }
  return { outcome: 'refused', code: 'invalid_credentials' }
}

/** What is refused runs the same script and costs nothing: also a refusal rests on a record that must be confirmed. */
async function decide ({ entry, fence }: Found & { outcome: 'found' }, refusal: RefusalCode | null, limits: LimitedBy[], { store, metrics, bootId }: AdmitOptions): Promise<DecideOutcome> {
  const { projectId, keyId, keyVersion, projectVersion, notAfterMs, secretNotAfterMs } = entry.record
  const outcome = await store.decide({
    cost: refusal === null ? 1 : 0,
    limits,
    notAfterMs: earliest(notAfterMs, secretNotAfterMs),
    versions: { projectId, keyId, keyVersion, projectVersion, fence, generation: entry.generation, bootId }
  })
  metrics.decisions.inc({ outcome: outcome.outcome, store: 'redis' })
  return outcome
}

/** PostgreSQL, read after Redis answered, knows less than Redis: an older dump was restored, and any choice could revive a revoked key. */
function isBehind (record: KeyRecord, stored: { keyVersion: number | null, projectVersion: number | null }): boolean {
  return record.keyVersion < (stored.keyVersion ?? 0) || record.projectVersion < (stored.projectVersion ?? 0)
}

function earliest (...times: (number | null)[]): number | undefined {
  const given = times.filter(time => time !== null)
  return given.length === 0 ? undefined : Math.min(...given)
}

function whatExpired (record: KeyRecord, nowMs: number): RefusalCode {
  return record.notAfterMs !== null && nowMs >= record.notAfterMs ? 'key_expired' : 'secret_retired'
}
