import { readIncarnations, type RedisConnection } from '@keygate/rate-limit'
import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'

interface Known { projectId: string, incarnation: string }

export interface IncarnationWatch {
  /**
   * The memories of these projects that are news here. They stay news until `note` has written them down.
   *
   * @throws {StoreUnavailableError} and whatever `note` throws.
   */
  look: (projectIds: Iterable<string>, note?: (news: Known[]) => Promise<void>) => Promise<Known[]>
}

/** The same project is not asked about more often, milliseconds. */
const everyMs = 10_000
const remembered = 100_000

/**
 * Notices when Redis has lost its memory: then the script's counts of before are gone, and no balance can be struck over that time. A gateway
 * tells only of memories that it did not know, so those that were there before it are looked up here.
 */
export function createIncarnationWatch (redis: RedisConnection): IncarnationWatch {
  const looked = new Map<string, { atMs: number, incarnation: string | null }>()
  return {
    look: async (projectIds, note = async () => {}) => {
      const now = performance.now()
      const due = [...new Set(projectIds)].filter(id => now - (looked.get(id)?.atMs ?? -Infinity) >= everyMs)
      if (due.length === 0) return []
      const found = await readIncarnations(redis, due)
      const seen = due.map((projectId, i) => ({ projectId, incarnation: found[i] ?? null }))
      const news = seen.filter((one): one is Known => one.incarnation !== null && one.incarnation !== looked.get(one.projectId)?.incarnation)
      if (news.length > 0) await note(news)
      if (looked.size > remembered) looked.clear()
      for (const { projectId, incarnation } of seen) looked.set(projectId, { atMs: now, incarnation })
      return news
    }
  }
}

/** Writes down memories that are not known yet, as of now. */
export async function noteIncarnations (db: Executor, news: Known[]): Promise<void> {
  if (news.length === 0) return
  await db.execute(sql`
    INSERT INTO usage_incarnations (project_id, incarnation, first_at)
    SELECT "projectId", incarnation, now() FROM jsonb_to_recordset(${JSON.stringify(news)}::jsonb) AS came("projectId" uuid, incarnation text) ORDER BY 1, 2
    ON CONFLICT DO NOTHING`)
}
