import { and, eq, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { roleScopes, roles } from '../db/schema.ts'

/** A role as keys are bound to it. */
export interface Role { id: string, name: string, scopes: string[] }
export interface RoleAddress { projectId: string, roleId: string }
export interface RoleSettings { name: string, description: string | null, scopes: string[] }

const rowOf = ({ projectId, roleId }: RoleAddress) => and(eq(roles.projectId, projectId), eq(roles.id, roleId))

/** Keeps a role as it is until this transaction ends, so that what a key is given fits what the role has. */
export async function holdRole (tx: Executor, projectId: string, by: { id: string } | { name: string }): Promise<Role | undefined> {
  const [row] = await tx.select({ id: roles.id, name: roles.name }).from(roles)
    .where(and(eq(roles.projectId, projectId), 'id' in by ? eq(roles.id, by.id) : eq(roles.name, by.name))).for('share')
  // A statement of its own: it may have waited for the row, and sees what it waited for.
  return row === undefined ? undefined : { ...row, scopes: await findScopes(tx, { projectId, roleId: row.id }) }
}

export async function findScopes (tx: Executor, { projectId, roleId }: RoleAddress): Promise<string[]> {
  const rows = await tx.select({ scope: roleScopes.scope }).from(roleScopes).where(and(eq(roleScopes.projectId, projectId), eq(roleScopes.roleId, roleId)))
  return rows.map(({ scope }) => scope)
}

/** Locks a role's row until the transaction ends, and raises its version. Undefined: there is no such role. */
export async function raiseRoleVersion (tx: Executor, role: RoleAddress): Promise<{ name: string, version: number } | undefined> {
  // FOR UPDATE, as for a deletion: a key is bound to a role before that or after it, not meanwhile.
  await tx.select({ id: roles.id }).from(roles).where(rowOf(role)).for('update')
  const [row] = await tx.update(roles).set({ version: sql`${roles.version} + 1` }).where(rowOf(role)).returning({ name: roles.name, version: roles.version })
  return row
}

export async function countRoles (tx: Executor, projectId: string): Promise<number> {
  return await tx.$count(roles, eq(roles.projectId, projectId))
}

/** Another role of this name. The project's row is held by every change of a role, so none comes between. */
export async function isNameTaken (tx: Executor, { projectId, roleId }: RoleAddress, name: string): Promise<boolean> {
  const found = await tx.select({ id: roles.id }).from(roles).where(and(eq(roles.projectId, projectId), eq(roles.name, name), sql`${roles.id} <> ${roleId}`)).limit(1)
  return found.length > 0
}

export async function insertRole (tx: Executor, { projectId, roleId }: RoleAddress, createdBy: string, { name, description, scopes }: RoleSettings): Promise<void> {
  await tx.insert(roles).values({ projectId, id: roleId, name, description, createdBy })
  await replaceScopes(tx, { projectId, roleId }, scopes)
}

/** Writes the given settings; those that are absent stay. */
export async function updateRole (tx: Executor, role: RoleAddress, { name, description, scopes }: Partial<RoleSettings>): Promise<void> {
  if (name !== undefined || description !== undefined) await tx.update(roles).set({ name, description }).where(rowOf(role))
  if (scopes !== undefined) await replaceScopes(tx, role, scopes)
}

export async function deleteRole (tx: Executor, role: RoleAddress): Promise<void> {
  await replaceScopes(tx, role, [])
  await tx.delete(roles).where(rowOf(role))
}

/** All roles of a project, which no key may be bound to any more. */
export async function eraseRoles (tx: Executor, projectId: string): Promise<void> {
  await tx.delete(roleScopes).where(eq(roleScopes.projectId, projectId))
  await tx.delete(roles).where(eq(roles.projectId, projectId))
}

async function replaceScopes (tx: Executor, { projectId, roleId }: RoleAddress, scopes: string[]): Promise<void> {
  await tx.delete(roleScopes).where(and(eq(roleScopes.projectId, projectId), eq(roleScopes.roleId, roleId)))
  if (scopes.length > 0) await tx.insert(roleScopes).values(scopes.map(scope => ({ projectId, roleId, scope })))
}
