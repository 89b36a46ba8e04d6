import { setTimeout as delay } from 'node:timers/promises'
import type { PgDatabase } from 'drizzle-orm/pg-core'
import { drizzle, type PostgresJsQueryResultHKT } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { isRepeatable, unwrap } from './failures.ts'
import { createTransactions } from './transactions.ts'

/** What runs statements: a connection of the pool, or a transaction. */
export type Executor = PgDatabase<PostgresJsQueryResultHKT>

export interface Database {
  /** One statement, or several that need not be of one moment. */
  run: <T>(work: (db: Executor) => Promise<T>) => Promise<T>
  /** All or nothing; done again, at most three times in all, when another transaction got in its way. */
  transaction: <T>(work: (tx: Executor) => Promise<T>) => Promise<T>
  close: () => Promise<void>
}

/** Bounds that the server holds for every session, in milliseconds: nobody waits for ever behind a lock or a lost client. */
const sessionLimits = { statement_timeout: 5000, lock_timeout: 2000, idle_in_transaction_session_timeout: 5000 }

/** A pool for single statements and one for transactions; both connect when they are first used. */
export function openDatabase (url: string, { max = 10 }: { max?: number } = {}): Database {
  const options = { ...clientOptions, connection: { ...sessionLimits, application_name: 'keygate-key-service' } }
  const client = postgres(url, { ...options, max })
  const db: Executor = drizzle(client)
  const transactions = createTransactions(onclose => postgres(url, { ...options, max: 1, onclose }), max)
  return {
    run: async work => await withoutStatement(async () => await work(db)),
    transaction: async work => await repeated(async () => await withoutStatement(async () => await transactions.run(work))),
    close: async () => { await Promise.all([client.end({ timeout: 1 }), transactions.close()]) }
  }
}

/** Shared with the migration's own client. `connect_timeout` is in seconds. */
export const clientOptions = {
  connect_timeout: 2,
  // The default waits up to 20 s before it tries again, which is how long we would stay away after the database is back.
  backoff: (attempt: number) => Math.min(0.05 * 2 ** attempt, 0.5),
  // Arrays travel as text; asking the server for its types would cost a round trip per connection.
  fetch_types: false,
  onnotice: () => {}
}

async function withoutStatement<T> (work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw unwrap(error)
  }
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
