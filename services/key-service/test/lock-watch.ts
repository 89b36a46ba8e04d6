import type { Config } from '../src/config.ts'
import type { Sql, TestApp } from './helper.ts'

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

/** How many sessions of a database wait for a lock. */
export async function waiting (admin: Sql, { databaseUrl }: Pick<Config, 'databaseUrl'>): Promise<number> {
  return (await admin`SELECT 1 FROM pg_stat_activity WHERE datname = ${nameOf(databaseUrl)} AND wait_event_type = 'Lock'`).length
}

/** Closes the service and says how many deadlocks there were in its database: a backend has certainly counted its own when it has ended. */
export async function deadlocksOf (admin: Sql, { app }: TestApp, { databaseUrl }: Pick<Config, 'databaseUrl'>): Promise<number> {
  await app.close()
  const name = nameOf(databaseUrl)
  while ((await admin`SELECT 1 FROM pg_stat_activity WHERE datname = ${name} AND application_name LIKE 'keygate-key-service%'`).length > 0) { /* each look takes a round trip */ }
  return (await admin`SELECT deadlocks::int FROM pg_stat_database WHERE datname = ${name}`)[0]?.['deadlocks']
}

const nameOf = (databaseUrl: string) => new URL(databaseUrl).pathname.slice(1)
