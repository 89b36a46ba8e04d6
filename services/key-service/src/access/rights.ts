import { and, eq } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { members, operators } from '../db/schema.ts'
import { ofOperator, ofRole, type MemberRole, type Permission } from './permissions.ts'

/** All rights of a person, as they stand in the database. */
export interface Rights { isOperator: boolean, roles: ReadonlyMap<string, MemberRole> }

/**
 * The rights that a person has at this moment; none of them can be taken away before this transaction ends. What gives rights to
 * others rests on these, and not on what was true when the request came in.
 *
 * @param within asks and holds no memberships but that in this project; with null none.
 */
export async function rightsOf (tx: Executor, userId: string, within?: string | null): Promise<Rights> {
  const memberships = within === null
    ? []
    : await tx.select({ projectId: members.projectId, role: members.role }).from(members).where(and(eq(members.userId, userId), within === undefined ? undefined : eq(members.projectId, within))).for('share')
  const operator = await tx.select({ userId: operators.userId }).from(operators).where(eq(operators.userId, userId)).for('share')
  return { isOperator: operator.length > 0, roles: new Map(memberships.map(({ projectId, role }) => [projectId, role])) }
}

/**
 * What a person may hand on to a service token, for one project or, with null, for all. A membership gives nothing beyond its
 * project: a token for all projects is the operator's to make.
 */
export function grantable ({ isOperator, roles }: Rights, projectId: string | null): ReadonlySet<Permission> {
  const role = projectId === null ? undefined : roles.get(projectId)
  return new Set([...role === undefined ? [] : ofRole[role], ...isOperator ? ofOperator : []])
}
