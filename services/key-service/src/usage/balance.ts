import { admissionsLiveMinutes, readAdmissions, readIncarnations, type RedisConnection } from '@keygate/rate-limit'
import { sql } from 'drizzle-orm'
import type { Database, Executor } from '../db/database.ts'
import type { UsageStream } from './stream.ts'
import { redisNowMs } from './tails.ts'

/** One boot in one hour of one project: what the script has counted, and what became of it. */
export interface BalanceLine {
  projectId: string
  bootId: string
  replica: string
  /** ISO 8601. */
  hour: string
  /** Left side: admissions counted inside the script. */
  counted: number
  /** Right side. */
  stored: number
  lost: number
  inFlight: number
  /** Decisions that were not answered in time: the script may have counted them, and nobody else has. */
  unanswered: number
  /** `counted - (stored + lost + inFlight)`. */
  difference: number
  /**
   * `open`: the script has counted more than was told so far, of a gateway that may still tell it or has not been settled yet.
   * `incomplete`: Redis lost its memory in or after this hour, and with it a part of the left side.
   */
  verdict: 'balanced' | 'open' | 'unbalanced' | 'incomplete'
}

interface Line { boot_id: string, replica: string, hour: string, admitted: string, finished: string, stored: string, unanswered: string, tail: string, is_settled: boolean }
interface Sides {
  counted: number
  admitted: number
  finished: number
  stored: number
  tail: number
  unanswered: number
  /** Unanswered decisions of the hour before: a Redis that hung over the end of an hour makes them when it goes on, and counts them then. */
  unansweredBefore?: number
  isSettled: boolean
}

const hourMs = 3_600_000
const minutesOfHour = 60
/** An hour whose first minute is about to leave Redis is left out. */
const hours = admissionsLiveMinutes / minutesOfHour - 1

/**
 * A boot's hour in numbers. Pure.
 *
 * What has ended and is not stored is lost if nothing is on its way any more; as long as the stream has entries it is in flight. What a gateway
 * has not told yet is the difference: it closes with its next batch, or when the gateway has ended and is settled. A right side that is heavier
 * than the left is wrong at any time.
 */
export function weigh ({ counted, admitted, finished, stored, tail, unanswered, unansweredBefore = 0, isSettled }: Sides, { isDrained, isComplete }: { isDrained: boolean, isComplete: boolean }): Omit<BalanceLine, 'projectId' | 'bootId' | 'replica' | 'hour'> {
  const missing = finished - stored
  const lost = isSettled ? missing + tail : isDrained ? missing : 0
  const inFlight = isSettled ? 0 : admitted - finished + (isDrained ? 0 : missing)
  const difference = counted - stored - lost - inFlight
  const isBalanced = difference >= 0 && difference <= unanswered + unansweredBefore
  const verdict = !isComplete ? 'incomplete' : isBalanced ? 'balanced' : difference > 0 && !isSettled ? 'open' : 'unbalanced'
  return { counted, stored, lost, inFlight, unanswered, difference, verdict }
}

/**
 * The balance of a project: each boot's admissions in each hour that Redis still counts, newest last.
 *
 * @param sinceMs hours that began earlier are left out. @throws {StoreUnavailableError} without Redis there is no left side.
 */
export async function balanceOf (projectId: string, sinceMs: number, { database, redis, stream }: { database: Database, redis: RedisConnection, stream: Pick<UsageStream, 'backlog'> }): Promise<BalanceLine[]> {
  const nowMs = await redisNowMs(redis)
  const nowHour = Math.floor(nowMs / hourMs)
  const first = Math.max(nowHour - hours, Math.ceil(sinceMs / hourMs))
  if (first > nowHour) return []
  // What is stored is read before what was counted: what arrives in between is then on the left side alone, and told as a difference, never as a loss.
  const { entries: before } = await stream.backlog()
  const lines = await database.run(linesOf(projectId, first))
  const changes = await database.run(changesOf(projectId))
  const [now = null] = await readIncarnations(redis, [projectId])
  // A memory that has not been written down yet, or none at all: it was lost after all that was.
  const changedMs = changes.length > 0 && !changes.some(({ incarnation }) => incarnation === now) ? nowMs : Math.max(-Infinity, ...changes.slice(1).map(({ atMs }) => atMs))
  const { entries: after } = await stream.backlog()
  const minutes = Array.from({ length: (nowHour - first + 1) * minutesOfHour }, (_, i) => ({ projectId, minute: first * minutesOfHour + i }))
  const counts = await readAdmissions(redis, minutes)

  const sides = new Map<string, Sides & { bootId: string, replica: string, hour: number }>()
  const sideOf = (bootId: string, hour: number, replica = ''): Sides => {
    const name = `${hour} ${bootId}`
    let side = sides.get(name)
    if (side === undefined) sides.set(name, side = { bootId, replica, hour, counted: 0, admitted: 0, finished: 0, stored: 0, tail: 0, unanswered: 0, isSettled: false })
    return side
  }
  for (const line of lines) {
    Object.assign(sideOf(line.boot_id, Date.parse(line.hour) / hourMs, line.replica), {
      admitted: Number(line.admitted), finished: Number(line.finished), stored: Number(line.stored), tail: Number(line.tail), unanswered: Number(line.unanswered), isSettled: line.is_settled
    })
  }
  for (const [i, { minute }] of minutes.entries()) for (const [bootId, count] of Object.entries(counts[i] ?? {})) sideOf(bootId, Math.floor(minute / minutesOfHour)).counted += count

  return [...sides.values()].sort((a, b) => a.hour - b.hour || (a.bootId < b.bootId ? -1 : 1)).map(side => {
    const { bootId, replica, hour } = side
    const unansweredBefore = sides.get(`${hour - 1} ${bootId}`)?.unanswered ?? 0
    return { projectId, bootId, replica, hour: new Date(hour * hourMs).toISOString(), ...weigh({ ...side, unansweredBefore }, { isDrained: before + after === 0, isComplete: hour * hourMs >= changedMs }) }
  })
}

const linesOf = (projectId: string, firstHour: number) => async (db: Executor): Promise<Line[]> => await db.execute<Line & Record<string, unknown>>(sql`
  SELECT l.boot_id, b.replica, l.hour, l.admitted, l.finished, l.stored, l.unanswered, l.tail, b.settled_at IS NOT NULL AS is_settled
  FROM usage_lines l JOIN usage_boots b USING (boot_id) WHERE l.project_id = ${projectId} AND l.hour >= ${new Date(firstHour * hourMs).toISOString()}`)

/** Every memory of Redis that the project was counted in, the first one first. */
const changesOf = (projectId: string) => async (db: Executor): Promise<Array<{ incarnation: string, atMs: number }>> => {
  const found = await db.execute<{ incarnation: string, first_at: string }>(sql`SELECT incarnation, first_at FROM usage_incarnations WHERE project_id = ${projectId} ORDER BY first_at, incarnation`)
  return found.map(({ incarnation, first_at: at }) => ({ incarnation, atMs: Date.parse(at) }))
}
