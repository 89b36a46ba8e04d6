import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import type { Sql } from 'postgres'
import type { Executor } from './database.ts'
import { isUnavailable, unwrap } from './failures.ts'

/** One connection that one transaction at a time has to itself. */
interface Lane { client: Sql, db: Executor, lost: boolean }

export interface Transactions {
  run: <T>(work: (tx: Executor) => Promise<T>) => Promise<T>
  close: () => Promise<void>
}

/**
 * Transactions that survive the loss of their connection.
 *
 * `sql.begin` of postgres.js 3.4.9 does not: when the server ends the backend in the middle, it writes the ROLLBACK into a socket
 * that is gone, from a timer, and the exception ends the whole process (porsager/postgres issues 1066, 1154, 1208). Here each
 * transaction has a client of one connection, is told when that closes, and from then on sends nothing more.
 *
 * @param open makes a client of ONE connection that calls `onclose` whenever that ends.
 * @param size how many transactions may run at once; more wait their turn.
 */
export function createTransactions (open: (onclose: () => void) => Sql, size: number): Transactions {
  const idle: Lane[] = []
  const waiting: Array<(lane: Lane) => void> = []
  const all = new Set<Lane>()

  function openLane (): Lane {
    const client = open(() => { lane.lost = true })
    const guarded = new Proxy(client, {
      get: (target, property, receiver) => {
        if (property === 'unsafe' && lane.lost) throw connectionLost()
        return Reflect.get(target, property, receiver) as unknown
      }
    })
    const lane: Lane = { client, db: drizzle(guarded), lost: false }
    all.add(lane)
    return lane
  }

  async function take (): Promise<Lane> {
    return idle.pop() ?? (all.size < size ? openLane() : await new Promise<Lane>(resolve => { waiting.push(resolve) }))
  }

  function giveBack (lane: Lane): void {
    const next = waiting.shift()
    if (next === undefined) idle.push(lane)
    else next(lane)
  }

  async function attempt<T> (lane: Lane, work: (tx: Executor) => Promise<T>): Promise<T> {
    lane.lost = false // it reconnects with the next statement, and that is BEGIN
    await lane.db.execute(sql`BEGIN`)
    try {
      const result = await work(lane.db)
      await lane.db.execute(sql`COMMIT`)
      return result
    } catch (error) {
      if (!lane.lost) await rollBack(lane, unwrap(error) as Error)
      throw error
    }
  }

  return {
    run: async work => {
      const lane = await take()
      try {
        return await attempt(lane, work)
      } finally {
        giveBack(lane)
      }
    },
    close: async () => { await Promise.all([...all].map(async ({ client }) => { await client.end({ timeout: 1 }) })) }
  }
}

/** Undoes what was done. A connection that cannot even do that is ended, which undoes it too. */
async function rollBack (lane: Lane, reason: Error): Promise<void> {
  try {
    await lane.db.execute(sql`ROLLBACK`)
  } catch (error) {
    if (!lane.lost && !isUnavailable(reason) && !isUnavailable(unwrap(error) as Error)) throw error
  }
}

function connectionLost (): Error {
  return Object.assign(new Error('the connection was lost in the middle of a transaction'), { code: 'CONNECTION_CLOSED' })
}
