import { sql, type SQL } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { attentions, type Attention, type AttentionCounts } from './schemas.ts'

/** Active, and not expired. */
export const isActive = sql`(k.status = 'active' AND (k.expires_at IS NULL OR k.expires_at > now()))`

/**
 * Which of a project's keys `k` somebody should look at, all of them active: what is over needs nobody. What stands in other tables is gathered
 * once, by an index that holds little else, and not asked key by key.
 */
export function needsAttention (attention: Attention, projectId: string): SQL {
  switch (attention) {
    case 'old-secret-in-use': return sql`${isActive} AND k.id = ANY(ARRAY(
      SELECT s.key_id FROM secrets s WHERE s.project_id = ${projectId} AND s.state = 'retiring' AND s.not_after > now() AND s.last_used_at > now() - interval '24 hours'))`
    case 'expiring': return sql`k.status = 'active' AND k.expires_at > now() AND k.expires_at <= now() + interval '7 days'`
    // A minute that began a little before the hour has requests of the hour.
    case 'at-limit': return sql`${isActive} AND k.id = ANY(ARRAY(
      SELECT DISTINCT u.key_id FROM usage_minutes u
      WHERE u.project_id = ${projectId} AND u.limited > 0 AND u.key_id <> '*' AND u.at >= date_trunc('minute', now() - interval '1 hour', 'UTC')))`
    case 'unused': return sql`${isActive} AND k.created_at < now() - interval '90 days' AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '90 days')`
  }
}

/** How many keys of a project each filter finds. */
export async function countAttention (db: Executor, projectId: string): Promise<AttentionCounts> {
  const counts = attentions.map(attention => sql`(SELECT count(*) FROM keys k WHERE k.project_id = ${projectId} AND ${needsAttention(attention, projectId)})::int AS ${sql.identifier(attention)}`)
  const [found] = await db.execute<Record<Attention, number>>(sql`SELECT ${sql.join(counts, sql`, `)}`)
  return { data: attentions.map(attention => ({ attention, keys: found?.[attention] ?? 0 })) }
}
