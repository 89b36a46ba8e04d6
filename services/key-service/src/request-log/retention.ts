import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { recordAudit, type ChangeContext } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { codeOf } from '../db/failures.ts'
import { dropPartition, listPartitions, type FoundPartition } from '../usage/partitions.ts'
import { partitionsBefore } from '../usage/upkeep.ts'

const dayMs = 86_400_000

/** Days of the log, each with about how many rows it has. */
export interface OldDay extends FoundPartition { rows: number }

/** Those days of the log of which no row is younger than so many days, oldest first. Their rows are estimated; where PostgreSQL never did, there are few, and they are counted. */
export async function findOldDays (db: Executor, olderThanDays: number, nowMs: number): Promise<OldDay[]> {
  const old = partitionsBefore(await listPartitions(db, 'request_log'), nowMs - olderThanDays * dayMs)
  const days: OldDay[] = []
  for (const day of old) days.push({ ...day, rows: day.rows ?? await countRows(db, day) })
  return days
}

async function countRows (db: Executor, { name }: FoundPartition): Promise<number> {
  const [row] = await db.execute<{ rows: string }>(sql`SELECT count(*) AS rows FROM ${sql.identifier(name)}`)
  return Number(row?.rows ?? 0)
}

/** How often a day is tried that somebody else reads, and how long others are let through in between. */
const attempts = 10
const pauseMs = 500

/** Drops one day, with its event in the audit trail: both or neither. @throws 55P03 when somebody has read the log for long. */
export async function dropDay (database: Database, context: ChangeContext, { name, from, until, rows, bytes }: OldDay, olderThanDays: number): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await database.transaction(async tx => {
        await dropPartition(tx, { name })
        await recordAudit(tx, context, { action: 'log.drop', projectId: null, keyId: null, details: { olderThanDays, from: from.toISOString(), until: until.toISOString(), rows, bytes } })
      })
    } catch (error) {
      if (attempt === attempts || codeOf(error as Error) !== '55P03') throw error
      await delay(pauseMs)
    }
  }
}
