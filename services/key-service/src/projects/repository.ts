import { and, asc, eq, gt, isNotNull, isNull, ne, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { allowedHosts, keyLogging, keyScopes, keys, members, policies, projects, secrets, serviceTokens } from '../db/schema.ts'
import { isAmong } from '../keys/columns.ts'
import { eraseReplays } from '../keys/secrets.ts'
import { replacePolicies } from '../policies/repository.ts'
import { eraseRoles } from '../roles/repository.ts'
import { endTokensOfProject } from '../service-tokens/repository.ts'
import { hasNoTraces } from '../usage/traces.ts'

/** A project under its new version, whose row this transaction holds. */
export interface RaisedProject { projectId: string, version: number }

/** Begins a change of a project: raises its version, which locks its row until the transaction ends. */
export async function raiseProjectVersion (tx: Executor, projectId: string): Promise<RaisedProject | undefined> {
  const [row] = await tx.update(projects).set({ version: sql`${projects.version} + 1` })
    .where(and(eq(projects.id, projectId), isNull(projects.deletedAt)))
    .returning({ projectId: projects.id, version: projects.version })
  return row
}

export async function setName (tx: Executor, projectId: string, name: string): Promise<void> {
  await tx.update(projects).set({ name }).where(eq(projects.id, projectId))
}

/**
 * Begins a deletion, in the order of locks (`access/still.ts`): the rights that `setDeleted` takes away, then the project. To be alone
 * with the project (`db/queues.ts`) comes before: its rows alone would be let go by one change only to be held by the next, for ever.
 *
 * FOR UPDATE: whoever changes a key holds the project's row FOR KEY SHARE (`holdProject`), which no other change of the project waits
 * for. So a change of a key comes before the deletion, or finds no project.
 */
export async function raiseForDeletion (tx: Executor, projectId: string): Promise<RaisedProject | undefined> {
  await tx.select({ userId: members.userId }).from(members).where(eq(members.projectId, projectId)).orderBy(asc(members.userId)).for('update')
  await tx.select({ id: serviceTokens.id }).from(serviceTokens).where(eq(serviceTokens.projectId, projectId)).orderBy(asc(serviceTokens.id)).for('update')
  await tx.select({ id: projects.id }).from(projects).where(eq(projects.id, projectId)).for('update')
  return await raiseProjectVersion(tx, projectId)
}

/** How many keys there are, which are as many until the transaction ends if it holds the project. 100 000 take 40 ms, out of an index. */
export async function countKeys (tx: Executor, projectId: string): Promise<number> {
  return await tx.$count(keys, and(eq(keys.projectId, projectId), isKey))
}

/** Nobody belongs to it any more, and the tokens that saw nothing else end. From the commit on its keys are not there for anybody. */
export async function setDeleted (tx: Executor, projectId: string): Promise<void> {
  await replacePolicies(tx, { projectId, keyId: '*' }, null)
  await tx.delete(members).where(eq(members.projectId, projectId))
  await endTokensOfProject(tx, projectId)
  await tx.update(projects).set({ deletedAt: sql`now()` }).where(eq(projects.id, projectId))
}

/** Not a tombstone. */
const isKey = ne(keys.status, 'deleted')

/**
 * Keys per transaction. A thousand take 0.06 s, or, with as many scopes each as there can be, 2 s, which may be too long (`erasure.ts`).
 * The deletion itself erases fewer: it must not be too slow whatever the keys have.
 */
export const batchSizes = { atOnce: 200, afterwards: 1000, traces: 5000 }

export interface Batch {
  /** How many keys were erased. */
  erased: number
  /** The last of them; undefined: there were no more. */
  last: string | undefined
}

/**
 * Erases keys of a deleted project, at most `size`: they become tombstones without secrets and settings. With the last key go the
 * roles that keys were bound to.
 *
 * No key's version is raised: the project's has been, with `deleted_at` in one transaction. A gateway's record counts only while both
 * of its versions are the current ones, so every record of these keys is stale, and no look-up finds one again; the project's version
 * never goes back and the project never comes back, so they are stale for good. What is erased later changes no admission, and so
 * is no change of its own (design.md section 5).
 *
 * @param after the last key of the batch before; '' at the beginning.
 * @param locked keys whose rows somebody else is writing (their last use, what Redis has confirmed): wait for them, or leave them for
 *   another time.
 */
export async function eraseBatch (tx: Executor, projectId: string, { after = '', size, locked }: { after?: string, size: number, locked: 'wait' | 'skip' }): Promise<Batch> {
  const found = await tx.select({ id: keys.id }).from(keys).where(and(eq(keys.projectId, projectId), gt(keys.id, after), isKey))
    .orderBy(asc(keys.id)).limit(size).for('update', locked === 'skip' ? { skipLocked: true } : {})
  const ids = found.map(({ id }) => id)
  if (ids.length > 0) await eraseKeys(tx, projectId, ids)
  if (ids.length === size) return { erased: ids.length, last: ids.at(-1) }
  if (await countKeys(tx, projectId) === 0) await eraseRoles(tx, projectId)
  return { erased: ids.length, last: undefined }
}

/** A deleted project of which nothing is left any more counts as erased from now on. */
export async function noteErased (tx: Executor, projectId: string): Promise<void> {
  if (await countKeys(tx, projectId) > 0) return
  await tx.update(projects).set({ erasedAt: sql`now()` }).where(and(eq(projects.id, projectId), isNull(projects.erasedAt), hasNoTraces(projectId)))
}

async function eraseKeys (tx: Executor, projectId: string, ids: string[]): Promise<void> {
  for (const table of [secrets, keyScopes, keyLogging, allowedHosts, policies]) await tx.delete(table).where(and(eq(table.projectId, projectId), isAmong(table.keyId, ids)))
  await eraseReplays(tx, { projectId, keyId: ids })
  await tx.update(keys).set({ status: 'deleted', roleId: null, loggedForAll: false, loggedForAllUntil: null }).where(and(eq(keys.projectId, projectId), isAmong(keys.id, ids)))
}

/** Deleted projects of which something may be left to erase; at most a hundred, in the order of their ids, those after `after`. */
export async function findUnerased (db: Executor, after?: string): Promise<string[]> {
  const rows = await db.select({ id: projects.id }).from(projects)
    .where(and(isNotNull(projects.deletedAt), isNull(projects.erasedAt), after === undefined ? undefined : gt(projects.id, after)))
    .orderBy(asc(projects.id)).limit(100)
  return rows.map(({ id }) => id)
}
