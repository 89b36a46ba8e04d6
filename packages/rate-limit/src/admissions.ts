import { StoreUnavailableError, type RedisConnection } from './connection.ts'
import { gatewaysKey } from './heartbeat.ts'
import { admittedPrefix, versionsKey } from './names.ts'

/** As long as the script's counts of admissions live, in minutes (`decide-script.ts`). */
export const admissionsLiveMinutes = 2880

/** Commands of one round trip. */
const atOnce = 2000

/** One project's minute, in Unix minutes. */
export interface ProjectMinute { projectId: string, minute: number }

/**
 * What the script has counted: for each project's minute the admissions of each boot, in the order asked for. The left side of the usage
 * balance; for people and for settling what a dead gateway left, never to decide by.
 *
 * @throws {StoreUnavailableError} Redis cannot answer.
 */
export async function readAdmissions (connection: RedisConnection, minutes: readonly ProjectMinute[]): Promise<Array<Record<string, number>>> {
  const replies = await inTurns(connection, minutes, (pipeline, { projectId, minute }) => { pipeline.hgetall(`${admittedPrefix(projectId)}:${minute}`) })
  return replies.map(reply => Object.fromEntries(Object.entries(reply as Record<string, string>).map(([bootId, count]) => [bootId, Number(count)])))
}

/** As `readAdmissions`, for one boot. @throws {StoreUnavailableError} */
export async function readAdmissionsOf (connection: RedisConnection, bootId: string, minutes: readonly ProjectMinute[]): Promise<number[]> {
  const replies = await inTurns(connection, minutes, (pipeline, { projectId, minute }) => { pipeline.hget(`${admittedPrefix(projectId)}:${minute}`, bootId) })
  return replies.map(reply => Number(reply ?? 0))
}

/** The memory in which each project is counted; null: it has none yet. @throws {StoreUnavailableError} */
export async function readIncarnations (connection: RedisConnection, projectIds: readonly string[]): Promise<Array<string | null>> {
  return await inTurns(connection, projectIds, (pipeline, projectId) => { pipeline.hget(versionsKey(projectId), '#') }) as Array<string | null>
}

/** The boots whose heartbeats still count. @throws {StoreUnavailableError} */
export async function readLivingBoots (connection: RedisConnection): Promise<Set<string>> {
  return new Set(await connection.call(async client => await client.zrange(gatewaysKey, '0', '-1')))
}

type Pipeline = ReturnType<RedisConnection['client']['pipeline']>

async function inTurns<T> (connection: RedisConnection, items: readonly T[], ask: (pipeline: Pipeline, item: T) => void): Promise<unknown[]> {
  const replies: unknown[] = []
  for (let from = 0; from < items.length; from += atOnce) {
    const answered = await connection.call(async client => {
      const pipeline = client.pipeline()
      for (const item of items.slice(from, from + atOnce)) ask(pipeline, item)
      return await pipeline.exec() ?? []
    })
    for (const [error, reply] of answered) {
      if (error !== null) throw new StoreUnavailableError(error.message, { cause: error })
      replies.push(reply)
    }
  }
  return replies
}
