import { Limiter, RedisStore, StoreUnavailableError, connectRedis, type BreakerOptions, type DecideOutcome, type DecideRequest, type LimitedBy, type LocalOutcome, type MemoryStore, type RedisConnection } from '@keygate/rate-limit'

export interface ReplicaOptions {
  memory: MemoryStore
  /** How many there are. */
  replicas: () => number
  timeoutMs?: number
  breaker?: BreakerOptions
}

/** How one request was decided: once, by Redis or by the replica alone. */
export interface Answer {
  by: 'redis' | 'alone'
  cost: number
  outcome: DecideOutcome | LocalOutcome
  /** Redis was asked and did not answer: it may have counted the request as well. */
  uncertain: boolean
  tookMs: number
  /** When it was asked, by `performance.now()`. */
  atMs: number
}

class CountingStore extends RedisStore {
  calls = 0
  override async decide (request: DecideRequest): Promise<DecideOutcome> {
    this.calls++
    return await super.decide(request)
  }
}

/** What a gateway is to the limiter: a connection, a memory, and the order in which they are asked. */
export class Replica {
  readonly connection: RedisConnection
  readonly store: CountingStore
  readonly limiter: Limiter
  readonly answers: Answer[] = []
  readonly states: string[] = []
  /** Why Redis could not answer, call by call. */
  readonly failures: string[] = []
  #pending = 0

  constructor (url: string, { memory, replicas, timeoutMs, breaker }: ReplicaOptions) {
    this.connection = connectRedis(url, timeoutMs === undefined ? {} : { timeoutMs })
    this.store = new CountingStore(this.connection)
    this.limiter = new Limiter({ store: this.store, memory, replicas, onChange: state => { this.states.push(state) }, ...breaker === undefined ? {} : { breaker } })
  }

  /** Calls that have begun and not ended. */
  get pending (): number { return this.#pending }

  async ask (limits: LimitedBy[], cost = 1): Promise<Answer> {
    const atMs = performance.now()
    this.#pending++
    try {
      const answer = { ...await this.#decide({ limits, cost }), cost, atMs, tookMs: performance.now() - atMs }
      this.answers.push(answer)
      return answer
    } finally {
      this.#pending--
    }
  }

  /** The units that were admitted, by whom. */
  admitted (by: Answer['by']): number {
    return this.answers.reduce((sum, answer) => sum + (answer.by === by && answer.outcome.outcome === 'admitted' ? answer.cost : 0), 0)
  }

  /** The units of which only Redis knows whether it has counted them. */
  get uncertain (): number {
    return this.answers.reduce((sum, { uncertain, cost }) => sum + (uncertain ? cost : 0), 0)
  }

  async close (): Promise<void> { await this.connection.close() }

  async #decide (request: DecideRequest): Promise<Pick<Answer, 'by' | 'outcome' | 'uncertain'>> {
    try {
      return { by: 'redis', outcome: await this.limiter.decide(request), uncertain: false }
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error
      this.failures.push(error.message)
      return { by: 'alone', outcome: this.limiter.decideAlone(request), uncertain: error.asked }
    }
  }
}
