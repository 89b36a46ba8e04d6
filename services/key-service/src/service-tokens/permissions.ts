/** All there is to permit (design.md section 8). `keys:verify` is for services alone. */
export const permissions = [
  'projects:read', 'projects:create', 'projects:update', 'projects:delete',
  'keys:read', 'keys:create', 'keys:update', 'keys:rotate', 'keys:revoke', 'keys:reveal', 'keys:verify',
  'usage:read', 'catalogue:read', 'limits:reset', 'log:read', 'roles:write', 'audit:read',
  'members:write', 'operators:write', 'tokens:write'
] as const

export type Permission = typeof permissions[number]
