import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import type { KeyRow } from './queries.ts'
import type { SinceRevoked } from './schemas.ts'

const minuteMs = 60_000
const hourMs = 3_600_000
const dayMs = 86_400_000

/** From where on each table is read, Unix milliseconds: each up to where the next one begins. */
export interface Since { minute: number, hour: number, day: number }

/** The minute that a moment is in, and the first whole hour and day behind that minute. Pure. */
export function sinceMinuteOf (atMs: number): Since {
  const minute = atMs - atMs % minuteMs
  const hour = Math.ceil((minute + minuteMs) / hourMs) * hourMs
  return { minute, hour, day: Math.ceil(hour / dayMs) * dayMs }
}

/**
 * What came of a key since all gateways know that it is revoked; null: it is not, or they do not all know yet.
 *
 * Sums are kept by the minute, and the minute of the revocation has requests from before it. So what is counted begins with the next minute,
 * and two times that are kept to the millisecond, by the same clock as the revocation, say whether that minute has more to add: the key's last
 * use (`last-use.ts` writes one behind a revocation at once), and when its callers were last seen. `admitted` is therefore 0 exactly if nothing
 * was admitted since, wherever in the minute that would have been. What was refused in that minute counts as soon as somebody came since;
 * refusals from before the revocation in it are among it.
 *
 * After 7 days, when minutes leave, it counts from the next whole hour, after 90 days from the next whole day; callers are those of 7 days.
 */
export async function readSinceRevoked (db: Executor, { status, projectId, id, effectiveAt, lastUsedAt }: KeyRow): Promise<SinceRevoked | null> {
  if (status !== 'revoked' || effectiveAt === null) return null
  const atMs = Date.parse(effectiveAt)
  const { minute, hour, day } = sinceMinuteOf(atMs)
  const at = (ms: number) => sql`${new Date(ms).toISOString()}::timestamptz`
  const ofKey = sql`project_id = ${projectId} AND key_id = ${id}`
  const [found] = await db.execute<{ admitted: string, refused: string, refused_at_first: string, callers: number }>(sql`
    WITH since AS (
      SELECT at, admitted, refused FROM usage_minutes WHERE ${ofKey} AND at >= ${at(minute)} AND at < ${at(hour)}
      UNION ALL SELECT at, admitted, refused FROM usage_hours WHERE ${ofKey} AND at >= ${at(hour)} AND at < ${at(day)}
      UNION ALL SELECT at, admitted, refused FROM usage_days WHERE ${ofKey} AND at >= ${at(day)}
    )
    SELECT coalesce(sum(admitted) FILTER (WHERE at > ${at(minute)}), 0) AS admitted, coalesce(sum(refused) FILTER (WHERE at > ${at(minute)}), 0) AS refused,
      coalesce(sum(refused) FILTER (WHERE at = ${at(minute)}), 0) AS refused_at_first,
      (SELECT count(DISTINCT (address, client))::int FROM usage_callers WHERE ${ofKey} AND hour >= ${at(atMs - atMs % hourMs)} AND last_seen > ${at(atMs)}) AS callers
    FROM since`)
  const { admitted = 0, refused = 0, refused_at_first: refusedAtFirst = 0, callers = 0 } = found ?? {}
  const wasUsed = lastUsedAt !== null && Date.parse(lastUsedAt) > atMs
  return {
    admitted: Math.max(Number(admitted), wasUsed ? 1 : 0),
    refused: Number(refused) + (callers > 0 ? Number(refusedAtFirst) : 0),
    callers
  }
}
