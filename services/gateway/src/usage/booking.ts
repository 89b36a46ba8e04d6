import type { KeyRecord } from '@keygate/contracts'
import type { RefusalCode } from '../errors.ts'
import type { OperationTarget } from '../routing/target.ts'
import type { OpenLine } from './ledger.ts'

/** A request whose key is known, from its decision to its end. */
export interface Booking {
  readonly record: KeyRecord
  readonly target: OperationTarget
  readonly outcome: 'admitted' | 'limited' | 'refused'
  /** Why it was refused; `null` when it was not. */
  readonly code: RefusalCode | null
  /** The clock of whoever decided, Unix milliseconds. */
  readonly atMs: number
  /** What the script has admitted is on a line; what this gateway admitted alone is not. */
  readonly line: OpenLine | null
}

/** What is known when it has ended. */
export interface Ending {
  /** What was answered; 499: the client left. */
  status: number
  ms: number
  bytes: number
  requestId: string
  address: string
  client: string
}

/**
 * The scope that a request is booked under: the first of its operation's that the key holds, else the first. Empty: the operation is in none.
 */
export function bookedScope ({ scopes: held, allowedForAll }: Pick<KeyRecord, 'scopes' | 'allowedForAll'>, scopes: readonly string[]): string {
  const allowed = allowedForAll ? undefined : scopes.find(scope => held.includes(scope))
  return allowed ?? scopes[0] ?? ''
}

/**
 * Until when requests of an operation in these scopes are written down as rows of their own, Unix milliseconds: `Infinity` is for ever,
 * `-Infinity` not at all. The moment itself is not written down any more.
 *
 * @param logging as key-service sent it, which may be of a shape that is not known here: to write down too little is the smaller fault.
 */
export function loggedUntilMs (logging: unknown, scopes: readonly string[]): number {
  if (typeof logging !== 'object' || logging === null) return -Infinity
  const { all, scopes: single } = logging as { all?: unknown, scopes?: unknown }
  let until = endOf(all)
  if (typeof single !== 'object' || single === null) return until
  for (const scope of scopes) if (Object.hasOwn(single, scope)) until = Math.max(until, endOf((single as Record<string, unknown>)[scope]))
  return until
}

function endOf (until: unknown): number {
  if (typeof until !== 'string') return -Infinity
  if (until === 'forever') return Infinity
  const ms = Date.parse(until)
  return Number.isNaN(ms) ? -Infinity : ms
}
