import { usageBoots } from '@keygate/contracts'
import { admissionsLiveMinutes, readAdmissionsOf, readLivingBoots, type ProjectMinute, type RedisConnection } from '@keygate/rate-limit'
import { sql } from 'drizzle-orm'
import type { Database, Executor } from '../db/database.ts'
import type { UsageStream } from './stream.ts'

export interface TailParts {
  database: Database
  redis: RedisConnection
  stream: Pick<UsageStream, 'backlog'>
  /** A boot of which nothing was heard for so long may be dead, milliseconds. */
  silentMs: number
  /** For so long its heartbeats must have been missing, milliseconds: a Redis that comes back empty has none of anybody until their next ones. */
  missingMs?: number
}

/** A boot that has ended, as far as anybody can tell. */
interface DeadBoot {
  bootId: string
  lastMs: number
  /** From when on it may have admitted what no line that came tells of. */
  untoldMs: number
}
/** What the script has counted for a boot in one hour of one project. */
export interface Counted { projectId: string, hour: number, count: number }

const minuteMs = 60_000
const hourMs = 3_600_000
/** Projects of one round, and minutes of theirs that are asked about at once. */
const projectsAtOnce = 500
const minutesAtOnce = 20_000

/**
 * What a gateway that ended without a last word had admitted and not sent: the script's count less what its last batch told, and what was open
 * then. A boot counts as dead when its heartbeats no longer count, nothing was heard of it for a while, and the stream holds nothing from
 * before that was seen; should it speak again, its tail is taken back (`store.ts`).
 */
export function createTails ({ database, redis, stream, silentMs, missingMs = silentMs / 4 }: TailParts): { settle: () => Promise<number> } {
  const deadSince = new Map<string, number>()

  /** @returns how many boots were settled. */
  async function settle (): Promise<number> {
    const nowMs = await redisNowMs(redis)
    const living = await readLivingBoots(redis)
    const written = await redis.call(async client => await client.smembers(usageBoots))
    const { unheard, settled } = await database.run(sortOut(written, living, nowMs))
    await forget(settled)
    const silent = [...await database.run(findSilent(new Date(nowMs - silentMs), living)), ...unheard]
    for (const bootId of deadSince.keys()) if (!silent.some(boot => boot.bootId === bootId)) deadSince.delete(bootId)
    for (const { bootId } of silent) if (!deadSince.has(bootId)) deadSince.set(bootId, nowMs)
    const { oldestMs } = await stream.backlog()
    const ended = silent.filter(({ bootId }) => {
      const sinceMs = deadSince.get(bootId) ?? nowMs
      return nowMs - sinceMs >= missingMs && (oldestMs === null || oldestMs > sinceMs)
    })
    for (const boot of ended) {
      await settleBoot(boot, deadSince.get(boot.bootId) ?? nowMs)
      deadSince.delete(boot.bootId)
    }
    await forget(ended.map(({ bootId }) => bootId))
    return ended.length
  }

  async function forget (bootIds: string[]): Promise<void> {
    if (bootIds.length > 0) await redis.call(async client => await client.srem(usageBoots, ...bootIds))
  }

  async function settleBoot ({ bootId, lastMs, untoldMs }: DeadBoot, deadMs: number): Promise<void> {
    const from = Math.max(Math.floor(untoldMs / minuteMs) - 1, Math.floor(deadMs / minuteMs) - admissionsLiveMinutes)
    const counted: Counted[] = []
    for (let after = ''; ;) {
      const projects = await database.run(projectsAfter(after))
      counted.push(...await countedOf(redis, bootId, projects, { from, to: Math.floor(deadMs / minuteMs) + 1 }))
      after = projects.at(-1) ?? ''
      if (projects.length < projectsAtOnce) break
    }
    await database.transaction(async tx => {
      await meet(tx, bootId, lastMs)
      await writeTails(tx, bootId, lastMs, counted)
    })
  }

  return { settle }
}

/** Redis's clock, Unix milliseconds: batches and stream entries are dated by it. */
export async function redisNowMs (redis: RedisConnection): Promise<number> {
  const [seconds, micros] = await redis.call(async client => await client.time()) as [number | string, number | string]
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}

/** What the script has counted in each hour that has something in the minutes asked about; of such an hour, all sixty. */
async function countedOf (redis: RedisConnection, bootId: string, projects: string[], { from, to }: { from: number, to: number }): Promise<Counted[]> {
  const minutes = Array.from({ length: to - from + 1 }, (_, i) => from + i)
  const portion = Math.max(1, Math.floor(minutesAtOnce / minutes.length))
  const hours = new Map<string, { projectId: string, hour: number }>()
  for (let i = 0; i < projects.length; i += portion) {
    const asked: ProjectMinute[] = projects.slice(i, i + portion).flatMap(projectId => minutes.map(minute => ({ projectId, minute })))
    const counts = await readAdmissionsOf(redis, bootId, asked)
    for (const [i, { projectId, minute }] of asked.entries()) {
      const hour = Math.floor(minute / 60)
      if ((counts[i] ?? 0) > 0) hours.set(`${projectId} ${hour}`, { projectId, hour })
    }
  }
  const whole: Counted[] = []
  for (const { projectId, hour } of hours.values()) {
    const minutes = Array.from({ length: 60 }, (_, i) => ({ projectId, minute: hour * 60 + i }))
    whole.push({ projectId, hour, count: (await readAdmissionsOf(redis, bootId, minutes)).reduce((sum, count) => sum + count, 0) })
  }
  return whole
}

/** Of the boots that are written down beside the stream: those that are dead and of which nothing has ever come, and those that need not be there any more. */
const sortOut = (written: string[], living: Set<string>, nowMs: number) => async (db: Executor): Promise<{ unheard: DeadBoot[], settled: string[] }> => {
  const dead = written.filter(bootId => !living.has(bootId))
  if (dead.length === 0) return { unheard: [], settled: [] }
  const found = await db.execute<{ boot_id: string, is_settled: boolean }>(sql`
    SELECT boot_id, settled_at IS NOT NULL AS is_settled FROM usage_boots WHERE boot_id IN (SELECT jsonb_array_elements_text(${JSON.stringify(dead)}::jsonb))`)
  const known = new Map(found.map(({ boot_id: bootId, is_settled: isSettled }) => [bootId, isSettled]))
  return {
    unheard: dead.filter(bootId => !known.has(bootId)).map(bootId => ({ bootId, lastMs: nowMs, untoldMs: 0 })),
    settled: dead.filter(bootId => known.get(bootId))
  }
}

/** A boot of which nothing has come gets a row to be settled in. Where it was nobody knows any more. */
async function meet (tx: Executor, bootId: string, lastMs: number): Promise<void> {
  const at = new Date(lastMs).toISOString()
  await tx.execute(sql`INSERT INTO usage_boots (boot_id, replica, first_at, last_at) VALUES (${bootId}, '', ${at}, ${at}) ON CONFLICT DO NOTHING`)
}

/**
 * All that a boot had admitted before its last batch stands on the lines that came, if all batches came. If one is missing, so may be a line of which it
 * was the last word: an idle hour is told again ever more seldom. Then everything is looked through that Redis still has of it.
 */
const findSilent = (before: Date, living: Set<string>) => async (db: Executor): Promise<DeadBoot[]> => {
  const found = await db.execute<{ boot_id: string, last_at: string, untold_at: string | null }>(sql`
    SELECT boot_id, last_at, CASE WHEN seen = int8multirange(int8range(0, upper(seen))) THEN last_at WHEN seen @> 0::bigint THEN first_at END AS untold_at
    FROM usage_boots WHERE settled_at IS NULL AND last_at < ${before.toISOString()} AND boot_id NOT IN (SELECT jsonb_array_elements_text(${JSON.stringify([...living])}::jsonb))
    ORDER BY last_at LIMIT 100`)
  return found.map(({ boot_id: bootId, last_at: lastAt, untold_at: untoldAt }) => ({ bootId, lastMs: Date.parse(lastAt), untoldMs: untoldAt === null ? 0 : Date.parse(untoldAt) }))
}

const projectsAfter = (after: string) => async (db: Executor): Promise<string[]> => {
  const found = await db.execute<{ id: string }>(sql`SELECT id FROM projects ${after === '' ? sql`` : sql`WHERE id > ${after}`} ORDER BY id LIMIT ${projectsAtOnce}`)
  return found.map(({ id }) => id)
}

/** Set, not added: settled once more, it is the same. Nothing is written if the boot has spoken in the meantime. */
async function writeTails (tx: Executor, bootId: string, lastMs: number, counted: Counted[]): Promise<void> {
  const marked = await tx.execute(sql`UPDATE usage_boots SET settled_at = now() WHERE boot_id = ${bootId} AND settled_at IS NULL AND last_at = ${new Date(lastMs).toISOString()} RETURNING 1`)
  if (marked.length === 0) return
  const rows = counted.map(({ projectId, hour, count }) => ({ projectId, hour: new Date(hour * hourMs).toISOString(), count }))
  await tx.execute(sql`
    INSERT INTO usage_lines (boot_id, project_id, hour)
    SELECT ${bootId}, "projectId", hour FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) AS came("projectId" uuid, hour timestamptz) ORDER BY 2, 3
    ON CONFLICT DO NOTHING`)
  await tx.execute(sql`
    UPDATE usage_lines l SET tail = l.admitted - l.finished + greatest(0, coalesce((
      SELECT came.count FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) AS came("projectId" uuid, hour timestamptz, count bigint)
      WHERE came."projectId" = l.project_id AND came.hour = l.hour), 0) - l.admitted)
    WHERE l.boot_id = ${bootId}`)
}
