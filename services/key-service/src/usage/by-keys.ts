import { sql, type SQL } from 'drizzle-orm'
import type { Database, Executor } from '../db/database.ts'
import { codeOf } from '../db/failures.ts'
import { intervals, type Interval, type Range } from './range.ts'

/** Steps of keys that one statement looks at: with a few operations each it takes a fraction of a second. */
const stepsAtOnce = 100_000
/** Keys of one statement. */
const [fewest, most] = [20, 2000]

/**
 * Asks about all keys of a project at once, and some keys at a time where the server finds that too slow. Yields each answer.
 *
 * @param ask as of `overKeys`.
 */
export async function * atOnceOrOverKeys<T> (search: Database['search'], where: Range & { projectId: string, interval: Interval }, ask: (db: Executor, isAmong: SQL) => Promise<T>): AsyncGenerator<T, void> {
  let answer: T
  try {
    answer = await search(async db => await ask(db, sql`true`))
  } catch (error) {
    if (!isTooSlow(error)) throw error
    yield * overKeys(search, where, ask)
    return
  }
  yield answer
}

/**
 * Asks about all keys of a project, some keys at a time, because a statement has not long; fewer at a time where the server finds it too slow.
 * Yields each answer.
 *
 * @param ask is given a condition on `key_id`; the project's own rows may fulfil it too. @param start the first key that is asked about.
 */
export async function * overKeys<T> (search: Database['search'], { projectId, interval, from, until }: Range & { projectId: string, interval: Interval }, ask: (db: Executor, isAmong: SQL) => Promise<T>, start = ''): AsyncGenerator<T, void> {
  const steps = (Date.parse(until) - Date.parse(from)) / intervals[interval].ms
  let size = Math.min(most, Math.max(fewest, Math.ceil(stepsAtOnce / steps)))
  let [after, first] = [start, sql`key_id >= ${start}`]
  for (;;) {
    const last = await search(async db => await keyBehind(db, projectId, after, size))
    const isAmong = last === undefined ? first : sql`${first} AND key_id <= ${last}`
    let answer: T
    try {
      answer = await search(async db => await ask(db, isAmong))
    } catch (error) {
      if (size === 1 || !isTooSlow(error)) throw error
      size = Math.ceil(size / 2)
      continue
    }
    yield answer
    if (last === undefined) return
    after = last
    first = sql`key_id > ${last}`
  }
}

/** The one that stands so many places behind; undefined: there are not so many. */
async function keyBehind (db: Executor, projectId: string, after: string, places: number): Promise<string | undefined> {
  const [row] = await db.execute<{ id: string }>(sql`SELECT id FROM keys WHERE project_id = ${projectId} AND id > ${after} ORDER BY id OFFSET ${places - 1} LIMIT 1`)
  return row?.id
}

/** The statement's time was up; a lock that somebody holds is another thing. */
export function isTooSlow (error: unknown): boolean {
  return error instanceof Error && codeOf(error) === '57014'
}
