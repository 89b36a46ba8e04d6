import type { PolicyBody } from '@keygate/contracts'
import type { LimitedKey } from '@keygate/rate-limit'
import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import type { KeyAddress } from '../keys/secrets.ts'
import { policyList } from '../policies/repository.ts'
import { isThere } from '../projects/queries.ts'

/** A key with the list of policies that replaces the API's, if there is one. Undefined: there is no such key. */
export async function findLimitedKey (db: Executor, { projectId, keyId }: KeyAddress): Promise<LimitedKey | undefined> {
  const [found] = await db.execute<{ projectId: string, keyId: string, own: PolicyBody[] | null, ofProject: PolicyBody[] | null }>(sql`
    SELECT k.project_id AS "projectId", k.id AS "keyId", ${policyList(sql`k.project_id`, sql`k.id`)} AS own, ${policyList(sql`k.project_id`, sql`'*'`)} AS "ofProject"
    FROM keys k WHERE k.project_id = ${projectId} AND k.id = ${keyId} AND k.status <> 'deleted' AND ${isThere(projectId)}`)
  if (found === undefined) return undefined
  const { own, ofProject, ...key } = found
  if (own !== null) return { ...key, policies: { owner: 'key', list: own } }
  return { ...key, policies: ofProject === null ? null : { owner: 'project', list: ofProject } }
}
