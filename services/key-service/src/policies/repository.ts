import type { PolicyBody } from '@keygate/contracts'
import { and, eq, sql, type SQL } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { policies } from '../db/schema.ts'

/** Whose list it is: a key's id, or `*` for the project itself. */
export interface PolicyOwner { projectId: string, keyId: string }

/** Exchanges a list as a whole; null removes it. */
export async function replacePolicies (tx: Executor, { projectId, keyId }: PolicyOwner, list: PolicyBody[] | null): Promise<void> {
  await tx.delete(policies).where(and(eq(policies.projectId, projectId), eq(policies.keyId, keyId)))
  if (list === null || list.length === 0) return
  await tx.insert(policies).values(list.map((policy, position) => ({ projectId, keyId, position, ...policy })))
}

/** The list as JSON inside a larger statement; null when there is none. `whenStoreIsDown` is told only when it is not `local`. */
export function policyList (projectId: SQL, keyId: SQL): SQL {
  return sql`(
    SELECT json_agg(json_strip_nulls(json_build_object(
      'name', l.name, 'limit', l."limit", 'windowSeconds', l.window_seconds, 'algorithm', l.algorithm, 'partition', l.partition,
      'whenStoreIsDown', nullif(l.when_store_is_down, 'local')
    )) ORDER BY l.position) FROM policies l WHERE l.project_id = ${projectId} AND l.key_id = ${keyId})`
}
