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

/** Requests of one key that came in one turn of the event loop. */
interface Batch {
  request: DecideRequest
  count: number
  outcomes: Promise<DecideOutcome[]>
  settle: (outcomes: Promise<DecideOutcome[]>) => void
}

/** Decisions shared by all replicas: one script call each, or one for several of the same key at once, on Redis's clock. */
export class RedisStore implements Store {
  readonly #connection: RedisConnection
  readonly #nowMicros: (() => number) | undefined
  /** Those of this turn, by the list of limits that they share. */
  readonly #batches = new Map<LimitedBy[], Batch>()

  constructor (connection: RedisConnection, { nowMicros }: RedisStoreOptions = {}) {
    this.#connection = connection
    this.#nowMicros = nowMicros
  }

  /** Whether there is a connection at all. */
  get isReady (): boolean { return this.#connection.isReady }

  /**
   * Confirms the versions, checks the expiry and counts the request under every policy, all or nothing.
   *
   * Requests that share the list of limits (the same array) and all else, and come in one turn of the event loop, travel as one call: the
   * outcome of each is what it would have been alone, one behind the other. That a key is called often then costs less, not more.
   *
   * @throws {RangeError} a cost or limit that cannot be counted.
   * @throws {StoreUnavailableError} Redis cannot answer; a charge may have been made and must not be repeated.
   */
  async decide (request: DecideRequest): Promise<DecideOutcome> {
    assertCountable(request)
    const open = this.#batches.get(request.limits)
    // A record that holds a fence is raised by its call; that one goes alone.
    const isShared = request.cost === 1 && request.versions !== undefined && request.versions.fence === undefined && (open === undefined || isAlike(open.request, request))
    if (!isShared) return (await this.#send(request, 1))[0] as DecideOutcome
    const batch = open ?? this.#openBatch(request)
    const place = batch.count++
    return (await batch.outcomes)[place] as DecideOutcome
  }

  #openBatch (request: DecideRequest): Batch {
    if (this.#batches.size === 0) setImmediate(() => { this.#sendBatches() })
    let settle: Batch['settle'] = () => {}
    const outcomes = new Promise<DecideOutcome[]>(resolve => { settle = resolve })
    const batch = { request, count: 0, outcomes, settle }
    this.#batches.set(request.limits, batch)
    return batch
  }

  #sendBatches (): void {
    const batches = [...this.#batches.values()]
    this.#batches.clear()
    this.#connection.together(() => {
      for (const { request, count, settle } of batches) settle(this.#send(request, count))
    })
  }

  /** One call for so many equal requests; written before this returns, unless there is nothing to write to. */
  async #send ({ cost, limits, notAfterMs, versions }: DecideRequest, count: number): Promise<DecideOutcome[]> {
    const keys = limits.map(l => l.log)
    if (versions !== undefined) keys.unshift(versionsKey(versions.projectId), admittedPrefix(versions.projectId))
    const args: (string | number)[] = [
      this.#nowMicros?.() ?? '', cost, notAfterMs ?? '',
      // Fresh per call: one value per process, or Lua's random, would come back after a restart and pass for the same memory.
      versions === undefined ? '' : freshIncarnation(),
      versions?.fence ?? '', versions?.keyId ?? '', versions?.keyVersion ?? '', versions?.projectVersion ?? '', versions?.bootId ?? '', count
    ]
    for (const { policy } of limits) args.push(policy.algorithm === 'sliding' ? 's' : 'f', policy.windowSeconds * 1_000_000, policy.limit)
    const stillValid = versions === undefined ? undefined : () => versions.generation === this.#connection.generation
    const reply = await runScript(this.#connection, decideScript, keys, args, stillValid)
    return reply === undefined ? new Array<DecideOutcome>(count).fill({ outcome: 'reconnected' }) : readReply(reply, limits.map(l => l.policy), { cost, count })
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

/** Sixteen random bytes that nobody else has had, in base64url. They are drawn by the thousand, because a draw costs more than they do. */
function freshIncarnation (): string {
  if (poolAt === pool.length) {
    pool = randomBytes(16 * 1024)
    poolAt = 0
  }
  const fresh = pool.toString('base64url', poolAt, poolAt + 16)
  poolAt += 16
  return fresh
}

let pool = Buffer.alloc(0)
let poolAt = 0

function isSliding ({ policy }: LimitedBy): boolean {
  return policy.algorithm === 'sliding'
}

/** Whether two requests with the same limits are the same question. */
function isAlike (a: DecideRequest, b: DecideRequest): boolean {
  const [seenA, seenB] = [a.versions, b.versions]
  return a.notAfterMs === b.notAfterMs && seenA?.projectId === seenB?.projectId && seenA?.keyId === seenB?.keyId && seenA?.keyVersion === seenB?.keyVersion &&
    seenA?.projectVersion === seenB?.projectVersion && seenA?.generation === seenB?.generation && seenA?.bootId === seenB?.bootId
}

/** What the script answered to each of `count` requests, the first first. */
function readReply (reply: unknown, policies: Policy[], { cost, count }: { cost: number, count: number }): DecideOutcome[] {
  if (!Array.isArray(reply)) throw new StoreUnavailableError('its reply has an unknown shape')
  const [code, second, third, fourth] = reply as [number, number, number, number]
  if (code === 2) return new Array<DecideOutcome>(count).fill({ outcome: 'stale', incarnation: String(second), keyVersion: third < 0 ? null : third, projectVersion: fourth < 0 ? null : fourth })
  const nowMs = Math.floor(second / 1000)
  if (code === 3) return new Array<DecideOutcome>(count).fill({ outcome: 'expired', nowMs })
  const admitted = third
  const after = policies.map((policy, i): PolicyDecision => {
    const [remaining, resetMs, retryAfterMs] = (reply as number[]).slice(3 + i * 3, 6 + i * 3) as [number, number, number]
    return { policy, remaining, resetMs, retryAfterMs }
  })
  return Array.from({ length: count }, (_, place) => {
    if (place >= admitted) return combine('limited', nowMs, after)
    const behind = (admitted - 1 - place) * cost
    return combine('admitted', nowMs, after.map(decision => ({ ...decision, remaining: decision.remaining + behind, retryAfterMs: 0 })))
  })
}
