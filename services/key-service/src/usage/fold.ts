import type { UsageBatch } from '@keygate/contracts'
import { countNames, wholeProject, type CallerRow, type Counts, type IncarnationRow, type LineRow, type LogRow, type Rows, type SumRow, type UseRow } from './columns.ts'

const minuteMs = 60_000
const hourMs = 3_600_000
const dayMs = 86_400_000

/**
 * Many batches as the rows that have to be written for all of them together: as many as there are keys and operations in use, not as there
 * are batches. Pure.
 */
export function foldBatches (batches: readonly UsageBatch[]): Rows {
  const sums = { minutes: new Table<SumRow>(), hours: new Table<SumRow>(), days: new Table<SumRow>() }
  const lines = new Table<LineRow>()
  const incarnations = new Table<IncarnationRow>()
  const callers = new Table<CallerRow>()
  const uses = new Table<UseRow>()
  const log: LogRow[] = []
  const lineOf = (bootId: string, projectId: string, hour: number): LineRow => {
    const at = isoOf(hour * hourMs)
    return lines.get([bootId, projectId, at], () => ({ bootId, projectId, hour: at, admitted: 0, finished: 0, stored: 0, unanswered: 0 }))
  }

  for (const { bootId, replica, lines: told, incarnations: found, keys, rows } of batches) {
    for (const { projectId, hour, admitted, finished, unanswered } of told) {
      const line = lineOf(bootId, projectId, hour)
      line.admitted = Math.max(line.admitted, admitted)
      line.finished = Math.max(line.finished, finished)
      line.unanswered = Math.max(line.unanswered, unanswered)
    }
    for (const { projectId, incarnation, minute } of found) {
      const at = isoOf(minute * minuteMs)
      const row = incarnations.get([projectId, incarnation], () => ({ projectId, incarnation, at }))
      if (at < row.at) row.at = at
    }
    for (const { projectId, keyId, secrets, sums: ofKey, callers: seen } of keys) {
      for (const { minute, api, operation, scope, ...counts } of ofKey) {
        const ms = minute * minuteMs
        for (const owner of [keyId, wholeProject]) {
          for (const [table, step] of [[sums.minutes, minuteMs], [sums.hours, hourMs], [sums.days, dayMs]] as const) {
            const at = isoOf(ms - ms % step)
            add(table.get([projectId, owner, at, api, operation, scope], () => ({ projectId, keyId: owner, at, api, operation, scope, ...nothing })), counts)
          }
        }
        if (counts.admitted > counts.admittedLocally) lineOf(bootId, projectId, Math.floor(minute / 60)).stored += counts.admitted - counts.admittedLocally
      }
      for (const { secretId, lastUsedMs } of secrets) {
        const at = isoOf(lastUsedMs)
        const use = uses.get([secretId], () => ({ projectId, keyId, secretId, at }))
        if (at > use.at) use.at = at
      }
      for (const { address, client, secretId, lastSeenMs, counts } of seen) {
        const lastSeen = isoOf(lastSeenMs)
        for (const { hour, count } of counts) {
          const at = isoOf(hour * hourMs)
          const row = callers.get([projectId, keyId, address, client, secretId, at], () => ({ projectId, keyId, address, client, secretId, hour: at, count: 0, lastSeen: at }))
          row.count += count
          if (lastSeen > row.lastSeen) row.lastSeen = lastSeen
        }
      }
    }
    for (const { atMs, ...row } of rows) log.push({ ...row, at: isoOf(atMs), replica })
  }
  return {
    minutes: sums.minutes.sorted(),
    hours: sums.hours.sorted(),
    days: sums.days.sorted(),
    lines: lines.sorted(),
    incarnations: incarnations.sorted(),
    callers: callers.sorted(),
    uses: uses.sorted(),
    log
  }
}

const nothing: Counts = { admitted: 0, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 }

function add (row: SumRow, counts: Counts): void {
  for (const name of countNames) row[name] += counts[name]
}

function isoOf (ms: number): string {
  return new Date(ms).toISOString()
}

/** Rows by their key. NUL can stand in none of its parts. */
class Table<Row> {
  readonly #rows = new Map<string, Row>()

  get (key: readonly string[], make: () => Row): Row {
    const name = key.join('\0')
    let row = this.#rows.get(name)
    if (row === undefined) this.#rows.set(name, row = make())
    return row
  }

  sorted (): Row[] {
    return [...this.#rows].sort(([a], [b]) => a < b ? -1 : 1).map(([, row]) => row)
  }
}
