import { and, eq, ne, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { allowedHosts, keyScopes, keys, projects } from '../db/schema.ts'
import { replacePolicies } from '../policies/repository.ts'
import type { KeySettings } from './accept-settings.ts'
import type { KeyStatus } from './lifecycle.ts'
import type { KeyAddress } from './secrets.ts'

/** A key whose row this transaction holds, as it was before the change, under its new version. */
export interface RaisedKey extends KeyAddress { status: KeyStatus, version: number, now: number }

const rowOf = ({ projectId, keyId }: KeyAddress) => and(eq(keys.projectId, projectId), eq(keys.id, keyId))
const clock = sql<string>`floor(extract(epoch FROM clock_timestamp()) * 1000)`

/**
 * Begins a change of a key: raises its version, which locks its row until the transaction ends. Undefined: there is no such key.
 */
export async function raiseKeyVersion (tx: Executor, key: KeyAddress): Promise<RaisedKey | undefined> {
  const [row] = await tx.update(keys).set({ version: sql`${keys.version} + 1` })
    .where(and(rowOf(key), ne(keys.status, 'deleted')))
    .returning({ projectId: keys.projectId, keyId: keys.id, status: keys.status, version: keys.version, now: clock })
  return row === undefined ? undefined : { ...row, status: row.status as KeyStatus, now: Number(row.now) }
}

/** Keeps a project from being deleted until this transaction ends, so that no key is born into a deleted one. */
export async function holdProject (tx: Executor, projectId: string): Promise<{ projectId: string, now: number } | undefined> {
  const [row] = await tx.select({ projectId: projects.id, now: clock }).from(projects)
    .where(and(eq(projects.id, projectId), sql`${projects.deletedAt} IS NULL`)).for('share')
  return row === undefined ? undefined : { ...row, now: Number(row.now) }
}

export async function insertKey (tx: Executor, key: KeyAddress, status: KeyStatus, createdBy: string, settings: KeySettings): Promise<void> {
  const { name, description, allowedForAll, expiresAt } = settings
  await tx.insert(keys).values({ projectId: key.projectId, id: key.keyId, status, createdBy, name, description, allowedForAll, expiresAt })
  await replaceLists(tx, key, settings)
}

/** Writes the given settings; those that are absent stay. */
export async function updateKey (tx: Executor, key: KeyAddress, settings: Partial<KeySettings>): Promise<void> {
  const { scopes, allowedHosts: hosts, policies, ...columns } = settings
  if (Object.keys(columns).length > 0) await tx.update(keys).set(columns).where(rowOf(key))
  await replaceLists(tx, key, settings)
}

export async function setStatus (tx: Executor, key: KeyAddress, status: KeyStatus | 'deleted'): Promise<void> {
  await tx.update(keys).set({ status }).where(rowOf(key))
}

/** What a tombstone need not keep. */
export async function eraseSettings (tx: Executor, key: KeyAddress): Promise<void> {
  await replaceLists(tx, key, { scopes: [], allowedHosts: null, policies: null })
}

async function replaceLists (tx: Executor, key: KeyAddress, { scopes, allowedHosts: hosts, policies }: Partial<KeySettings>): Promise<void> {
  if (scopes !== undefined) {
    await tx.delete(keyScopes).where(and(eq(keyScopes.projectId, key.projectId), eq(keyScopes.keyId, key.keyId)))
    if (scopes.length > 0) await tx.insert(keyScopes).values(scopes.map(scope => ({ ...key, scope })))
  }
  if (hosts !== undefined) {
    await tx.delete(allowedHosts).where(and(eq(allowedHosts.projectId, key.projectId), eq(allowedHosts.keyId, key.keyId)))
    if (hosts !== null) await tx.insert(allowedHosts).values(hosts.map((host, position) => ({ ...key, position, host })))
  }
  if (policies !== undefined) await replacePolicies(tx, key, policies)
}
