import { fileURLToPath } from 'node:url'
import { sql } from 'drizzle-orm'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import postgres from 'postgres'
import { clientOptions, type Executor } from './database.ts'
import { createLanes } from './lanes.ts'
import { inTransaction } from './transactions.ts'

const migrationsFolder = fileURLToPath(new URL('../../migrations', import.meta.url))

/** Any number, the same in every process: "keygate" on a telephone's keys. */
const advisoryLock = 5394283

/** The longest time that a timer knows, in milliseconds: waiting for the lock is the point, and a migration may take hours. */
const noDeadline = 2 ** 31 - 1

/**
 * Brings the schema up to date, then runs `then`, both under one lock: of several processes that start at once one does it and
 * the others wait. Without the lock they fail on each other's half-made tables.
 *
 * May be done again after any failure, if `then` may: all of the migrations are made, or none. They go over the one connection that
 * holds the lock, so that none goes on without it.
 */
export async function migrate (url: string, then: () => Promise<void> = async () => {}): Promise<void> {
  const options = { ...clientOptions, max: 1, connection: { application_name: 'keygate-migration' } }
  const lanes = createLanes(onclose => postgres(url, { ...options, onclose }), { size: 1, deadlineMs: noDeadline })
  try {
    await lanes.use(async lane => {
      await lane.db.execute(sql`SELECT pg_advisory_lock(${advisoryLock})`)
      await inTransaction(lane, applyPending)
      await then()
    })
  } finally {
    await lanes.close() // which frees the lock
  }
}

/**
 * What drizzle's own migrator does, with the same books, so that either goes on where the other was. That one works by `sql.begin`,
 * which ends the process when the connection is lost (`transactions.ts`).
 */
async function applyPending (tx: Executor): Promise<void> {
  await tx.execute(sql`CREATE SCHEMA IF NOT EXISTS drizzle`)
  await tx.execute(sql`CREATE TABLE IF NOT EXISTS drizzle.__drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at bigint)`)
  const [last] = await tx.execute<{ created_at: string }>(sql`SELECT created_at FROM drizzle.__drizzle_migrations ORDER BY created_at DESC LIMIT 1`)
  const pending = readMigrationFiles({ migrationsFolder }).filter(({ folderMillis }) => last === undefined || folderMillis > Number(last.created_at))
  for (const { sql: statements, hash, folderMillis } of pending) {
    // eslint-disable-next-line no-restricted-properties, no-restricted-syntax -- whole statements, of files beside this program
    for (const statement of statements) await tx.execute(sql.raw(statement))
    await tx.execute(sql`INSERT INTO drizzle.__drizzle_migrations (hash, created_at) VALUES (${hash}, ${folderMillis})`)
  }
}
