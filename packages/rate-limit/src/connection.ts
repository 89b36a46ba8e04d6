import { EventEmitter } from 'node:events'
import { Redis, ReplyError, type RedisOptions } from 'ioredis'

/**
 * Fail fast, never replay: a call that was not answered may have been executed, and a charge must not be repeated.
 *
 * With ioredis's defaults calls to a stopped Redis were pending for more than 30 s, and calls that had timed out ran after a
 * restart; with these they fail at once and nothing runs late. ioredis's `socketTimeout` is not used: see `silentMs`.
 */
const failFast = {
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  maxRetriesPerRequest: 0,
  connectTimeout: 500,
  keepAlive: 30_000,
  enableAutoPipelining: false,
  retryStrategy: (attempt: number) => Math.min(50 * 2 ** Math.min(attempt, 5), 1000) * (0.5 + Math.random())
} satisfies RedisOptions

/**
 * A connection on which nothing comes for so long, though something was asked, only looks open and is dropped. Milliseconds.
 *
 * ioredis's `socketTimeout` goes by a timer alone: after a loop that was blocked for so long it destroyed connections whose replies had arrived
 * and lay unread, and what Redis had decided was decided again without it.
 */
const silentMs = 1000

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
  #isCorked = false
  #timeoutMs: number
  #silence: NodeJS.Timeout | undefined
  /** Calls whose replies are still to come, those that were given up included. */
  #unanswered = 0

  constructor (url: string, { timeoutMs = 100 }: { timeoutMs?: number } = {}) {
    super()
    this.#timeoutMs = timeoutMs
    this.client = new Redis(url, { ...failFast, lazyConnect: true })
    this.client.on('connect', () => {
      this.#generation++
      clearTimeout(this.#silence)
      this.#silence = undefined
      this.#watch() // the handshake may go unanswered, too
    })
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
  call<T>(send: (client: Redis) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (!this.isReady) throw new StoreUnavailableError(`the connection is ${this.client.status}`, { asked: false })
      this.#cork()
      this.#watch()
      const reply = send(this.client)
      this.#unanswered++
      const timer = setTimeout(() => { onLate(reject, this.#timeoutMs) }, this.#timeoutMs)
      const answered = (): void => {
        this.#unanswered--
        clearTimeout(timer)
      }
      reply.then(value => { answered(); resolve(value) }, (error: Error) => { answered(); reject(this.#toUnavailable(error)) })
    })
  }

  #toUnavailable (error: Error): StoreUnavailableError {
    const { message } = error
    if (turncoatReply.test(message)) this.#generation++
    return new StoreUnavailableError(message, { cause: error, ofKey: error instanceof ReplyError && !nobodysReply.test(message) })
  }

  async close (): Promise<void> {
    this.removeAllListeners()
    clearTimeout(this.#silence)
    this.client.disconnect()
  }

  /** Something is asked: drops the connection if nothing comes. One timer for all that is asked meanwhile, so it may take twice as long. */
  #watch (): void {
    if (this.#silence !== undefined) return
    const { stream } = this.client
    const { bytesRead } = stream
    const timer = this.#silence = setTimeout(() => {
      // As in `onLate`: what has arrived is read first.
      setImmediate(() => {
        if (this.#silence !== timer) return
        this.#silence = undefined
        if (stream.bytesRead === bytesRead) stream.destroy(new Error(`nothing came in ${silentMs} ms`))
        else if (this.#unanswered > 0) this.#watch() // what came was for others; nobody may ask again for long
      })
    }, silentMs).unref()
  }

  /** Calls that `send` makes leave in one write. It must be synchronous. */
  together (send: () => void): void {
    const { stream } = this.client
    const wasCorked = this.#isCorked
    this.#isCorked = true
    stream?.cork()
    try {
      send()
    } finally {
      this.#isCorked = wasCorked
      stream?.uncork()
    }
  }

  /**
   * What is sent in one turn of the event loop leaves in one write: a system call costs a gateway more than the command in it. The
   * order stays, and nothing waits longer than for the rest of this turn.
   */
  #cork (): void {
    if (this.#isCorked) return
    const { stream } = this.client
    this.#isCorked = true
    stream.cork()
    setImmediate(() => {
      this.#isCorked = false
      stream.uncork()
    })
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
function onLate (reject: (error: Error) => void, timeoutMs: number): void {
  setImmediate(() => { reject(new StoreUnavailableError(`no reply in ${timeoutMs} ms`)) })
}
