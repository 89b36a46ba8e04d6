import { partitionOf, type Partition } from '../usage/partitions.ts'
import { keptDays } from '../usage/upkeep.ts'

/** Days that are written in one transaction, and the finest sums that are still kept of them. Unix milliseconds. */
export interface Chunk { from: number, until: number, days: number, finest: 'minute' | 'hour' | 'day' }

const dayMs = 86_400_000
/** About so many rows in one transaction. */
const rowsAtOnce = 200_000
/** Rows per day of each of them. */
const rowsPerDay = { minute: 20, hour: 4, day: 1 } as const

/**
 * Cuts the last `days` days, today among them, into transactions, oldest first: so rows lie in the tables in the order of time, as they do
 * when they come from gateways, and whatever ends the work leaves whole days. Pure.
 */
export function chunksOf ({ nowMs, days, strands }: { nowMs: number, days: number, strands: number }): Chunk[] {
  const today = nowMs - nowMs % dayMs
  const chunks: Chunk[] = []
  for (let from = today - (days - 1) * dayMs; from <= today;) {
    const finest = finestOn(from, today)
    let count = 1
    while (from + count * dayMs <= today && finestOn(from + count * dayMs, today) === finest && (count + 1) * strands * rowsPerDay[finest] <= rowsAtOnce) count++
    chunks.push({ from, until: from + count * dayMs, days: count, finest })
    from += count * dayMs
  }
  return chunks
}

function finestOn (day: number, today: number): Chunk['finest'] {
  const age = (today - day) / dayMs
  return age <= keptDays.usage_minutes ? 'minute' : age <= keptDays.usage_hours ? 'hour' : 'day'
}

/** Where their rows go. */
export function partitionsOf (chunks: readonly Chunk[]): Partition[] {
  const found = new Map<string, Partition>()
  for (const { from, until, finest } of chunks) {
    const tables = ['usage_days', ...finest === 'day' ? [] : ['usage_hours'], ...finest === 'minute' ? ['usage_minutes', 'request_log'] : []] as Array<Partition['table']>
    for (let day = from; day < until; day += dayMs) {
      for (const table of tables) {
        const partition = partitionOf(table, new Date(day))
        found.set(partition.name, partition)
      }
    }
  }
  return [...found.values()]
}
