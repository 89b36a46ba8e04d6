import { EventEmitter, once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** `up` = from the client to the target. */
export type Direction = 'up' | 'down' | 'both'

export interface TcpProxy {
  port: number
  /** How many client connections are open. */
  readonly connections: number
  /**
   * Holds all bytes of a direction, in order, until `resume`. With a predicate: only of a connection on which a chunk came that it
   * accepts, from that chunk on; the others flow.
   */
  pause: (direction?: Direction, predicate?: (chunk: Buffer) => boolean) => void
  /** Lets held bytes go and stops swallowing. A connection that lost bytes is reset: no network delivers a stream with a hole. */
  resume: () => void
  /**
   * From the first chunk that the predicate accepts (default: any) that connection's direction is a black hole: the chunk and all
   * that follow are dropped while the connection stays open. Fulfils with the first chunk swallowed; await it instead of sleeping.
   * A predicate sees the bytes as they arrived, so look for something short enough to come in one piece.
   */
  swallow: (direction: Direction, predicate?: (chunk: Buffer) => boolean) => Promise<Buffer>
  /** Ends every connection with RST, on both sides; new ones are accepted. */
  reset: () => void
  /** The next time that bytes were held or swallowed, or that a client connected. */
  once: (event: 'held' | 'swallowed' | 'connection') => Promise<void>
  stop: () => Promise<void>
}

type Predicate = (chunk: Buffer) => boolean

interface Lane { from: Socket, to: Socket, name: 'up' | 'down', held: Buffer[], isHeld: boolean, ended: boolean, hole: boolean }

/** A TCP proxy on 127.0.0.1 in front of `targetPort`, through which a test decides which bytes arrive. */
export async function startTcpProxy (targetPort: number, { port = 0 } = {}): Promise<TcpProxy> {
  const events = new EventEmitter()
  const lanes = new Set<Lane>()
  const paused: { up: Predicate | false, down: Predicate | false } = { up: false, down: false }
  let trap: { direction: Direction, predicate: (chunk: Buffer) => boolean, caught: (chunk: Buffer) => void } | undefined

  const flush = (lane: Lane) => {
    lane.isHeld = false
    for (const chunk of lane.held.splice(0)) pass(lane, chunk)
    if (lane.ended) lane.to.end()
  }
  const pass = (lane: Lane, chunk: Buffer) => {
    if (trap !== undefined && !lane.hole && covers(trap.direction, lane.name) && trap.predicate(chunk)) lane.hole = true
    if (lane.hole) {
      trap?.caught(chunk)
      events.emit('swallowed')
    } else if (!lane.to.write(chunk) && !lane.from.isPaused()) {
      lane.from.pause()
      lane.to.once('drain', () => lane.from.resume())
    }
  }
  const open = (from: Socket, to: Socket, name: 'up' | 'down') => {
    const lane: Lane = { from, to, name, held: [], isHeld: false, ended: false, hole: false }
    lanes.add(lane)
    from.on('data', (chunk: Buffer) => {
      lane.isHeld ||= paused[name] !== false && paused[name](chunk)
      if (!lane.isHeld) return pass(lane, chunk)
      lane.held.push(chunk)
      events.emit('held')
    })
    from.on('end', () => {
      lane.ended = true
      if (!lane.isHeld && !lane.hole) to.end()
    })
    from.on('error', () => { cut(to) })
    from.on('close', () => {
      lanes.delete(lane)
      if (from.errored !== null || !lane.ended) to.destroy()
    })
  }
  const reset = (lane: Lane) => { for (const socket of [lane.from, lane.to]) cut(socket) }

  const server = createServer({ allowHalfOpen: true, noDelay: true }, client => {
    const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    open(client, target, 'up')
    open(target, client, 'down')
    events.emit('connection')
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')

  return {
    port: (server.address() as AddressInfo).port,
    get connections () { return lanes.size >> 1 },
    pause: (direction = 'both', predicate = () => true) => {
      for (const name of ['up', 'down'] as const) if (covers(direction, name)) paused[name] = predicate
    },
    resume: () => {
      paused.up = paused.down = false
      trap = undefined
      for (const lane of [...lanes]) {
        if (lane.hole) reset(lane)
        else flush(lane)
      }
    },
    swallow: (direction, predicate = () => true) => new Promise(resolve => {
      trap = { direction, predicate, caught: resolve }
    }),
    reset: () => { for (const lane of [...lanes]) reset(lane) },
    once: async (event) => { await once(events, event) },
    stop: async () => {
      const closed = once(server, 'close')
      server.close()
      for (const lane of [...lanes]) reset(lane)
      await closed
    }
  }
}

function covers (direction: Direction, name: 'up' | 'down'): boolean {
  return direction === 'both' || direction === name
}

/**
 * Ends a connection with RST. One that has already sent its FIN is only closed: a reset is refused while that is under way, and Node 20 then
 * leaves the handle open and waits for it without end when the process exits (seen in its `CleanupHandles`).
 */
function cut (socket: Socket): void {
  if (socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}
