import { sql, type SQL } from 'drizzle-orm'
import type { Position } from '../cursor.ts'
import type { Database } from '../db/database.ts'
import type { Column } from '../download/download.ts'
import { rowsOfPages } from '../download/pages.ts'
import { listPartitions } from '../usage/partitions.ts'
import { conditionsOf, logOf, positionOf, type FoundRow } from './queries.ts'
import type { LogFilters, LoggedRequest } from './schemas.ts'

/** Rows of one statement. */
const pageSize = 1000

const names = ['at', 'requestId', 'projectId', 'keyId', 'secretId', 'api', 'operation', 'method', 'scope', 'outcome', 'code', 'status', 'ms', 'bytes', 'address', 'client', 'replica'] as const satisfies Array<keyof LoggedRequest>

export const logColumns: ReadonlyArray<Column<LoggedRequest>> = names.map(name => ({ name, valueOf: row => row[name] }))

/**
 * Every row that the filters let through, newest first. A statement looks at one day at most, so that a filter that hardly any row passes
 * does not make it too slow; rows that come after the start are not among them.
 *
 * @throws {ProblemError} 422 when a moment is none, at once.
 */
export function exportLog (search: Database['search'], projectId: string, filters: LogFilters): AsyncGenerator<LoggedRequest, void> {
  return rowsOfDays(search, conditionsOf(projectId, filters))
}

async function * rowsOfDays (search: Database['search'], conditions: SQL[]): AsyncGenerator<LoggedRequest, void> {
  const partitions = await search(async db => await listPartitions(db, 'request_log'))
  for (const { from, until } of partitions.reverse()) {
    const ofDay = [...conditions, sql`at >= ${from.toISOString()}::timestamptz`, sql`at < ${until.toISOString()}::timestamptz`]
    yield * rowsOfPages(async (after: Position | undefined) => {
      const found = await search(async db => await db.execute<FoundRow & Record<string, unknown>>(logOf(ofDay, after, pageSize)))
      const last = found.at(-1)
      return { rows: found.map(({ row }) => row), next: found.length < pageSize || last === undefined ? undefined : positionOf(last) }
    })
  }
}
