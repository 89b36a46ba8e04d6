import type { KeyRecord } from '@keygate/contracts'
import type { Decision, LimitedBy, LocalOutcome } from '@keygate/rate-limit'
import type { RefusalCode } from '../errors.ts'

export interface Candidate {
  /** The secret's digest. */
  digest: string
  /** What is known of the request judges the record: `null`, or why it is refused. */
  judge: (record: KeyRecord) => RefusalCode | null
  limits: (record: KeyRecord) => LimitedBy[]
}

/** What an answer rests on. */
export interface Grounds {
  /** The key's record, once it is confirmed. */
  record?: KeyRecord
  /** The numbers of the shared decision. */
  decision?: Decision
  /** Those of this replica alone, which no RateLimit field may show. */
  alone?: LocalOutcome & { outcome: 'limited' }
}

export type Admission =
  | { outcome: 'admitted', record: KeyRecord } & Grounds
  | { outcome: 'refused', code: RefusalCode } & Grounds

/** Each round is a look-up and a decision; more than three means that the key is changed faster than it can be read. */
export const rounds = 3

/** What ends first, the key or a replaced secret's grace. Unix milliseconds. */
export function notAfterOf ({ notAfterMs, secretNotAfterMs }: KeyRecord): number | undefined {
  const given = [notAfterMs, secretNotAfterMs].filter(time => time !== null)
  return given.length === 0 ? undefined : Math.min(...given)
}

/** Why a record whose time is over is refused; what an outsider may not learn stays untold. */
export function whatExpired (record: KeyRecord, refusal: RefusalCode | null, nowMs: number): RefusalCode {
  if (refusal === 'invalid_credentials') return refusal
  return record.notAfterMs !== null && nowMs >= record.notAfterMs ? 'key_expired' : 'secret_retired'
}
