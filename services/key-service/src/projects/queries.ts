import type { PolicyBody } from '@keygate/contracts'
import { sql, type SQL } from 'drizzle-orm'
import { isInstant, readCursor, writeCursor } from '../cursor.ts'
import type { Executor } from '../db/database.ts'
import { policyList } from '../policies/repository.ts'
import type { ListProjects, Project } from './schemas.ts'

/** A project as one statement reads it; times as PostgreSQL writes them. */
export interface ProjectRow {
  id: string
  name: string
  policies: PolicyBody[] | null
  version: number
  effective: Project['effective']
  effectiveAt: string | null
  createdAt: string
  createdBy: string
}

const row = sql`json_build_object(
  'id', p.id, 'name', p.name, 'policies', ${policyList(sql`p.id`, sql`'*'`)}, 'version', p.version,
  'effective', CASE WHEN p.effective_version >= p.version THEN 'everywhere' ELSE 'pending' END,
  'effectiveAt', CASE WHEN p.effective_version >= p.version THEN p.effective_at END,
  'createdAt', p.created_at, 'createdBy', p.created_by)`

export async function findProject (db: Executor, projectId: string): Promise<ProjectRow | undefined> {
  const [found] = await db.execute<{ project: ProjectRow }>(sql`SELECT ${row} AS project FROM projects p WHERE p.id = ${projectId} AND p.deleted_at IS NULL`)
  return found?.project
}

/** A condition for everything that reads keys: those of a deleted project may not be erased yet, and are gone all the same. */
export const isThere = (projectId: string): SQL => sql`EXISTS (SELECT 1 FROM projects WHERE id = ${projectId} AND deleted_at IS NULL)`

export async function hasProject (db: Executor, projectId: string): Promise<boolean> {
  const [row] = await db.execute<{ there: boolean }>(sql`SELECT ${isThere(projectId)} AS there`)
  return row?.there === true
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** One page, youngest first. `only` are the projects that the caller may see; null: all. */
export async function listProjects (db: Executor, only: string[] | null, { cursor, limit }: ListProjects): Promise<{ rows: ProjectRow[], nextCursor: string | null }> {
  const sort = '-createdAt'
  const after = cursor === undefined ? undefined : readCursor(cursor, sort, { value: isInstant, id: uuid })
  const conditions = [
    sql`p.deleted_at IS NULL`,
    ...only === null ? [] : [sql`p.id = ANY(${`{${only.join(',')}}`}::uuid[])`],
    ...after === undefined ? [] : [sql`(p.created_at, p.id) < (${after.value}::timestamptz, ${after.id}::uuid)`]
  ]
  const found = await db.execute<{ project: ProjectRow }>(sql`
    SELECT ${row} AS project FROM projects p WHERE ${sql.join(conditions, sql` AND `)} ORDER BY p.created_at DESC, p.id DESC LIMIT ${limit + 1}`)
  const rows = found.slice(0, limit).map(({ project }) => project)
  const last = rows.at(-1)
  if (found.length <= limit || last === undefined) return { rows, nextCursor: null }
  return { rows, nextCursor: writeCursor(sort, { value: new Date(last.createdAt).toISOString(), id: last.id }) }
}
