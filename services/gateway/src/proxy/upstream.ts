import { Pool, type Dispatcher, type buildConnector } from 'undici'
import { Gate } from './gate.ts'
import { RetryBudget } from './retry-budget.ts'

export interface UpstreamOptions {
  /** Most connections to it. */
  connections: number
  /** Most requests that wait for one. */
  queue: number
  connect: buildConnector.connector
  /** Deadlines in milliseconds: for an answer's headers, and between two parts of its body. */
  headersTimeoutMs: number
  idleTimeoutMs: number
}

/** What all requests to one scheme, host and port share. */
export interface Upstream {
  readonly dispatcher: Dispatcher
  /**
   * A place for each connection. undici's own queue has no end, and whoever leaves it stays in it until a connection is free: so no
   * more is handed to undici than it has connections for.
   */
  readonly gate: Gate
  readonly retries: RetryBudget
}

export function createUpstream (origin: string, { connections, queue, connect, headersTimeoutMs, idleTimeoutMs }: UpstreamOptions): Upstream {
  return {
    dispatcher: new Pool(origin, { connections, connect, headersTimeout: headersTimeoutMs, bodyTimeout: idleTimeoutMs }),
    gate: new Gate({ places: connections, room: queue }),
    retries: new RetryBudget()
  }
}
