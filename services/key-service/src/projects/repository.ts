import { and, eq, isNull, ne, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { allowedHosts, keyLogging, keyScopes, keys, members, policies, projects, secrets } from '../db/schema.ts'
import { eraseReplays } from '../keys/secrets.ts'
import type { RaisedVersion } from '../outbox/outbox.ts'
import { eraseRoles } from '../roles/repository.ts'
import { endTokensOfProject } from '../service-tokens/repository.ts'

/** Begins a change of a project: raises its version, which locks its row until the transaction ends. */
export async function raiseProjectVersion (tx: Executor, projectId: string): Promise<{ projectId: string, version: number } | undefined> {
  const [row] = await tx.update(projects).set({ version: sql`${projects.version} + 1` })
    .where(and(eq(projects.id, projectId), isNull(projects.deletedAt)))
    .returning({ projectId: projects.id, version: projects.version })
  return row
}

export async function setName (tx: Executor, projectId: string, name: string): Promise<void> {
  await tx.update(projects).set({ name }).where(eq(projects.id, projectId))
}

/** Nobody belongs to it any more, and the tokens that saw nothing else end. */
export async function setDeleted (tx: Executor, projectId: string): Promise<void> {
  await tx.delete(policies).where(eq(policies.projectId, projectId))
  await tx.delete(members).where(eq(members.projectId, projectId))
  await endTokensOfProject(tx, projectId)
  await tx.update(projects).set({ deletedAt: sql`now()` }).where(eq(projects.id, projectId))
}

/** Turns all keys of a project into tombstones and erases their secrets, and the roles that they were bound to; returns the versions that this raised. */
export async function eraseKeys (tx: Executor, projectId: string): Promise<RaisedVersion[]> {
  const raised = await tx.update(keys).set({ version: sql`${keys.version} + 1`, status: 'deleted', roleId: null, loggedForAll: false, loggedForAllUntil: null })
    .where(and(eq(keys.projectId, projectId), ne(keys.status, 'deleted')))
    .returning({ projectId: keys.projectId, keyId: keys.id, version: keys.version })
  await tx.delete(secrets).where(eq(secrets.projectId, projectId))
  await eraseReplays(tx, { projectId })
  await tx.delete(keyScopes).where(eq(keyScopes.projectId, projectId))
  await tx.delete(keyLogging).where(eq(keyLogging.projectId, projectId))
  await tx.delete(allowedHosts).where(eq(allowedHosts.projectId, projectId))
  await eraseRoles(tx, projectId)
  return raised
}
