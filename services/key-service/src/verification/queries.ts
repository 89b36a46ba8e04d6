import type { KeyRecord } from '@keygate/contracts'
import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { ofKey, runningLogging } from '../keys/columns.ts'
import { policyList } from '../policies/repository.ts'

/** What a digest stands for: the record, and under which pepper its secret is stored. */
export interface FoundSecret { record: KeyRecord, pepperId: string }
export interface Found { found: FoundSecret | null, cursor: string }

/** Unix milliseconds; stored times have whole ones. */
const ms = (time: ReturnType<typeof sql>) => sql`floor(extract(epoch FROM ${time}) * 1000)::bigint`

/** The key's own, and those of the role it is bound to. */
const scopes = sql`coalesce((SELECT json_agg(scope ORDER BY scope) FROM (
  SELECT scope FROM key_scopes WHERE ${ofKey} UNION SELECT scope FROM role_scopes WHERE project_id = k.project_id AND role_id = k.role_id) s), '[]')`

const record = sql`json_build_object(
  'projectId', k.project_id, 'keyId', k.id, 'keyVersion', k.version, 'projectVersion', p.version, 'status', k.status,
  'scopes', ${scopes}, 'allowedForAll', k.allowed_for_all,
  'allowedHosts', (SELECT json_agg(host ORDER BY position) FROM allowed_hosts WHERE ${ofKey}),
  'notAfterMs', ${ms(sql`k.expires_at`)},
  'policies', CASE
    WHEN EXISTS (SELECT 1 FROM policies WHERE ${ofKey}) THEN json_build_object('owner', 'key', 'list', ${policyList(sql`k.project_id`, sql`k.id`)})
    WHEN EXISTS (SELECT 1 FROM policies WHERE project_id = p.id AND key_id = '*') THEN json_build_object('owner', 'project', 'list', ${policyList(sql`p.id`, sql`'*'`)})
  END,
  'logging', ${runningLogging},
  'secretId', s.id, 'secretState', s.state, 'secretNotAfterMs', ${ms(sql`s.not_after`)}, 'secretRetiredAtMs', ${ms(sql`s.retired_at`)})`

/**
 * Looks a secret up by its keyed digest.
 *
 * ONE statement, so one snapshot of the primary: a record with the scopes of one moment and the version of another would be
 * confirmed by the script for ever. The cursor is of the same snapshot, so what happens after it is in `/v1/changes`.
 *
 * @param digests everything that the secret may be stored as, one per pepper; at most one of them is (`keys/secrets.ts`).
 * @param projectIds all that the key's project must be; empty: any.
 */
export async function findByDigest (db: Executor, digests: string[], projectIds: string[]): Promise<Found> {
  const conditions = [
    sql`s.digest IN (${sql.join(digests.map(digest => sql`${digest}`), sql`, `)})`,
    sql`k.status <> 'deleted'`,
    sql`p.deleted_at IS NULL`,
    ...projectIds.map(id => sql`k.project_id = ${id}`)
  ]
  const [row] = await db.execute<{ found: FoundSecret | null, cursor: string }>(sql`
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS cursor, (
      SELECT json_build_object('record', ${record}, 'pepperId', s.pepper_id) FROM secrets s
      JOIN keys k ON k.project_id = s.project_id AND k.id = s.key_id
      JOIN projects p ON p.id = k.project_id
      WHERE ${sql.join(conditions, sql` AND `)}
    ) AS found`)
  if (row === undefined) throw new Error('the statement returned no row')
  return row
}
