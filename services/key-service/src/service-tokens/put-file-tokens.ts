import { digestSecret, generateId } from '@keygate/api-key'
import { eq } from 'drizzle-orm'
import type { Permission } from '../access/permissions.ts'
import { recordAudit, type ChangeContext } from '../audit/audit-log.ts'
import type { Executor } from '../db/database.ts'
import { serviceTokens } from '../db/schema.ts'
import { descendantsOf, endTokens } from './repository.ts'
import type { TokenEntry } from './tokens-file.ts'

const context: ChangeContext = { actor: { type: 'host', id: 'tokens-file', name: 'the tokens file' }, requestId: 'start' }

const { id, name, digest, permissions, projectId } = serviceTokens
const columns = { id, name, digest, permissions, projectId }

/**
 * Makes the file's tokens those that work. A new token under an old name is another token: the old one ends, and what it made. A start
 * that changes nothing writes nothing down.
 *
 * To be called under the lock of the migrations.
 */
export async function putFileTokens (tx: Executor, entries: TokenEntry[]): Promise<void> {
  const wanted = new Map(entries.map(entry => [digestSecret(entry.token), entry]))
  const rows = await tx.select(columns).from(serviceTokens).where(eq(serviceTokens.fromFile, true)).orderBy(name).for('update')
  const isStaying = (row: { name: string, digest: string }) => wanted.get(row.digest)?.name === row.name
  // Endings first: two entries may have exchanged their tokens, and a name and a token are each there once.
  for (const row of rows.filter(row => !isStaying(row))) {
    const ended = await endTokens(tx, [row.id])
    await record(tx, 'delete', { tokenId: row.id, name: row.name, permissions: row.permissions, projectId: row.projectId, endedTokens: ended.filter(one => one !== row.id) })
  }
  const staying = new Map(rows.filter(isStaying).map(row => [row.digest, row]))
  for (const [digest, { name, permissions, projectId }] of wanted) {
    const row = staying.get(digest)
    if (row === undefined) {
      const id = generateId('tok')
      await tx.insert(serviceTokens).values({ id, name, digest, permissions, projectId, fromFile: true })
      await record(tx, 'create', { tokenId: id, name, permissions, projectId })
    } else if (row.projectId !== projectId || !isSame(row.permissions, permissions)) {
      await tx.update(serviceTokens).set({ permissions, projectId }).where(eq(serviceTokens.id, row.id))
      const made = await descendantsOf(tx, [row.id])
      const beyond = made.filter(one => !one.permissions.every(permission => permissions.includes(permission)) || (projectId !== null && one.projectId !== projectId))
      await record(tx, 'edit', { tokenId: row.id, name, from: row.permissions, permissions, projectId, endedTokens: await endTokens(tx, beyond.map(one => one.id)) })
    }
  }
}

const isSame = (left: string[], right: Permission[]) => left.toSorted().join() === right.toSorted().join()

async function record (tx: Executor, action: 'create' | 'edit' | 'delete', details: Record<string, unknown>): Promise<void> {
  await recordAudit(tx, context, { action: `token.${action}`, projectId: null, keyId: null, details: { ...details, fromFile: true } })
}
