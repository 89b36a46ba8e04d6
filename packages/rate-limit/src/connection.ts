import { EventEmitter } from 'node:events'
import { Redis, ReplyError, type RedisOptions } from 'ioredis'

/**
 * Fail fast, never replay: a call that was not answered may have been executed, and a charge must not be repeated.
 *
 * With ioredis's defaults calls to a stopped Redis were pending for more than 30 s, and calls that had timed out ran after a
 * restart; with these they fail at once and nothing runs late. `socketTimeout` drops a dead connection that still looks open.
 */
const failFast = {
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  maxRetriesPerRequest: 0,
  connectTimeout: 500,
  socketTimeout: 1000,
  keepAlive: 30_000,
  enableAutoPipelining: false,
  retryStrategy: (attempt: number) => Math.min(50 * 2 ** Math.min(attempt, 5), 1000) * (0.5 + Math.random())
} satisfies RedisOptions

/** Replies that say "this node is not (or no longer) the one that knows": what was learnt before may be old. */
const turncoatReply = /^(READONLY|LOADING|MASTERDOWN|MOVED)\b/

/** Error replies that are about the server and not about the keys of a call. Any other, such as WRONGTYPE, is about them. */
const nobodysReply = /^(?:OOM|READONLY|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|MOVED|ASK|TRYAGAIN|NOREPLICAS|MISCONF|NOAUTH|WRONGPASS|NOPERM|NOSCRIPT|UNKILLABLE|UNBLOCKED)\b/
const refusalReply = /^(?:NOAUTH|WRONGPASS|NOPERM)\b/

/** The store did not answer, or not in a way that can be believed. Whether a charge was made is unknown. */
export class StoreUnavailableError extends Error {
  /** Whether anything was sent: then it may have been executed. */
  readonly asked: boolean
  /** Redis answered, and what is wrong concerns the keys of this call alone: others need not suffer for it. */
  readonly ofKey: boolean
  constructor (reason: string, { asked = true, ofKey = false, ...options }: ErrorOptions & { asked?: boolean, ofKey?: boolean } = {}) {
    super(`Redis cannot answer: ${reason}`, options)
    this.name = 'StoreUnavailableError'
    this.asked = asked
    this.ofKey = ofKey
  }
}

/**
 * A connection to Redis with a generation: a number that is raised whenever another memory may be behind it, that is at every
 * connect, every loss and every reply of a node that is not in charge (design.md section 5).
 *
 * Emits `ready` at every (re)connect.
 */
export class RedisConnection extends EventEmitter<{ ready: [], state: [string] }> {
  readonly client: Redis
  /** How the first attempt ended. `refused`: Redis is there and does not take our password; waiting will not mend that. */
  readonly opened: Promise<'ready' | 'away' | 'refused'>
  #generation = 1
  #timeoutMs: number

  constructor (url: string, { timeoutMs = 100 }: { timeoutMs?: number } = {}) {
    super()
    this.#timeoutMs = timeoutMs
    this.client = new Redis(url, { ...failFast, lazyConnect: true })
    this.client.on('connect', () => { this.#generation++ })
    this.client.on('close', () => { this.#generation++; this.emit('state', 'away') })
    this.client.on('ready', () => { this.emit('state', 'ready'); this.emit('ready') })
    this.opened = new Promise(resolve => {
      this.client.once('ready', () => { resolve('ready') })
      this.client.on('error', ({ message }: Error) => { if (refusalReply.test(message)) resolve('refused') })
      this.client.once('close', () => { setImmediate(resolve, 'away') })
    })
    // Without a listener a failed handshake would end the process; the state is told by `state` events and by failing calls.
    this.client.on('error', () => {})
    this.client.connect().catch(() => {})
  }

  get generation (): number { return this.#generation }

  get isReady (): boolean { return this.client.status === 'ready' }

  /**
   * Runs one command with the deadline of this connection, in milliseconds.
   *
   * `send` is called synchronously, so a generation that was compared just before is the one the command is written to.
   * @throws {StoreUnavailableError} not connected, no reply in time, or an error reply.
   */
  async call<T> (send: (client: Redis) => Promise<T>): Promise<T> {
    if (!this.isReady) throw new StoreUnavailableError(`the connection is ${this.client.status}`, { asked: false })
    try {
      return await withDeadline(send(this.client), this.#timeoutMs)
    } catch (error) {
      if (error instanceof StoreUnavailableError) throw error
      const { message } = error as Error
      if (turncoatReply.test(message)) this.#generation++
      throw new StoreUnavailableError(message, { cause: error, ofKey: error instanceof ReplyError && !nobodysReply.test(message) })
    }
  }

  async close (): Promise<void> {
    this.removeAllListeners()
    this.client.disconnect()
  }
}

/** Connects in the background; calls fail until it is there. */
export function connectRedis (url: string, options?: { timeoutMs?: number }): RedisConnection {
  return new RedisConnection(url, options)
}

/**
 * A deadline that a blocked event loop does not trip: when the timer fires late, replies may lie unread in the socket.
 * `setImmediate` runs after the next poll for input, so a reply that has arrived is seen first.
 */
async function withDeadline<T> (reply: Promise<T>, timeoutMs: number): Promise<T> {
  return await new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => {
      setImmediate(() => { reject(new StoreUnavailableError(`no reply in ${timeoutMs} ms`)) })
    }, timeoutMs)
    reply.finally(() => { clearTimeout(timer) }).then(resolve, reject)
  })
}
