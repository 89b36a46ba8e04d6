import { drizzle } from 'drizzle-orm/postgres-js'
import type { Sql } from 'postgres'
import type { Executor } from './database.ts'
import { connectionLost, endsConnection, noAnswer, unwrap } from './failures.ts'
import { createPreparedStatements, type PreparedStatements } from './prepared.ts'

/** One connection that one piece of work at a time has to itself. Once `lost`, nothing is sent over it any more. */
export interface Lane {
  /** What is sent often is prepared. */
  readonly db: Executor
  /** Every statement is planned for the values that it has. */
  readonly unprepared: Executor
  lost: boolean
}

export interface Lanes {
  use: <T>(work: (lane: Lane) => Promise<T>) => Promise<T>
  close: () => Promise<void>
}

interface OwnLane extends Lane { client: Sql, statements: PreparedStatements, timer: NodeJS.Timeout | undefined, isLate: boolean }

export interface LanesOptions {
  /** How many pieces of work may run at once; more wait their turn. */
  size: number
  /** How long a statement may go unanswered, and work may wait for its turn. */
  deadlineMs: number
}

/**
 * A pool that gives up. postgres.js has no deadline for a statement: a server that is frozen, or a way to it that swallows packets,
 * would hold every request for ever. Here the connection that stays silent is ended, which ends the work that waits for it.
 *
 * Each connection is a client of its own and is never used again once it is lost, so a piece of work cannot begin on one connection
 * and go on, without its transaction, on the next.
 *
 * @param open makes a client of ONE connection that calls `onclose` when that ends.
 */
export function createLanes (open: (onclose: () => void) => Sql, { size, deadlineMs }: LanesOptions): Lanes {
  const idle: OwnLane[] = []
  const waiting: Array<(lane: OwnLane | undefined) => void> = []
  const all = new Set<OwnLane>()
  let closed = false

  function openLane (): OwnLane {
    const client = open(() => { lane.lost = true })
    const statements = createPreparedStatements()
    const lane: OwnLane = {
      client,
      statements,
      db: drizzle(guarded(client, text => {
        begin(lane)
        return statements.shouldPrepare(text)
      })),
      unprepared: drizzle(guarded(client, () => {
        begin(lane)
        return false
      })),
      lost: false,
      timer: undefined,
      isLate: false
    }
    all.add(lane)
    return lane
  }

  /** A statement is about to be sent. */
  function begin (lane: OwnLane): void {
    if (lane.lost) throw connectionLost()
    clearTimeout(lane.timer)
    lane.timer = setTimeout(() => {
      lane.isLate = true
      drop(lane)
    }, deadlineMs)
  }

  /** Ends its connection; whatever still waits for an answer is rejected. */
  function drop (lane: OwnLane): void {
    lane.lost = true
    all.delete(lane)
    lane.client.end({ timeout: 0 }).catch(() => {})
  }

  async function take (): Promise<OwnLane> {
    if (closed) throw connectionLost()
    for (let lane = idle.pop(); lane !== undefined; lane = idle.pop()) {
      if (!lane.lost) return lane
      drop(lane)
    }
    return all.size < size ? openLane() : await turn()
  }

  async function turn (): Promise<OwnLane> {
    return await new Promise((resolve, reject) => {
      const next = (lane: OwnLane | undefined): void => {
        clearTimeout(timer)
        if (lane === undefined) reject(connectionLost())
        else resolve(lane)
      }
      const timer = setTimeout(() => {
        waiting.splice(waiting.indexOf(next), 1)
        reject(noAnswer(deadlineMs))
      }, deadlineMs)
      waiting.push(next)
    })
  }

  function giveBack (lane: OwnLane): void {
    clearTimeout(lane.timer)
    if (!lane.lost && !lane.statements.isFull) {
      handOn(lane)
      return
    }
    drop(lane)
    // Its place may have been taken already: then whoever has that place serves those who wait.
    if (waiting.length > 0 && all.size < size) handOn(openLane())
  }

  function handOn (lane: OwnLane): void {
    const next = waiting.shift()
    if (next === undefined) idle.push(lane)
    else next(lane)
  }

  return {
    use: async work => {
      const lane = await take()
      try {
        return await work(lane)
      } catch (error) {
        const reason = unwrap(error)
        if (endsConnection(reason)) lane.lost = true // its closing may not have been told yet
        throw lane.isLate ? noAnswer(deadlineMs) : reason
      } finally {
        giveBack(lane)
      }
    },
    close: async () => {
      closed = true
      for (const next of waiting.splice(0)) next(undefined)
      await Promise.all([...all].map(async ({ client }) => { await client.end({ timeout: 1 }) }))
    }
  }
}

/** The client as drizzle sees it: everything that drizzle sends goes through `unsafe`. */
function guarded (client: Sql, beginAndDecide: (text: string) => boolean): Sql {
  return new Proxy(client, {
    get: (target, property, receiver) => property === 'unsafe'
      // eslint-disable-next-line no-restricted-properties -- the text is drizzle's, its values are parameters
      ? (...[text, parameters, options]: Parameters<Sql['unsafe']>) => target.unsafe(text, parameters, { ...options, prepare: beginAndDecide(text) })
      : Reflect.get(target, property, receiver) as unknown
  })
}
