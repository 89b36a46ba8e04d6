import { sql } from 'drizzle-orm'
import { isoTime } from '../audit/queries.ts'
import type { Executor } from '../db/database.ts'
import type { KeyAddress } from '../keys/secrets.ts'
import type { Caller, CallerList } from './callers-schemas.ts'
import { callersOfKey } from './store.ts'
import { keptDays } from './upkeep.ts'

/**
 * Who calls with a key, newest first, and how many of them have moved to the new secret while an old one works.
 *
 * A caller is an address and what it calls itself. It is told with the secret that it came with last; of two at the same millisecond that is
 * the old one, so that nobody counts as moved who may not be.
 */
export async function listCallers (db: Executor, { projectId, keyId }: KeyAddress): Promise<CallerList> {
  const [found] = await db.execute<{ callers: Caller[], is_rotating: boolean }>(sql`
    WITH own AS (
      SELECT id, state FROM secrets WHERE project_id = ${projectId} AND key_id = ${keyId} AND (state = 'current' OR not_after > now())
    ), used AS (
      SELECT c.address, c.client, c.secret_id, coalesce(s.state, 'ended') AS state, max(c.last_seen) AS last_seen,
        coalesce(sum(c.count) FILTER (WHERE c.hour > now() - interval '24 hours'), 0) AS requests
      FROM usage_callers c LEFT JOIN own s ON s.id = c.secret_id
      WHERE c.project_id = ${projectId} AND c.key_id = ${keyId} AND c.hour >= now() - make_interval(days => ${keptDays.usage_callers})
      GROUP BY 1, 2, 3, 4
    ), callers AS (
      SELECT DISTINCT ON (address, client) address, client, secret_id, state, last_seen, sum(requests) OVER (PARTITION BY address, client) AS requests
      FROM used ORDER BY address, client, last_seen DESC, state DESC, secret_id
    ), newest AS (
      SELECT * FROM callers ORDER BY last_seen DESC, address, client LIMIT ${callersOfKey}
    )
    SELECT coalesce((SELECT json_agg(json_build_object(
        'address', address, 'client', client, 'secretId', secret_id, 'secretState', state, 'lastSeen', ${isoTime(sql`last_seen`)}, 'requests24h', requests
      ) ORDER BY last_seen DESC, address, client) FROM newest), '[]') AS callers,
      EXISTS (SELECT 1 FROM own WHERE state = 'retiring') AS is_rotating`)
  if (found === undefined) throw new Error('an aggregate has no row')
  const count = (state: Caller['secretState']): number => found.callers.filter(({ secretState }) => secretState === state).length
  return { data: found.callers, rotation: found.is_rotating ? { moved: count('current'), stillOld: count('retiring') } : null }
}
