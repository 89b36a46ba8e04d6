import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

declare module 'fastify' {
  interface FastifyRequest {
    /** What logs and metrics say of the route: its template, never the path itself. Null: Fastify's own. */
    routeLabel: string | null
  }
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

/** The route of a request for people and metrics; one of few, whatever clients send. */
export function routeLabelOf (request: FastifyRequest): string {
  return request.routeLabel ?? request.routeOptions.url ?? 'unmatched'
}

export type RequestEndListener = (request: FastifyRequest, end: RequestEnd) => void

/** Answers that wait on their connection for those of earlier requests, with how many did when they came. */
const queued = new WeakMap<Socket, Map<ServerResponse, number>>()

/** How many answers waited on its connection already when a request came whose answer waits too. */
export function queuedBefore (response: ServerResponse, socket: Socket): number {
  return queued.get(socket)?.get(response) ?? 0
}

/**
 * Node tells only the answer whose turn it is that its connection has closed; whoever works for one behind it would work on for ever.
 * So the others get the same 'close' from here.
 */
function tellOfClose (response: ServerResponse, socket: Socket): void {
  const waiting = queued.get(socket) ?? watchSocket(socket)
  waiting.set(response, waiting.size)
  response.once('socket', () => { waiting.delete(response) })
}

function watchSocket (socket: Socket): Map<ServerResponse, number> {
  const waiting = new Map<ServerResponse, number>()
  queued.set(socket, waiting)
  socket.once('close', () => {
    for (const response of waiting.keys()) response.destroy().emit('close')
    waiting.clear()
  })
  return waiting
}

/** Of nginx; HTTP has no status for a client that is not there any more. */
const clientClosedRequest = 499

/**
 * Gives the app `onRequestEnd`, and returns what starts to watch a request.
 *
 * Fastify's own `onResponse` runs on 'finish' alone: not for a client that left, nor for an answer that was taken over (`hijack`).
 */
export function watchRequests (app: FastifyInstance): (request: FastifyRequest, reply: FastifyReply) => void {
  const listeners: RequestEndListener[] = []
  app.decorateRequest('routeLabel', null)
  app.decorate('onRequestEnd', (listener: RequestEndListener) => { listeners.push(listener) })
  return (request, { raw }) => {
    const start = performance.now()
    const { socket } = request.raw
    if (raw.socket === null) tellOfClose(raw, socket)
    let isOver = false
    const end = (isWhole: boolean): void => {
      if (isOver) return // 'close' comes after 'finish' too; to take a listener away costs more than to call it
      isOver = true
      const clientLeft = !isWhole && (raw.socket === null || socket.readableEnded || socket.errored !== null)
      const status = clientLeft ? clientClosedRequest : raw.statusCode
      const seconds = (performance.now() - start) / 1000
      for (const listener of listeners) listener(request, { status, seconds, isCut: !isWhole && !clientLeft })
    }
    raw.on('finish', () => { end(true) })
    raw.on('close', () => { end(false) })
  }
}
