import type { FastifyRequest } from 'fastify'
import type { RefusalCode } from '../errors.ts'

/** Something that is open for a key and can be ended from outside. */
export interface Stream { cut: (reason: Error) => void }

/** The key of an open stream is not good any more. */
export class KeyRefusedError extends Error { override readonly name = 'KeyRefusedError' }

export interface OpenStreamsOptions {
  /** Judges the key of an open request once more, at no cost. `null`: it may go on. */
  judge: (request: FastifyRequest) => Promise<RefusalCode | null>
  /** A stream was ended because its key is refused. */
  onRefused: (request: FastifyRequest, code: RefusalCode) => void
  /** How long a key's judgement holds for a stream, milliseconds. */
  everyMs?: number
  nowMs?: () => number
}

/**
 * The answers that are on their way to holders of keys. Whoever holds one open outlives the judgement at its beginning, so the key is
 * judged again every ten seconds, and the stream ends when the KEY is refused: never by a limit, nor because something does not
 * answer; then the next judgement decides.
 */
export class OpenStreams {
  readonly #options: Required<OpenStreamsOptions>
  readonly #streams = new Map<Stream, { request: FastifyRequest, judgedMs: number, isBeingJudged: boolean }>()
  readonly #timer: NodeJS.Timeout

  constructor (options: OpenStreamsOptions) {
    this.#options = { everyMs: 10_000, nowMs: () => performance.now(), ...options }
    this.#timer = setInterval(() => { this.sweep() }, Math.min(1000, this.#options.everyMs)).unref()
  }

  get size (): number { return this.#streams.size }

  add (stream: Stream, request: FastifyRequest): void {
    this.#streams.set(stream, { request, judgedMs: this.#options.nowMs(), isBeingJudged: false })
  }

  delete (stream: Stream): void { this.#streams.delete(stream) }

  /** Judges every stream whose last judgement is old, each by itself. */
  sweep (): void {
    const now = this.#options.nowMs()
    for (const [stream, open] of this.#streams) {
      if (open.isBeingJudged || now - open.judgedMs < this.#options.everyMs) continue
      open.isBeingJudged = true
      open.judgedMs = now
      this.#judge(stream, open.request).catch(() => {}).finally(() => { open.isBeingJudged = false })
    }
  }

  stop (): void { clearInterval(this.#timer) }

  async #judge (stream: Stream, request: FastifyRequest): Promise<void> {
    const code = await this.#options.judge(request)
    if (code === null || !this.#streams.delete(stream)) return
    stream.cut(new KeyRefusedError(code))
    this.#options.onRefused(request, code)
  }
}
