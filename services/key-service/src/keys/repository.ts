import type { Logging } from '@keygate/contracts'
import { and, eq, ne, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { allowedHosts, keyLogging, keyScopes, keys, projects } from '../db/schema.ts'
import { replacePolicies } from '../policies/repository.ts'
import { holdRole } from '../roles/repository.ts'
import type { KeySettings, KeyState } from './accept-settings.ts'
import { ownScopes, runningLogging } from './columns.ts'
import type { KeyStatus } from './lifecycle.ts'
import { notLogged, readLogging, type Until } from './logging.ts'
import type { KeyAddress } from './secrets.ts'

/** A key whose row this transaction holds, as it was before the change, under its new version. */
export interface RaisedKey extends KeyAddress { status: KeyStatus, sealed: boolean, version: number, now: number }

const rowOf = ({ projectId, keyId }: KeyAddress) => and(eq(keys.projectId, projectId), eq(keys.id, keyId))
const clock = sql<string>`floor(extract(epoch FROM clock_timestamp()) * 1000)`

/**
 * Begins a change of a key: holds its project, then raises the key's version, which locks its row, both until the transaction ends.
 * Undefined: there is no such key.
 */
export async function raiseKeyVersion (tx: Executor, key: KeyAddress): Promise<RaisedKey | undefined> {
  if (await holdProject(tx, key.projectId) === undefined) return undefined
  const [row] = await tx.update(keys).set({ version: sql`${keys.version} + 1` })
    .where(and(rowOf(key), ne(keys.status, 'deleted')))
    .returning({ projectId: keys.projectId, keyId: keys.id, status: keys.status, sealed: keys.sealed, version: keys.version, now: clock })
  return row === undefined ? undefined : { ...row, status: row.status as KeyStatus, now: Number(row.now) }
}

/** What of a key that this transaction holds decides about its new settings; its role is held too. */
export async function findKeyState (tx: Executor, key: KeyAddress): Promise<KeyState> {
  const [row] = await tx.execute<{ scopes: string[], allowed_for_all: boolean, role_id: string | null, logging: Logging }>(sql`
    SELECT ${ownScopes} AS scopes, k.allowed_for_all, k.role_id, ${runningLogging} AS logging FROM keys k WHERE k.project_id = ${key.projectId} AND k.id = ${key.keyId}`)
  if (row === undefined) throw new Error('the key that is held is not there')
  const role = row.role_id === null ? undefined : await holdRole(tx, key.projectId, { id: row.role_id })
  return { scopes: row.scopes, allowedForAll: row.allowed_for_all, role: role ?? null, logging: readLogging(row.logging) }
}

/**
 * Keeps a project from being deleted until this transaction ends, so that no key is born into a deleted one, and none changed in it.
 * Against nothing else: other changes of the project go on meanwhile.
 */
export async function holdProject (tx: Executor, projectId: string): Promise<{ projectId: string, now: number } | undefined> {
  const [row] = await tx.select({ projectId: projects.id, now: clock }).from(projects)
    .where(and(eq(projects.id, projectId), sql`${projects.deletedAt} IS NULL`)).for('key share')
  return row === undefined ? undefined : { ...row, now: Number(row.now) }
}

export async function insertKey (tx: Executor, key: KeyAddress, status: KeyStatus, createdBy: string, settings: KeySettings): Promise<void> {
  const { name, allowedForAll } = settings
  await tx.insert(keys).values({ projectId: key.projectId, id: key.keyId, status, createdBy, ...columnsOf(settings), name, allowedForAll })
  await replaceLists(tx, key, settings)
}

/** Writes the given settings; those that are absent stay. */
export async function updateKey (tx: Executor, key: KeyAddress, settings: Partial<KeySettings>): Promise<void> {
  const columns = columnsOf(settings)
  if (Object.values(columns).some(value => value !== undefined)) await tx.update(keys).set(columns).where(rowOf(key))
  await replaceLists(tx, key, settings)
}

export async function setStatus (tx: Executor, key: KeyAddress, status: KeyStatus | 'deleted'): Promise<void> {
  await tx.update(keys).set({ status }).where(rowOf(key))
}

/** What a tombstone need not keep. A role that it was bound to can be deleted. */
export async function eraseSettings (tx: Executor, key: KeyAddress): Promise<void> {
  await updateKey(tx, key, { scopes: [], role: null, allowedHosts: null, policies: null, logging: notLogged })
}

function columnsOf ({ name, description, allowedForAll, role, expiresAt, logging, sealed }: Partial<KeySettings>) {
  return {
    name,
    description,
    allowedForAll,
    expiresAt,
    sealed,
    roleId: role === undefined ? undefined : role?.id ?? null,
    loggedForAll: logging === undefined ? undefined : logging.all !== null,
    loggedForAllUntil: logging === undefined ? undefined : endOf(logging.all)
  }
}

async function replaceLists (tx: Executor, key: KeyAddress, { scopes, allowedHosts: hosts, policies, logging }: Partial<KeySettings>): Promise<void> {
  if (scopes !== undefined) {
    await tx.delete(keyScopes).where(and(eq(keyScopes.projectId, key.projectId), eq(keyScopes.keyId, key.keyId)))
    if (scopes.length > 0) await tx.insert(keyScopes).values(scopes.map(scope => ({ ...addressOf(key), scope })))
  }
  if (hosts !== undefined) {
    await tx.delete(allowedHosts).where(and(eq(allowedHosts.projectId, key.projectId), eq(allowedHosts.keyId, key.keyId)))
    if (hosts !== null) await tx.insert(allowedHosts).values(hosts.map((host, position) => ({ ...addressOf(key), position, host })))
  }
  if (logging !== undefined) {
    await tx.delete(keyLogging).where(and(eq(keyLogging.projectId, key.projectId), eq(keyLogging.keyId, key.keyId)))
    if (logging.scopes.size > 0) await tx.insert(keyLogging).values([...logging.scopes].map(([scope, until]) => ({ ...addressOf(key), scope, until: endOf(until) })))
  }
  if (policies !== undefined) await replacePolicies(tx, addressOf(key), policies)
}

function addressOf ({ projectId, keyId }: KeyAddress): KeyAddress {
  return { projectId, keyId }
}

function endOf (until: Until | null): Date | null {
  return until === 'forever' ? null : until
}
