import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import type { Effect } from '../outbox/make-change.ts'
import type { RoleAddress } from './repository.ts'
import { maxRoles, type Role } from './schemas.ts'

/** A role as one statement reads it; times as PostgreSQL writes them. */
export type RoleRow = Role

// What a role has counts by the project's version: that is what is effective or not.
const row = sql`json_build_object(
  'id', r.id, 'projectId', r.project_id, 'name', r.name, 'description', r.description,
  'scopes', coalesce((SELECT json_agg(s.scope ORDER BY s.scope) FROM role_scopes s WHERE s.project_id = r.project_id AND s.role_id = r.id), '[]'),
  'keys', (SELECT count(*) FROM keys k WHERE k.project_id = r.project_id AND k.role_id = r.id),
  'version', r.version,
  'effective', CASE WHEN p.effective_version >= p.version THEN 'everywhere' ELSE 'pending' END,
  'effectiveAt', CASE WHEN p.effective_version >= p.version THEN p.effective_at END,
  'createdAt', r.created_at, 'createdBy', r.created_by)`

export async function findRole (db: Executor, { projectId, roleId }: RoleAddress): Promise<RoleRow | undefined> {
  const [found] = await db.execute<{ role: RoleRow }>(sql`
    SELECT ${row} AS role FROM roles r JOIN projects p ON p.id = r.project_id WHERE r.project_id = ${projectId} AND r.id = ${roleId} AND p.deleted_at IS NULL`)
  return found?.role
}

/** All roles of a project, by name. */
export async function listRoles (db: Executor, projectId: string): Promise<RoleRow[]> {
  const found = await db.execute<{ role: RoleRow }>(sql`
    SELECT ${row} AS role FROM roles r JOIN projects p ON p.id = r.project_id WHERE r.project_id = ${projectId} AND p.deleted_at IS NULL ORDER BY r.name LIMIT ${maxRoles}`)
  return found.map(({ role }) => role)
}

/** How many keys are bound to a role. */
export async function countKeys (db: Executor, { projectId, roleId }: RoleAddress): Promise<number> {
  const [counted] = await db.execute<{ keys: string }>(sql`SELECT count(*) AS keys FROM keys WHERE project_id = ${projectId} AND role_id = ${roleId}`)
  return Number(counted?.keys ?? 0)
}

/** Those of the scopes that some key has from this role alone and whose requests it logs, with the number of such keys. */
export async function countLogged (db: Executor, { projectId, roleId }: RoleAddress, scopes: string[], covered: ReadonlySet<string>): Promise<Array<{ scope: string, keys: number }>> {
  if (scopes.length === 0) return []
  const among = (names: string[]) => names.length === 0 ? sql`false` : sql`l.scope IN (${sql.join(names.map(name => sql`${name}`), sql`, `)})`
  const found = await db.execute<{ scope: string, keys: string }>(sql`
    SELECT l.scope, count(*) AS keys FROM keys k JOIN key_logging l ON l.project_id = k.project_id AND l.key_id = k.id
    WHERE k.project_id = ${projectId} AND k.role_id = ${roleId} AND ${among(scopes)} AND (l.until IS NULL OR l.until > now())
      AND NOT (k.allowed_for_all AND ${among(scopes.filter(scope => covered.has(scope)))})
      AND NOT EXISTS (SELECT 1 FROM key_scopes s WHERE s.project_id = k.project_id AND s.key_id = k.id AND s.scope = l.scope)
    GROUP BY l.scope ORDER BY l.scope`)
  return found.map(({ scope, keys }) => ({ scope, keys: Number(keys) }))
}

/** A role as answers show it; `effect` of the change that is being answered, else what is noted. */
export function viewRole (role: RoleRow, effect: Effect = role): Role {
  return {
    ...role,
    effective: effect.effective,
    effectiveAt: effect.effectiveAt === null ? null : new Date(effect.effectiveAt).toISOString(),
    createdAt: new Date(role.createdAt).toISOString()
  }
}
