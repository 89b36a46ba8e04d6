import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { isAmong } from './columns.ts'

const hours = 24

/**
 * How many requests each key had in each of the last 24 hours (UTC, oldest first, the last one is the hour that runs), whatever became of
 * them: one statement for a whole page.
 */
export async function readRequests24h (db: Executor, projectId: string, keyIds: string[]): Promise<Map<string, number[]>> {
  const byKey = new Map(keyIds.map(keyId => [keyId, Array<number>(hours).fill(0)]))
  if (keyIds.length === 0) return byKey
  const found = await db.execute<{ key_id: string, hours_ago: number, requests: string }>(sql`
    SELECT u.key_id, (extract(epoch FROM date_trunc('hour', now(), 'UTC') - u.at) / 3600)::int AS hours_ago, sum(u.admitted + u.limited + u.refused) AS requests
    FROM usage_hours u
    WHERE u.project_id = ${projectId} AND ${isAmong(sql`u.key_id`, keyIds)} AND u.at > date_trunc('hour', now(), 'UTC') - interval '24 hours'
    GROUP BY 1, 2`)
  for (const { key_id: keyId, hours_ago: hoursAgo, requests } of found) {
    const counts = byKey.get(keyId) as number[]
    // Redis's clock, by which requests are booked, may be in the next hour already.
    counts[hours - 1 - Math.max(0, hoursAgo)] = (counts[hours - 1 - Math.max(0, hoursAgo)] ?? 0) + Number(requests)
  }
  return byKey
}
