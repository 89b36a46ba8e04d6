/** All there is to permit (design.md section 8). */
export const permissions = [
  'projects:read', 'projects:create', 'projects:update', 'projects:delete',
  'keys:read', 'keys:create', 'keys:update', 'keys:rotate', 'keys:revoke', 'keys:reveal', 'keys:verify',
  'usage:read', 'catalogue:read', 'limits:reset', 'log:read', 'roles:write', 'audit:read',
  'members:write', 'operators:write', 'tokens:write'
] as const

export type Permission = typeof permissions[number]

/** What a member of a project is. */
export const memberRoles = ['owner', 'manager', 'viewer'] as const
export type MemberRole = typeof memberRoles[number]

const reading = ['projects:read', 'keys:read', 'usage:read', 'catalogue:read'] as const satisfies Permission[]
const managing = [...reading, 'keys:create', 'keys:update', 'keys:rotate', 'keys:revoke', 'limits:reset', 'log:read', 'roles:write', 'audit:read'] as const satisfies Permission[]

/** What each kind of member may do in their project. */
export const ofRole: Record<MemberRole, ReadonlySet<Permission>> = {
  viewer: new Set(reading),
  manager: new Set(managing),
  owner: new Set([...managing, 'keys:reveal', 'members:write', 'projects:update', 'projects:delete', 'tokens:write'])
}

/** What an operator may do in every project, and beside them. It sees and ends any key; it never gets hold of a secret. */
export const ofOperator: ReadonlySet<Permission> = new Set([
  ...reading, 'keys:revoke', 'limits:reset', 'audit:read', 'projects:create', 'operators:write', 'tokens:write'
])

/** What everyone who is signed in may do where no project is addressed: the answers show only what is theirs. */
export const ofEveryone: ReadonlySet<Permission> = new Set(['projects:read', 'catalogue:read'])

/** What concerns no single project: a service token that is bound to one cannot use it. */
export const ofInstallation: ReadonlySet<Permission> = new Set(['projects:create', 'operators:write'])
