import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

declare module 'fastify' {
  interface FastifyInstance {
    /** Calls `listener` once for every request: when its answer has left, or when its connection has closed before that. */
    onRequestEnd: (listener: RequestEndListener) => void
  }
}

export interface RequestEnd {
  /** What was answered; 499 when the client left before it had the whole answer. */
  status: number
  seconds: number
  /** We broke the answer off ourselves, such as when an upstream fails in the middle of a body; `status` had left already. */
  isCut: boolean
}

export type RequestEndListener = (request: FastifyRequest, end: RequestEnd) => void

/** Of nginx; HTTP has no status for a client that is not there any more. */
const clientClosedRequest = 499

/**
 * Gives the app `onRequestEnd`, and returns what starts to watch a request.
 *
 * Fastify's own `onResponse` runs on 'finish' alone: not for a client that left, nor for an answer that was taken over (`hijack`).
 */
export function watchRequests (app: FastifyInstance): (request: FastifyRequest, reply: FastifyReply) => void {
  const listeners: RequestEndListener[] = []
  app.decorate('onRequestEnd', (listener: RequestEndListener) => { listeners.push(listener) })
  return (request, { raw }) => {
    const start = performance.now()
    const { socket } = request.raw
    const end = (isWhole: boolean): void => {
      raw.off('finish', onFinish)
      raw.off('close', onClose)
      const clientLeft = !isWhole && (socket.readableEnded || socket.errored !== null)
      const status = clientLeft ? clientClosedRequest : raw.statusCode
      const seconds = (performance.now() - start) / 1000
      for (const listener of listeners) listener(request, { status, seconds, isCut: !isWhole && !clientLeft })
    }
    const onFinish = (): void => { end(true) }
    const onClose = (): void => { end(false) }
    raw.on('finish', onFinish)
    raw.on('close', onClose)
  }
}
