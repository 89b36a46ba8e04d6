import type { Carrier } from '@keygate/api-catalog'
import type { KeyRecord } from '@keygate/contracts'
import type { Decision, LimitedBy, LocalOutcome } from '@keygate/rate-limit'
import type { RefusalCode } from '../errors.ts'
import type { OpenLine } from '../usage/ledger.ts'

export interface Candidate {
  /** The secret's digest. */
  digest: string
  /** What is known of the request judges the record: `null`, or why it is refused. */
  judge: (record: KeyRecord) => RefusalCode | null
  limits: (record: KeyRecord) => LimitedBy[]
  /** Only to be judged: nothing is counted, so no limit can refuse it. */
  isFree?: boolean
}

/** What a request costs its limits; a refused one costs nothing, and runs the same script. */
export function costOf ({ isFree = false }: Candidate, refusal: RefusalCode | null): number {
  return isFree || refusal !== null ? 0 : 1
}

/** What an answer rests on. */
export interface Grounds {
  /** The key's record, once it is confirmed. */
  record?: KeyRecord
  /** The numbers of the shared decision. */
  decision?: Decision
  /** Those of this replica alone, which no RateLimit field may show. */
  alone?: LocalOutcome & { outcome: 'limited' }
  /** The clock of whoever judged, Unix milliseconds. */
  atMs?: number
  /** What the admission stands on, if the script has counted it. */
  line?: OpenLine | null
  /** How a key could have come, where the request is for no operation. */
  carriers?: readonly Carrier[]
}

export type Admission =
  | { outcome: 'admitted', record: KeyRecord } & Grounds
  | { outcome: 'refused', code: RefusalCode } & Grounds

/** Each round is a look-up and a decision; more than three means that the key is changed faster than it can be read. */
export const rounds = 3

/** What ends first, the key or a replaced secret's grace. Unix milliseconds. */
export function notAfterOf ({ notAfterMs, secretNotAfterMs }: KeyRecord): number | undefined {
  if (notAfterMs === null) return secretNotAfterMs ?? undefined
  return secretNotAfterMs === null ? notAfterMs : Math.min(notAfterMs, secretNotAfterMs)
}

/** Why a record whose time is over is refused; what an outsider may not learn stays untold. */
export function whatExpired (record: KeyRecord, refusal: RefusalCode | null, nowMs: number): RefusalCode {
  if (refusal === 'invalid_credentials') return refusal
  return record.notAfterMs !== null && nowMs >= record.notAfterMs ? 'key_expired' : 'secret_retired'
}
