import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'

declare module 'fastify' {
  interface FastifyInstance {
    /** The process is about to end: not ready any more, and every answer ends its connection. */
    isDraining: boolean
    /** Every connection that is open. */
    connections: Set<Socket>
  }
}

export interface DrainOptions {
  /** How long requests are still taken while balancers learn that this process is not ready any more, milliseconds. */
  delayMs: number
  /** When whatever is still open is cut, milliseconds from the beginning. */
  deadlineMs: number
}

/** A Kubernetes pod has 30 s from SIGTERM to SIGKILL; what is open must be told before. */
export const defaultDeadlineMs = 25_000

/** How long a connection that was made in the last moment may take to bring its request, milliseconds. */
const lastRequestMs = 1000

/** Makes an app one that `drain` can end. */
export function prepareDrain (app: FastifyInstance): void {
  const connections = new Set<Socket>()
  app.decorate('isDraining', false)
  app.decorate('connections', connections)
  app.server.on('connection', (socket: Socket) => {
    connections.add(socket)
    socket.on('close', () => { connections.delete(socket) })
  })
  // When the answer leaves, not when its request came: one that came before may end after.
  app.addHook('onSend', (_request, reply, payload, done) => {
    if (app.isDraining) reply.header('connection', 'close')
    done(null, payload)
  })
}

/**
 * Ends an app without failing a request: first it is only not ready, then it takes no new connections and finishes what it has, and
 * at the deadline it cuts what is left (an event stream has no end of its own) and says how much that was.
 */
export async function drain (app: FastifyInstance, { delayMs, deadlineMs }: DrainOptions): Promise<void> {
  app.isDraining = true
  const timers = [setTimeout(() => {
    app.log.warn({ connections: app.connections.size }, 'cut what was still open at the deadline')
    app.server.closeAllConnections()
  }, deadlineMs)]
  if (delayMs > 0) {
    app.log.info({ delayMs, deadlineMs }, 'not ready any more')
    await new Promise(resolve => { setTimeout(resolve, Math.min(delayMs, deadlineMs)) })
  }
  await quietTurn()
  app.server.close()
  // Node waits for a connection that has never brought a request, such as a browser keeps in store, as for one that is in the middle of it.
  timers.push(setTimeout(() => {
    for (const socket of app.connections) if (socket.bytesRead === 0) socket.destroy()
  }, lastRequestMs))
  await app.close()
  timers.forEach(clearTimeout)
}

/** Most turns of the event loop that are waited for a quiet one. */
const turnsAtMost = 100

/**
 * Fulfils after a turn of the event loop that took next to no time: whatever has come in is read, so hardly anything is lost when the
 * port and the idle connections are closed now. What comes in between is refused by the system, and its sender sees that.
 */
async function quietTurn (): Promise<void> {
  for (let turn = 0, begunMs = -Infinity; turn < turnsAtMost; turn++) {
    await new Promise<void>(resolve => { setImmediate(resolve) })
    const nowMs = performance.now()
    if (nowMs - begunMs < 0.2) return
    begunMs = nowMs
  }
}
