import type { KeyRecord } from '@keygate/contracts'
import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { policyList } from '../policies/repository.ts'

export interface Found { record: KeyRecord | null, cursor: string }

/** Unix milliseconds; stored times have whole ones. */
const ms = (time: ReturnType<typeof sql>) => sql`floor(extract(epoch FROM ${time}) * 1000)::bigint`
const ofKey = sql`project_id = k.project_id AND key_id = k.id`

const record = sql`json_build_object(
  'projectId', k.project_id, 'keyId', k.id, 'keyVersion', k.version, 'projectVersion', p.version, 'status', k.status,
  'scopes', coalesce((SELECT json_agg(scope ORDER BY scope) FROM key_scopes WHERE ${ofKey}), '[]'),
  'allowedForAll', k.allowed_for_all,
  'allowedHosts', (SELECT json_agg(host ORDER BY position) FROM allowed_hosts WHERE ${ofKey}),
  'notAfterMs', ${ms(sql`k.expires_at`)},
  'policies', CASE
    WHEN EXISTS (SELECT 1 FROM policies WHERE ${ofKey}) THEN json_build_object('owner', 'key', 'list', ${policyList(sql`k.project_id`, sql`k.id`)})
    WHEN EXISTS (SELECT 1 FROM policies WHERE project_id = p.id AND key_id = '*') THEN json_build_object('owner', 'project', 'list', ${policyList(sql`p.id`, sql`'*'`)})
  END,
  'logging', json_build_object('all', NULL, 'scopes', json_build_object()),
  'secretId', s.id, 'secretState', s.state, 'secretNotAfterMs', ${ms(sql`s.not_after`)})`

/**
 * Looks a secret up by its keyed digest.
 *
 * ONE statement, so one snapshot of the primary: a record with the scopes of one moment and the version of another would be
 * confirmed by the script for ever. The cursor is of the same snapshot, so what happens after it is in `/v1/changes`.
 *
 * @param projectIds all that the key's project must be; empty: any.
 */
export async function findByDigest (db: Executor, digest: string, projectIds: string[]): Promise<Found> {
  const conditions = [sql`s.digest = ${digest}`, sql`k.status <> 'deleted'`, sql`p.deleted_at IS NULL`, ...projectIds.map(id => sql`k.project_id = ${id}`)]
  const [found] = await db.execute<{ record: KeyRecord | null, cursor: string }>(sql`
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS cursor, (
      SELECT ${record} FROM secrets s
      JOIN keys k ON k.project_id = s.project_id AND k.id = s.key_id
      JOIN projects p ON p.id = k.project_id
      WHERE ${sql.join(conditions, sql` AND `)}
    ) AS record`)
  if (found === undefined) throw new Error('the statement returned no row')
  return found
}
