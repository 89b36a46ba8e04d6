import { sql } from 'drizzle-orm'
import { recordAudit, type ChangeContext } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { projects } from '../db/schema.ts'
import { holdProject } from '../keys/repository.ts'
import type { Peppers } from '../vault/peppers.ts'
import { insertKeys, issue, type IssuedKey } from './insert-keys.ts'
import { makeKey } from './make-key.ts'

export interface SeedParts { database: Database, peppers: Peppers, prefix: string, scopes: readonly string[], context: ChangeContext }

export interface SeedOrder {
  keys: number
  /** Undefined: a new one. */
  projectId: string | undefined
  seed: number
  /** Keys per transaction. */
  batch: number
  /** Told after each transaction. */
  onInserted?: (keys: IssuedKey[]) => void
  /** Ends the work after the transaction that is running. */
  signal?: AbortSignal
}

export interface Seeded { projectId: string, keys: number }

/**
 * Fills a project with keys. Each transaction inserts whole keys, so whatever ends this leaves no half of one. In a project that has
 * keys it goes on where those end, so two seeds of a thousand are one of two thousand.
 *
 * @throws {NoProjectError} when the project is not there, or is deleted meanwhile.
 */
export async function seedKeys (parts: SeedParts, order: SeedOrder): Promise<Seeded> {
  const { projectId, first } = await begin(parts, order)
  let keys = 0
  while (keys < order.keys && order.signal?.aborted !== true) {
    const inserted = await insertBatch(parts, projectId, { first: first + keys, count: Math.min(order.batch, order.keys - keys), seed: order.seed })
    keys += inserted.length
    order.onInserted?.(inserted)
  }
  return { projectId, keys }
}

export class NoProjectError extends Error {
  constructor (projectId: string) {
    super(`There is no project ${projectId}. Leave --project out, and one is made.`)
  }
}

/** The one entry in the audit trail is written before the keys: keys that nobody recorded do not come about. */
async function begin ({ database, context }: SeedParts, { projectId: wanted, keys, seed }: SeedOrder): Promise<{ projectId: string, first: number }> {
  return await database.transaction(async tx => {
    const projectId = wanted === undefined ? await createProject(tx, context) : await hold(tx, wanted)
    const [row] = await tx.execute<{ count: string }>(sql`SELECT count(*) FROM keys WHERE project_id = ${projectId}`)
    await recordAudit(tx, context, { action: 'project.seed', projectId, keyId: null, details: { keys, seed, projectIsNew: wanted === undefined } })
    return { projectId, first: Number(row?.count ?? 0) }
  })
}

/** Like its keys it needs no entry in Redis (`insert-keys.ts`). */
async function createProject (tx: Executor, { actor }: ChangeContext): Promise<string> {
  const [created] = await tx.insert(projects).values({ name: 'Seeded', createdBy: actor.name, effectiveVersion: 1, effectiveAt: sql`now()` }).returning({ id: projects.id })
  if (created === undefined) throw new Error('the insert returned no row')
  return created.id
}

async function hold (tx: Executor, projectId: string): Promise<string> {
  const held = await holdProject(tx, projectId)
  if (held === undefined) throw new NoProjectError(projectId)
  return held.projectId
}

async function insertBatch ({ database, peppers, prefix, scopes, context }: SeedParts, projectId: string, { first, count, seed }: { first: number, count: number, seed: number }): Promise<IssuedKey[]> {
  return await database.transaction(async tx => {
    await hold(tx, projectId)
    const source = { seed, now: Date.now(), scopes }
    const issued = Array.from({ length: count }, (_, i) => issue(makeKey(first + i, source), prefix))
    await insertKeys(tx, { projectId, createdBy: context.actor.name, peppers, prefix }, issued)
    return issued
  })
}
