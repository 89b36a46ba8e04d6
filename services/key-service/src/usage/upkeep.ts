import { sql } from 'drizzle-orm'
import type { FastifyBaseLogger } from 'fastify'
import type { Database, Executor } from '../db/database.ts'
import { dropPartition, listPartitions, makePartitions, partitionOf, partitioned, type Partition, type Partitioned } from './partitions.ts'

export interface UsageUpkeepParts {
  database: Database
  log: FastifyBaseLogger
  /** Rows of the request log are kept for so many days; undefined: for ever. */
  logRetentionDays: number | undefined
  /** When the oldest batch was written that is still to be stored, Unix milliseconds; null: there is none. 0: nobody knows. */
  oldestBatchMs?: () => Promise<number | null>
  nowMs?: () => number
}

const dayMs = 86_400_000
/** How long sums are kept; days are kept for ever. */
export const keptDays = { usage_minutes: 7, usage_hours: 90, usage_callers: 7 } as const
/** A gateway repeats a line for two days. A batch with it may lie in Redis for longer: as long as it does, its line must not be forgotten, or what it brings looks like all there is. */
const keptLinesDays = 7
const repeatedDays = 3

/** Makes partitions before they are needed, and drops those that are over. Several processes may do so at once. */
export function createUsageUpkeep ({ database, log, logRetentionDays, oldestBatchMs = async () => null, nowMs = () => Date.now() }: UsageUpkeepParts): { run: () => Promise<void> } {
  async function makeAhead (now: Date): Promise<void> {
    const ahead = Object.keys(partitioned).flatMap(name => {
      const current = partitionOf(name as Partitioned, now)
      return [current, partitionOf(name as Partitioned, current.until)]
    })
    await database.transaction(async tx => { await makePartitions(tx, ahead) })
  }

  async function dropOld (table: Partitioned, days: number, now: Date): Promise<void> {
    for (const partition of partitionsBefore(await database.run(async db => await listPartitions(db, table)), now.getTime() - days * dayMs)) {
      await database.transaction(async tx => { await dropPartition(tx, partition) })
      log.info({ partition: partition.name, bytes: partition.bytes }, 'rows whose time is over were dropped')
    }
  }

  return {
    run: async () => {
      const now = new Date(nowMs())
      const before = (days: number): Date => new Date(now.getTime() - days * dayMs)
      await allOf([
        async () => { await makeAhead(now) },
        async () => { await dropOld('usage_minutes', keptDays.usage_minutes, now) },
        async () => { await dropOld('usage_hours', keptDays.usage_hours, now) },
        async () => { if (logRetentionDays !== undefined) await dropOld('request_log', logRetentionDays, now) },
        async () => { await forgetCallers(database, before(keptDays.usage_callers)) },
        async () => {
          const oldestMs = await oldestBatchMs() ?? Infinity
          await database.run(async db => { await forgetLines(db, new Date(Math.min(before(keptLinesDays).getTime(), oldestMs - repeatedDays * dayMs))) })
        }
      ])
    }
  }
}

/** One after the other; what fails holds up none of the others. @throws what failed first, in the end. */
async function allOf (steps: Array<() => Promise<void>>): Promise<void> {
  const failures: unknown[] = []
  for (const step of steps) await step().catch((error: unknown) => { failures.push(error) })
  if (failures.length > 0) throw failures[0]
}

/** Those in which nothing is as young as `cutMs`, Unix milliseconds: what is exactly as old stays. */
export function partitionsBefore<P extends Pick<Partition, 'until'>> (partitions: P[], cutMs: number): P[] {
  return partitions.filter(({ until }) => until.getTime() <= cutMs)
}

/** Rows of one statement: all keys have up to fifty callers an hour, and when this service was away for long one statement would never be done in time. */
const callersAtOnce = 10_000

/** Those that another process is forgetting are left to it. */
async function forgetCallers (database: Database, before: Date): Promise<void> {
  for (let forgotten = callersAtOnce; forgotten === callersAtOnce;) {
    const [row] = await database.run(async db => await db.execute<{ forgotten: number }>(sql`
      WITH gone AS (
        DELETE FROM usage_callers WHERE ctid = ANY (ARRAY(
          SELECT ctid FROM usage_callers WHERE hour < ${before.toISOString()} ORDER BY hour LIMIT ${callersAtOnce} FOR UPDATE SKIP LOCKED
        )) RETURNING 1
      ) SELECT count(*)::int AS forgotten FROM gone`))
    forgotten = row?.forgotten ?? 0
  }
}

/** What was lost stays known. */
async function forgetLines (db: Executor, before: Date): Promise<void> {
  await db.execute(sql`DELETE FROM usage_lines WHERE hour < ${before.toISOString()} AND admitted = finished AND finished = stored AND tail = 0`)
}
