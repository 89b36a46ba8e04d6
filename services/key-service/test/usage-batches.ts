import { setTimeout as delay } from 'node:timers/promises'
import { usageField, usageStream, type UsageBatch, type UsageOfKey, type UsageSum } from '@keygate/contracts'
import { makePartitions, partitionOf } from '../src/usage/partitions.ts'
import { storeBatches } from '../src/usage/store.ts'
import type { TestApp } from './helper.ts'

const nothing = { admitted: 0, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 }

/** What became of requests in the minute of a moment (Unix milliseconds). */
export function sumAt (atMs: number, counts: Partial<UsageSum>): UsageSum {
  return { api: 'forms', operation: 'GET /submissions', scope: 'submissions', minute: Math.floor(atMs / 60_000), ...nothing, ...counts }
}

export function usageOf (projectId: string, keyId: string, parts: Partial<UsageOfKey>): UsageOfKey {
  return { projectId, keyId, secrets: [], sums: [], callers: [], ...parts }
}

/** Somebody who was seen once. */
export function callerAt (atMs: number, secretId: string, address: string, client = 'curl/8.5.0'): UsageOfKey['callers'][number] {
  return { address, client, secretId, lastSeenMs: atMs, counts: [{ hour: Math.floor(atMs / 3_600_000), count: 1 }] }
}

let boots = 0

/** The only batch of a gateway that nothing else is known of. */
export function batchOf (keys: UsageOfKey[]): UsageBatch {
  return { version: 1, bootId: `boot-of-test-${process.pid}-${boots++}`, seq: 0, atMs: Date.now(), replica: 'test', lines: [], incarnations: [], keys, rows: [] }
}

/** Writes usage as the consumer does. */
export async function storeUsage ({ parts: { database } }: TestApp, keys: UsageOfKey[]): Promise<void> {
  const minutes = new Set(keys.flatMap(({ sums }) => sums.map(({ minute }) => minute)))
  const partitions = new Map([...minutes].flatMap(minute => (['usage_minutes', 'usage_hours', 'usage_days'] as const).map(table => partitionOf(table, new Date(minute * 60_000)))).map(partition => [partition.name, partition]))
  await database.transaction(async tx => { await makePartitions(tx, [...partitions.values()]) })
  await database.transaction(async tx => { await storeBatches(tx, [batchOf(keys)]) })
}

/** Sends usage as a gateway does, and waits until it is stored. */
export async function sendUsage ({ parts: { redis } }: TestApp, keys: UsageOfKey[]): Promise<void> {
  await redis.call(async client => await client.xadd(usageStream, '*', usageField, JSON.stringify(batchOf(keys))))
  while (await redis.call(async client => await client.xlen(usageStream)) > 0) await delay(5)
}
