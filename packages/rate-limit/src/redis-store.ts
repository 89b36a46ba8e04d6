import { randomBytes } from 'node:crypto'
import { StoreUnavailableError, type RedisConnection } from './connection.ts'
import { combine, type Decision, type PolicyDecision } from './decision.ts'
import { decideScript } from './decide-script.ts'
import { admittedPrefix, versionsKey } from './names.ts'
import { policyFault, type Policy } from './policy.ts'
import { runScript } from './script.ts'

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

/** Options that only tests set. */
export interface RedisStoreOptions {
  /** The time given to the script, in microseconds, instead of the server's clock. */
  nowMicros?: (() => number) | undefined
}

/** Decisions shared by all replicas: one script call each, on Redis's clock. */
export class RedisStore {
  readonly #connection: RedisConnection
  readonly #nowMicros: (() => number) | undefined

  constructor (connection: RedisConnection, { nowMicros }: RedisStoreOptions = {}) {
    this.#connection = connection
    this.#nowMicros = nowMicros
  }

  /**
   * Confirms the versions, checks the expiry and counts the request under every policy, all or nothing.
   *
   * @throws {RangeError} a cost or limit that is not a whole number.
   * @throws {StoreUnavailableError} Redis cannot answer; a charge may have been made and must not be repeated.
   */
  async decide (request: DecideRequest): Promise<DecideOutcome> {
    const { versions, limits } = request
    assertCountable(request)
    const keys = limits.map(l => l.log)
    if (versions !== undefined) keys.unshift(versionsKey(versions.projectId), admittedPrefix(versions.projectId))
    const args: (string | number)[] = [
      this.#nowMicros?.() ?? '', request.cost, request.notAfterMs ?? '',
      // Fresh per call: one value per process, or Lua's random, would come back after a restart and pass for the same memory.
      versions === undefined ? '' : randomBytes(16).toString('base64url'),
      versions?.fence ?? '', versions?.keyId ?? '', versions?.keyVersion ?? '', versions?.projectVersion ?? '', versions?.bootId ?? ''
    ]
    for (const { policy } of limits) args.push(policy.algorithm === 'sliding' ? 's' : 'f', policy.windowSeconds * 1_000_000, policy.limit)
    const stillValid = versions === undefined ? undefined : () => versions.generation === this.#connection.generation
    const reply = await runScript(this.#connection, decideScript, keys, args, stillValid)
    return reply === undefined ? { outcome: 'reconnected' } : readReply(reply, limits.map(l => l.policy))
  }
}

function assertCountable ({ cost, limits }: DecideRequest): void {
  if (!Number.isSafeInteger(cost) || cost < 0) throw new RangeError(`cost must be a whole number of 0 or more, but is ${String(cost)}`)
  if (limits.length === 0) throw new RangeError('a decision needs at least one policy')
  for (const { policy } of limits) {
    const fault = policyFault(policy)
    if (fault !== undefined) throw new RangeError(fault)
  }
}

function readReply (reply: unknown, policies: Policy[]): DecideOutcome {
  if (!Array.isArray(reply)) throw new StoreUnavailableError('its reply has an unknown shape')
  const [code, second, third, fourth] = reply as [number, number, number, number]
  if (code === 2) return { outcome: 'stale', incarnation: String(second), keyVersion: third < 0 ? null : third, projectVersion: fourth < 0 ? null : fourth }
  if (code === 3) return { outcome: 'expired', nowMs: second }
  const decisions = policies.map((policy, i): PolicyDecision => {
    const [remaining, resetMs, retryAfterMs] = (reply as number[]).slice(2 + i * 3, 5 + i * 3) as [number, number, number]
    return { policy, remaining, resetMs, retryAfterMs }
  })
  return combine(code === 1 ? 'admitted' : 'limited', second, decisions)
}
