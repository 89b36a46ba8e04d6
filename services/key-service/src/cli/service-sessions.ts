import { sql } from 'drizzle-orm'
import { serviceName, type Executor } from '../db/database.ts'

/** How many connections to this database are of a running service; those of the command line have another name. */
export async function countServiceSessions (db: Executor): Promise<number> {
  const [row] = await db.execute<{ sessions: string }>(sql`SELECT count(*) AS sessions FROM pg_stat_activity WHERE datname = current_database() AND application_name = ${serviceName}`)
  return Number(row?.sessions ?? 0)
}
