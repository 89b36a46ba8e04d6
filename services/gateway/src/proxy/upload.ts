import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'

export interface UploadOptions {
  /** Most time between two parts of the body, milliseconds. While the upstream is what is waited for, no time passes. */
  idleTimeoutMs: number
  /** No part came in time. */
  onIdle: () => void
}

/**
 * A client's body for undici, which destroys what it reads as soon as the upstream fails or has answered before the end. That must not
 * reach the client's connection: there is an answer to give, and what is left of the body has to be read away before the next request.
 */
export class Upload extends Readable {
  readonly #request: IncomingMessage
  readonly #idle: NodeJS.Timeout | undefined
  #isFull = false

  constructor (request: IncomingMessage, { idleTimeoutMs, onIdle }: UploadOptions) {
    super({ highWaterMark: request.readableHighWaterMark })
    this.#request = request
    // Of most bodies all has come by now.
    if (!request.complete) this.#idle = setTimeout(() => { if (!this.#isFull) onIdle() }, idleTimeoutMs)
    // undici's pool may hold it for a moment in which nobody listens: that the client has left is told by its connection.
    this.on('error', () => {})
    request.on('data', this.#onData).on('end', this.#onEnd).on('error', this.#onError)
  }

  override _read (): void {
    this.#isFull = false
    this.#idle?.refresh()
    this.#request.resume()
  }

  override _destroy (error: Error | null, callback: (error?: Error | null) => void): void {
    clearTimeout(this.#idle)
    this.#request.off('data', this.#onData).off('end', this.#onEnd)
    this.#request.resume()
    callback(error)
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#idle?.refresh()
    if (this.push(chunk)) return
    this.#isFull = true
    this.#request.pause()
  }

  readonly #onEnd = (): void => {
    clearTimeout(this.#idle)
    this.push(null)
  }

  readonly #onError = (error: Error): void => { this.destroy(error) }
}
