import { sql } from 'drizzle-orm'
import type { Executor } from './database.ts'
import { endsConnection, unwrap } from './failures.ts'
import type { Lane } from './lanes.ts'

/**
 * A transaction that survives the loss of its connection.
 *
 * `sql.begin` of postgres.js 3.4.9 does not: when the server ends the backend in the middle, it writes the ROLLBACK into a socket
 * that is gone, from a timer, and the exception ends the whole process (porsager/postgres issues 1066, 1154, 1208). Here the
 * connection is told apart from the transaction: once it is lost nothing more is sent.
 */
export async function inTransaction<T> (lane: Lane, work: (tx: Executor) => Promise<T>): Promise<T> {
  await lane.db.execute(sql`BEGIN`)
  try {
    const result = await work(lane.db)
    await lane.db.execute(sql`COMMIT`)
    return result
  } catch (error) {
    // A statement that is sent after the socket's failure and before its closing is told of is never answered.
    if (!lane.lost && !endsConnection(unwrap(error))) await rollBack(lane)
    throw error
  }
}

/** Undoes what was done. A connection that cannot even do that is ended, which undoes it too. */
async function rollBack (lane: Lane): Promise<void> {
  try {
    await lane.db.execute(sql`ROLLBACK`)
  } catch {
    lane.lost = true
  }
}
