import type { IncomingMessage, ServerResponse } from 'node:http'
import { errors, type Dispatcher } from 'undici'
import type { Caller, Waiting } from './gate.ts'
import { Upload } from './upload.ts'
import type { Upstream } from './upstream.ts'

export interface ForwardingOptions {
  upstream: Upstream
  /** Scheme, host and port. */
  origin: string
  /** Whose share of the connections it takes. */
  caller: Caller
  path: string
  headers: string[]
  hasBody: boolean
  /** Where the bytes of the answer's body are counted. */
  tally: { bodyBytes: number }
  /** The client sends its body when it is told to. */
  expectsContinue: boolean
  /** Most that it waits for a connection while all are in use, milliseconds. */
  queueTimeoutMs: number
  /** Most that the client may take to read on, or to send the next part of its body, milliseconds. */
  idleTimeoutMs: number
  /** Makes the client's fields of the upstream's. */
  answer: (statusCode: number, rawHeaders: readonly (Buffer | string)[]) => string[]
  /** The answer has begun: nothing else can be answered any more. */
  onBegun: () => void
  /** It failed before the upstream began to answer, so there is still something to say. */
  onFailure: (error: Error) => void
  /** It failed in the middle of the answer, which was broken off. */
  onCut: (error: Error) => void
  /** Nothing more will come of it, however it ended. */
  onEnd: () => void
}

/** The client is not there any more. */
export class ClientLeftError extends Error { override readonly name = 'ClientLeftError' }

/** The client's body does not go on. */
export class SlowBodyError extends Error { override readonly name = 'SlowBodyError' }

/** So many wait for a connection already that to wait as well would be in vain. */
export class UpstreamBusyError extends Error { override readonly name = 'UpstreamBusyError' }

/** Methods that change nothing (RFC 9110 section 9.2.1): only such a request is ever sent a second time. */
const safeMethods = new Set(['GET', 'HEAD', 'OPTIONS'])

/** A connection that ended before any answer: an idle one that the upstream closed in the moment we used it looks like this. */
const lostConnection = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'])

/**
 * One request on its way to the upstream and its answer on the way back, both as streams: whichever side is slower sets the pace,
 * and nothing is kept but what one socket's buffer holds.
 *
 * It works on undici's `dispatch`, below its streams and promises: measured, these cost more than everything else that is done here. It is a
 * handler of undici's first kind, because the second one's headers are parsed as UTF-8, and a field is bytes (RFC 9110 section 5.5).
 */
export class Forwarding implements Dispatcher.DispatchHandler, Waiting {
  readonly #request: IncomingMessage
  readonly #response: ServerResponse
  readonly #options: ForwardingOptions
  #abort: ((reason: Error) => void) | undefined
  #resume: (() => void) | undefined
  #isOver = false
  #hasPlace = false
  #hasData = false
  #wasRetried = false
  #stalled: NodeJS.Timeout | undefined
  #queued: NodeJS.Timeout | undefined

  constructor (request: IncomingMessage, response: ServerResponse, options: ForwardingOptions) {
    this.#request = request
    this.#response = response
    this.#options = options
  }

  /**
   * Answers of one connection leave in the order of the requests (RFC 9112 section 9.3.2), so a request that came behind others goes to the
   * upstream when theirs are given: no connection is taken for what nobody may read yet, and writes stay in their order.
   */
  start (): void {
    const response = this.#response
    if (response.destroyed) { // it left while the key was being checked: the event is over
      this.#end()
      return
    }
    response.on('close', this.#onClose)
    if (response.socket === null) response.once('socket', () => { this.#enter() })
    else this.#enter()
  }

  /** Ends it at once, in the middle of an answer too: the client sees that it is not whole. */
  cut (reason: Error): void {
    this.#breakOff()
    this.#end()
    this.#abort?.(reason)
  }

  /** The gate's word that it has a place now. */
  proceed (): void {
    this.#hasPlace = true
    clearTimeout(this.#queued)
    if (this.#isOver) this.#giveBack()
    else this.#forward()
  }

  onConnect (abort: (reason?: Error) => void): void {
    this.#abort = abort
    if (this.#isOver) abort(new ClientLeftError())
  }

  onHeaders (statusCode: number, rawHeaders: Buffer[], resume: () => void): boolean {
    if (statusCode < 200) return true // RFC 9110 section 15.2: a proxy may drop an interim answer
    this.#resume = resume
    this.#response.writeHead(statusCode, this.#options.answer(statusCode, rawHeaders))
    this.#options.onBegun()
    if (statusCode === 204 || statusCode === 304) { // it has no body, whatever its fields say, and undici takes a length for the promise of one
      this.#response.end()
      this.#end()
    } else process.nextTick(flushSilent, this.#response, this)
    return true
  }

  /** False: no more until `resume`. */
  onData (chunk: Buffer): boolean {
    this.#hasData = true
    this.#options.tally.bodyBytes += chunk.length
    if (this.#response.write(chunk)) return true
    this.#response.once('drain', () => {
      clearTimeout(this.#stalled)
      this.#resume?.()
    })
    this.#stalled = setTimeout(() => { this.cut(new ClientLeftError('it does not read on')) }, this.#options.idleTimeoutMs)
    return false
  }

  onComplete (): void {
    this.#giveBack()
    if (this.#isOver) return
    this.#response.end()
    this.#end()
  }

  onError (error: Error & { code?: string }): void {
    const clientLeft = this.#isOver || this.#request.errored !== null || this.#response.destroyed
    if (!clientLeft && !this.#response.headersSent && this.#mayRetry(error)) {
      this.#wasRetried = true
      this.#abort = undefined
      this.#dispatch()
      return
    }
    this.#giveBack()
    if (this.#isOver) return
    this.#end()
    if (clientLeft) return // in the middle of its body
    if (this.#response.headersSent) {
      this.#breakOff()
      this.#options.onCut(error)
    } else this.#options.onFailure(error)
  }

  /** Whether its answer has begun and shows nothing yet. */
  get isSilent (): boolean { return !this.#hasData && !this.#isOver }

  #enter (): void {
    if (this.#isOver) return
    const { upstream, caller, queueTimeoutMs } = this.#options
    switch (upstream.gate.enter(this, caller)) {
      case 'in': this.#hasPlace = true; this.#forward(); break
      case 'waits': this.#queued = setTimeout(() => { this.#fail(new errors.HeadersTimeoutError('all connections to the upstream are in use')) }, queueTimeoutMs); break
      case 'full': this.#fail(new UpstreamBusyError('too many requests wait for a connection to the upstream'))
    }
  }

  #forward (): void {
    this.#options.upstream.retries.earn()
    if (this.#options.expectsContinue) this.#response.writeContinue()
    this.#dispatch()
  }

  #dispatch (): void {
    const { upstream, origin, path, headers, hasBody, idleTimeoutMs } = this.#options
    const body = hasBody ? new Upload(this.#request, { idleTimeoutMs, onIdle: () => { this.#onIdle() } }) : null
    upstream.dispatcher.dispatch({ origin, path, method: this.#request.method as Dispatcher.HttpMethod, headers, body }, this)
  }

  /** HTTP/1.0 has no other end of a body than the connection's, so there only a reset shows that it is not whole. */
  #breakOff (): void {
    if (this.#request.httpVersionMinor === 0) this.#response.socket?.resetAndDestroy()
    this.#response.destroy()
  }

  #mayRetry ({ code = '' }: { code?: string }): boolean {
    const { hasBody, upstream } = this.#options
    return !this.#wasRetried && !hasBody && safeMethods.has(this.#request.method ?? '') && lostConnection.has(code) && upstream.retries.spend()
  }

  #fail (error: Error): void {
    if (this.#isOver) return
    this.#end()
    this.#abort?.(error)
    this.#options.onFailure(error)
  }

  /** The client's body does not go on. */
  #onIdle (): void {
    const error = new SlowBodyError('the client does not send on')
    if (this.#response.headersSent) this.cut(error)
    else this.#fail(error)
  }

  /** The answer has left, or the client has. */
  readonly #onClose = (): void => {
    if (this.#isOver) return
    this.#end()
    this.#abort?.(new ClientLeftError())
  }

  /** undici has done with it: not earlier, or more would be handed to undici than it has connections for. */
  #giveBack (): void {
    if (!this.#hasPlace) return
    this.#hasPlace = false
    this.#options.upstream.gate.leave(this.#options.caller)
  }

  #end (): void {
    if (this.#isOver) return
    this.#isOver = true
    clearTimeout(this.#stalled)
    clearTimeout(this.#queued)
    this.#response.off('close', this.#onClose)
    if (this.#queued !== undefined) this.#options.upstream.gate.forget(this, this.#options.caller)
    this.#options.onEnd()
  }
}

/** An event stream's first event may be minutes away, and that it is open is news already. What is all there goes out in one write. */
function flushSilent (response: ServerResponse, forwarding: Forwarding): void {
  if (forwarding.isSilent) response.flushHeaders()
}
