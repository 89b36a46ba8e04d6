import { sql } from 'drizzle-orm'
import { recordAudit, type ChangeContext } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { holdProject } from '../keys/repository.ts'
import { makePartitions, partitioned } from '../usage/partitions.ts'
import { insertUsage, type UsageRows } from './insert-usage.ts'
import { NoProjectError } from './seed-keys.ts'
import { chunksOf, partitionsOf, type Chunk } from './usage-chunks.ts'
import { strandsOf, type KeyAtPlace, type Target } from './usage-profile.ts'

export interface SeedUsageParts { database: Database, targets: readonly Target[], context: ChangeContext }

export interface SeedUsageOrder {
  projectId: string
  /** Today and the days before it (UTC). */
  days: number
  seed: number
  /** Unix milliseconds; nothing is written of later minutes. */
  nowMs: number
  /** Told after each transaction. */
  onInserted?: (chunk: Chunk, rows: UsageRows) => void
  /** Ends the work after the transaction that is running. */
  signal?: AbortSignal
}

/** Their profiles travel in one parameter. */
export const mostKeys = 100_000

/**
 * Fills the tables of usage for all keys of a project as gateways would have: a row per key, operation and day, of the last ninety days per
 * hour with requests, of the last seven per minute, the project's sums, callers, and requests of keys that are logged. The same seed, time
 * and number of keys give the same rows, under the keys' own ids; whether a key was there already is not looked at.
 *
 * Each transaction writes whole days, oldest first. Last uses stay as they are. At the end the planner's statistics are brought up to date.
 *
 * @returns the days that are written. @throws {NoProjectError} @throws {UsageThereError} @throws {TooManyKeysError}
 */
export async function seedUsage ({ database, targets, context }: SeedUsageParts, order: SeedUsageOrder): Promise<number> {
  const { projectId, days, seed, nowMs } = order
  if (targets.length === 0) throw new Error('The catalogue has no operation that is open to keys. Name one with operations in KEYGATE_APIS.')
  const keys = await database.transaction(async tx => await begin(tx, context, order))
  const strands = keys.flatMap(key => strandsOf(key, targets, seed))
  const chunks = chunksOf({ nowMs, days, strands: strands.length })
  await database.transaction(async tx => { await makePartitions(tx, partitionsOf(chunks)) })
  const source = { projectId, strands: JSON.stringify(strands), nowMs }
  let written = 0
  for (const chunk of chunks) {
    if (order.signal?.aborted === true) return written
    const rows = await database.transaction(async tx => await insertUsage(tx, source, chunk))
    written += chunk.days
    order.onInserted?.(chunk, rows)
  }
  for (const table of [...Object.keys(partitioned), 'usage_callers']) await database.run(async db => { await db.execute(sql`ANALYZE ${sql.identifier(table)}`) })
  return written
}

export class UsageThereError extends Error {
  constructor (projectId: string) {
    super(`The project ${projectId} has usage already, and more would only be added to it. Leave --project out, and a new one is made, or name one without usage.`)
  }
}

export class TooManyKeysError extends Error {
  constructor (projectId: string) {
    super(`The project ${projectId} has more than ${mostKeys} keys: usage can be made for fewer only. Name another one, or leave --project out.`)
  }
}

/** @throws {UsageThereError} something of it is counted. */
export async function refuseIfUsed (db: Executor, projectId: string): Promise<void> {
  const found = await db.execute(sql`SELECT 1 FROM usage_days WHERE project_id = ${projectId} LIMIT 1`)
  if (found.length > 0) throw new UsageThereError(projectId)
}

async function begin (tx: Executor, context: ChangeContext, { projectId, days, seed }: SeedUsageOrder): Promise<KeyAtPlace[]> {
  if (await holdProject(tx, projectId) === undefined) throw new NoProjectError(projectId)
  await refuseIfUsed(tx, projectId)
  // Ids are drawn at random. What stays the same is the number in a seeded key's name.
  const found = await tx.execute<{ id: string, secret: string | null }>(sql`
    SELECT k.id, s.id AS secret FROM keys k LEFT JOIN secrets s ON s.project_id = k.project_id AND s.key_id = k.id AND s.state = 'current'
    WHERE k.project_id = ${projectId} AND k.status <> 'deleted' ORDER BY substring(k.name FROM '[0-9]+$')::numeric NULLS LAST, k.name, k.id LIMIT ${mostKeys + 1}`)
  if (found.length > mostKeys) throw new TooManyKeysError(projectId)
  await recordAudit(tx, context, { action: 'project.seed', projectId, keyId: null, details: { usageDays: days, keys: found.length, seed } })
  return found.map(({ id, secret }, place) => ({ place, keyId: id, secretId: secret ?? '' }))
}
