import type { Sql } from './helper.ts'

/** A session whose locks others wait for; of one connection, so that BEGIN and COMMIT are its own. */
export async function pidOf (session: Sql): Promise<number> {
  return (await session`SELECT pg_backend_pid() AS pid`)[0]?.['pid'] as number
}

/**
 * Waits until somebody waits for a lock that this session holds, or until `work` has ended without waiting.
 *
 * @param watch another session, which sees the present state at each look.
 * @returns who waits; undefined: `work` did not.
 */
export async function waiterFor (watch: Sql, pid: number, work: Promise<unknown>): Promise<number | undefined> {
  const state = { isRunning: true }
  const end = () => { state.isRunning = false }
  work.then(end, end)
  while (state.isRunning) {
    const [waiter] = await watch`SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND ${pid} = ANY(pg_blocking_pids(pid))`
    if (waiter !== undefined) return waiter['pid'] as number
  }
  return undefined
}
