import type { Caller } from './caller.ts'
import { ofEveryone, ofInstallation, ofOperator, ofRole, type Permission } from './permissions.ts'

/** `hidden`: the caller may not even know that the project is there. */
export type Judgement = 'allowed' | 'forbidden' | 'hidden'

/**
 * May this caller do this in that project?
 *
 * @param projectId the project that is addressed, in lower case; null: none, then it is asked whether the caller may do it anywhere.
 */
export function judge (caller: Caller, permission: Permission, projectId: string | null): Judgement {
  if (projectId !== null && !sees(caller, projectId)) return 'hidden'
  return permissionsOf(caller, projectId).has(permission) ? 'allowed' : 'forbidden'
}

export function sees (caller: Caller, projectId: string): boolean {
  if (caller.kind === 'token') return caller.projectId === null || caller.projectId === projectId
  return caller.isOperator || caller.roles.has(projectId)
}

/** Everything the caller may do in a project that it sees, or, with null, where none is addressed. */
export function permissionsOf (caller: Caller, projectId: string | null): ReadonlySet<Permission> {
  if (caller.kind === 'token') return caller.projectId === null ? caller.permissions : new Set([...caller.permissions].filter(permission => !ofInstallation.has(permission)))
  const roles = projectId === null ? [...caller.roles.values()] : [caller.roles.get(projectId)].filter(role => role !== undefined)
  return new Set([...roles.flatMap(role => [...ofRole[role]]), ...caller.isOperator ? ofOperator : [], ...projectId === null ? ofEveryone : []])
}
