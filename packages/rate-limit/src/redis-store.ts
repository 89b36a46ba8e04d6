import { randomBytes } from 'node:crypto'
import { StoreUnavailableError, type RedisConnection } from './connection.ts'
import { combine, type Decision, type PolicyDecision } from './decision.ts'
import { decideScript } from './decide-script.ts'
import { admittedPrefix, versionsKey } from './names.ts'
import type { Policy } from './policy.ts'
import { runScript } from './script.ts'
import { assertCountable, type DecideOutcome, type DecideRequest, type LimitedBy, type Store } from './store.ts'

export type { DecideOutcome, DecideRequest, LimitedBy, VersionsSeen } from './store.ts'

/** Options that only tests set. */
export interface RedisStoreOptions {
  /** The time given to the script, in microseconds, instead of the server's clock. */
  nowMicros?: (() => number) | undefined
}

/** Decisions shared by all replicas: one script call each, on Redis's clock. */
export class RedisStore implements Store {
  readonly #connection: RedisConnection
  readonly #nowMicros: (() => number) | undefined

  constructor (connection: RedisConnection, { nowMicros }: RedisStoreOptions = {}) {
    this.#connection = connection
    this.#nowMicros = nowMicros
  }

  /** Whether there is a connection at all. */
  get isReady (): boolean { return this.#connection.isReady }

  /**
   * Confirms the versions, checks the expiry and counts the request under every policy, all or nothing.
   *
   * @throws {RangeError} a cost or limit that cannot be counted.
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

  async peek (limits: LimitedBy[]): Promise<Decision> {
    return await this.decide({ cost: 0, limits }) as Decision // without versions and expiry nothing else can come
  }

  async reset (limits: LimitedBy[]): Promise<void> {
    await this.#connection.call(async client => await client.del(limits.map(l => l.log)))
  }

  /**
   * When the newest were admitted under each policy, in Unix milliseconds, oldest first; those that have left the window may be
   * among them. Of a fixed window only the beginning is known: none. For people to look at, never to decide by.
   *
   * @throws {StoreUnavailableError} Redis cannot answer.
   */
  async newestAdmissions (limits: LimitedBy[], atMost: number): Promise<number[][]> {
    const replies = await this.#connection.call(async client => {
      const pipeline = client.pipeline()
      for (const { log } of limits.filter(isSliding)) pipeline.lrange(log, -atMost, -1)
      return await pipeline.exec() ?? []
    })
    return limits.map(limit => {
      const [error, stamps] = isSliding(limit) ? replies.shift() ?? [] : [null, []]
      if (error !== null && error !== undefined) throw new StoreUnavailableError(error.message, { cause: error })
      return (stamps as string[]).map(micros => Math.floor(Number(micros) / 1000))
    })
  }
}

function isSliding ({ policy }: LimitedBy): boolean {
  return policy.algorithm === 'sliding'
}

function readReply (reply: unknown, policies: Policy[]): DecideOutcome {
  if (!Array.isArray(reply)) throw new StoreUnavailableError('its reply has an unknown shape')
  const [code, second, third, fourth] = reply as [number, number, number, number]
  if (code === 2) return { outcome: 'stale', incarnation: String(second), keyVersion: third < 0 ? null : third, projectVersion: fourth < 0 ? null : fourth }
  const nowMs = Math.floor(second / 1000)
  if (code === 3) return { outcome: 'expired', nowMs }
  const decisions = policies.map((policy, i): PolicyDecision => {
    const [remaining, resetMs, retryAfterMs] = (reply as number[]).slice(2 + i * 3, 5 + i * 3) as [number, number, number]
    return { policy, remaining, resetMs, retryAfterMs }
  })
  return combine(code === 1 ? 'admitted' : 'limited', nowMs, decisions)
}
