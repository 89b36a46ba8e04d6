import { randomUUID } from 'node:crypto'
import type { UsageBatch } from '@keygate/contracts'
import type { Parts } from '../src/parts.ts'
import type { Counts } from '../src/usage/columns.ts'
import { makePartitions, partitionOf } from '../src/usage/partitions.ts'
import { storeBatches } from '../src/usage/store.ts'

/** What a key did in a minute; what is not said is nothing. */
export interface Booked extends Partial<Counts> { keyId: string, at: string, api?: string, operation?: string, scope?: string }

export const nothing: Counts = { admitted: 0, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 }

/** Stores what a gateway of its own would have sent of these minutes. */
export async function book ({ database }: Parts, projectId: string, booked: Booked[], { bootId = randomUUID(), lines = [] }: { bootId?: string, lines?: UsageBatch['lines'] } = {}): Promise<void> {
  const keys = booked.map(({ keyId, at, api = 'forms', operation = 'listSubmissions', scope = 'submissions', ...counts }) => ({
    projectId, keyId, secrets: [], callers: [], sums: [{ api, operation, scope, minute: Math.floor(Date.parse(at) / 60_000), ...nothing, ...counts }]
  }))
  const partitions = booked.flatMap(({ at }) => (['usage_minutes', 'usage_hours', 'usage_days'] as const).map(table => partitionOf(table, new Date(at))))
  await database.transaction(async tx => { await makePartitions(tx, [...new Map(partitions.map(partition => [partition.name, partition])).values()]) })
  await database.transaction(async tx => {
    await storeBatches(tx, [{ version: 1, bootId, seq: 0, atMs: Date.now(), replica: 'test', lines, incarnations: [], keys, rows: [] }])
  })
}
