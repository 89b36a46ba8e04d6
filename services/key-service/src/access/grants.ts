import { memberRoles, ofOperator, ofRole, type Permission } from './permissions.ts'

/** Who can give somebody this permission, as a sentence: what stands in a refusal, and beside what a person cannot do. */
export function grantedBy (permission: Permission): string {
  const roles = memberRoles.filter(role => ofRole[role].has(permission))
  const ways = [
    ...roles.length === 0 ? [] : [`an owner of the project, who makes you its ${listed(roles)}`],
    ...ofOperator.has(permission) ? ['an operator, who makes you an operator'] : []
  ]
  if (ways.length === 0) return 'It is granted on the host alone, to a service token: key-service\'s command "tokens create".'
  return `It is granted by ${ways.join(', or by ')}. A service token gets its permissions when it is made.`
}

function listed (roles: readonly string[]): string {
  const last = roles.at(-1) ?? ''
  return roles.length === 1 ? last : `${roles.slice(0, -1).join(', ')} or ${last}`
}
