import { inArray } from 'drizzle-orm'
import type { Caller } from '../access/caller.ts'
import { grantedBy } from '../access/grants.ts'
import { permissionsOf } from '../access/judge.ts'
import { ofEveryone, ofInstallation, ofOperator, ofRole, permissions, type Permission } from '../access/permissions.ts'
import type { Executor } from '../db/database.ts'
import { projects } from '../db/schema.ts'
import type { Me } from './schemas.ts'

/** What a caller is and may do, and who can give what is missing. */
export async function describeCaller (db: Executor, caller: Caller): Promise<Me> {
  const own = projectIdsOf(caller)
  const named = own.length === 0 ? [] : await db.select({ id: projects.id, name: projects.name }).from(projects).where(inArray(projects.id, own)).orderBy(projects.name, projects.id)
  return {
    kind: caller.kind,
    id: caller.id,
    name: caller.name,
    email: caller.kind === 'person' ? caller.email : null,
    isOperator: caller.kind === 'person' && caller.isOperator,
    projects: named.map(project => ({ ...project, role: caller.kind === 'person' ? caller.roles.get(project.id) ?? null : null })),
    permissions: permissions.map(permission => ({ permission, ...grantOf(caller, permission), grantedBy: grantedBy(permission) }))
  }
}

function projectIdsOf (caller: Caller): string[] {
  if (caller.kind === 'person') return [...caller.roles.keys()]
  return caller.projectId === null ? [] : [caller.projectId]
}

function grantOf (caller: Caller, permission: Permission): { granted: boolean, projectIds: string[] | null } {
  if (caller.kind === 'token') {
    const granted = permissionsOf(caller, null).has(permission)
    return { granted, projectIds: granted ? caller.projectId === null || ofInstallation.has(permission) ? null : [caller.projectId] : [] }
  }
  if (caller.isOperator && ofOperator.has(permission)) return { granted: true, projectIds: null }
  const projectIds = [...caller.roles].filter(([, role]) => ofRole[role].has(permission)).map(([projectId]) => projectId)
  return { granted: projectIds.length > 0 || ofEveryone.has(permission), projectIds }
}
