import { setTimeout as delay } from 'node:timers/promises'
import type { PgDatabase } from 'drizzle-orm/pg-core'
import type { PostgresJsQueryResultHKT } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { isRepeatable } from './failures.ts'
import { createLanes } from './lanes.ts'
import { inTransaction } from './transactions.ts'

/** What runs statements: a connection of the pool, or a transaction. */
export type Executor = PgDatabase<PostgresJsQueryResultHKT>

export interface Database {
  /** One statement, or several that need not be of one moment. */
  run: <T>(work: (db: Executor) => Promise<T>) => Promise<T>
  /** As `run`, for statements whose best plan hangs on the values in them: they are planned each time. */
  search: <T>(work: (db: Executor) => Promise<T>) => Promise<T>
  /** All or nothing; done again, at most three times in all, when another transaction got in its way. */
  transaction: <T>(work: (tx: Executor) => Promise<T>) => Promise<T>
  close: () => Promise<void>
}

export interface DatabaseOptions {
  /** Connections for single statements, and as many again for transactions; each is made when it is first needed. */
  max?: number
  /** How long a statement may take, waiting for a lock included, and connecting too. */
  timeoutMs?: number
  /** What its sessions are called in `pg_stat_activity`. */
  applicationName?: string
}

/** What the sessions of a running service are called. */
export const serviceName = 'keygate-key-service'

/** How much later than the server we give up on a statement ourselves: one that works ends it, and says so. */
const graceMs = 500

/** Every failure that means "not now", a silent server too, is one that `isUnavailable` knows. */
export function openDatabase (url: string, { max = 10, timeoutMs = 2000, applicationName = serviceName }: DatabaseOptions = {}): Database {
  const options = {
    ...clientOptions,
    max: 1,
    connect_timeout: timeoutMs / 1000,
    // Held by the server for every session, in milliseconds: nobody waits for ever behind a lock or a lost client. The wait for a lock
    // ends before the statement's time does, so that the log tells the one from a slow statement.
    connection: { lock_timeout: Math.ceil(timeoutMs * 0.75), statement_timeout: timeoutMs, idle_in_transaction_session_timeout: 5000, application_name: applicationName }
  }
  const lanes = () => createLanes(onclose => postgres(url, { ...options, onclose }), { size: max, deadlineMs: timeoutMs + graceMs })
  const [single, transactions] = [lanes(), lanes()]
  return {
    run: async work => await single.use(async ({ db }) => await work(db)),
    search: async work => await single.use(async ({ unprepared }) => await work(unprepared)),
    transaction: async work => await repeated(async () => await transactions.use(async lane => await inTransaction(lane, work))),
    close: async () => { await Promise.all([single.close(), transactions.close()]) }
  }
}

/** Shared with the migration's own client. `connect_timeout` is in seconds. */
export const clientOptions = {
  connect_timeout: 2,
  // Arrays travel as text; asking the server for its types would cost a round trip per connection.
  fetch_types: false,
  onnotice: () => {}
}

async function repeated<T> (work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (attempt === 3 || !isRepeatable(error)) throw error
      await delay(Math.random() * 20 * attempt) // apart from the other one, which may be repeating too
    }
  }
}
