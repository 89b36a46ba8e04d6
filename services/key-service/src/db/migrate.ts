import { fileURLToPath } from 'node:url'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate as applyMigrations } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'
import { clientOptions } from './database.ts'
import { unwrap } from './failures.ts'

const migrationsFolder = fileURLToPath(new URL('../../migrations', import.meta.url))

/** Any number, the same in every process: "keygate" on a telephone's keys. */
const advisoryLock = 5394283

/**
 * Brings the schema up to date, then runs `then`, both under one lock: of several processes that start at once one does it and
 * the others wait. Without the lock they fail on each other's half-made tables.
 */
export async function migrate (url: string, then: () => Promise<void> = async () => {}): Promise<void> {
  // Two connections: one holds the lock, drizzle takes another. No time limits here: waiting for the lock is the point.
  // Types are fetched because in postgres.js 3.4.9 `reserve` of a fresh connection never resolves without.
  const client = postgres(url, { ...clientOptions, fetch_types: true, max: 2, connection: { application_name: 'keygate-migration' } })
  try {
    const holder = await client.reserve()
    try {
      await holder`SELECT pg_advisory_lock(${advisoryLock})`
      await applyMigrations(drizzle(client), { migrationsFolder })
      await then()
      await holder`SELECT pg_advisory_unlock(${advisoryLock})`
    } finally {
      holder.release()
    }
  } catch (error) {
    throw unwrap(error)
  } finally {
    await client.end({ timeout: 1 }) // also frees the lock if anything above failed
  }
}
