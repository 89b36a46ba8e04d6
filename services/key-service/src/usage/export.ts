import type { Database } from '../db/database.ts'
import type { Column } from '../download/download.ts'
import { rowsOfPages } from '../download/pages.ts'
import { isTooSlow } from './by-keys.ts'
import { countNames } from './columns.ts'
import { findPoints, groups, placeOf, type Place, type Selection } from './queries.ts'
import type { UsagePoint } from './schemas.ts'

/** Rows of one statement. */
const pageSize = 1000

export function usageColumns (groupBy: Selection['groupBy']): Array<Column<UsagePoint>> {
  const names: Array<keyof UsagePoint> = ['at', ...groups[groupBy].members, ...countNames]
  return names.map(name => ({ name, valueOf: point => point[name] ?? '' }))
}

/** All sums of a selection, in order. A page that takes the server too long is read in smaller ones. */
export function exportUsage (search: Database['search'], selection: Selection): AsyncGenerator<UsagePoint, void> {
  let size = pageSize
  return rowsOfPages(async (after: Place | undefined) => {
    for (;;) {
      try {
        const rows = await findPoints(search, selection, after, size)
        const last = rows.at(-1)
        return { rows, next: rows.length < size || last === undefined ? undefined : placeOf(last, selection.groupBy) }
      } catch (error) {
        if (size === 1 || !isTooSlow(error)) throw error
        size = Math.ceil(size / 2)
      }
    }
  })
}

/** What it is saved as, without an ending. */
export function fileNameOf ({ projectId, keyId, interval, groupBy, from, until }: Selection): string {
  const moment = (iso: string): string => iso.slice(0, 16).replaceAll(/[-:]/g, '')
  return `keygate-usage-${keyId ?? projectId}-${interval}${groupBy === 'none' ? '' : `-by-${groupBy}`}-${moment(from)}-${moment(until)}`
}
