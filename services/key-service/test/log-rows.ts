import { setTimeout as delay } from 'node:timers/promises'
import { usageField, usageStream, type UsageBatch, type UsageOfKey, type UsageRow } from '@keygate/contracts'
import type { Database } from '../src/db/database.ts'
import { makePartitions, partitionOf } from '../src/usage/partitions.ts'
import { storeBatches } from '../src/usage/store.ts'
import type { TestApp } from './helper.ts'
import { batchOf } from './usage-batches.ts'

export const unknownKey = `key_${'0'.repeat(22)}`

/** A logged request; `at` in Unix milliseconds. */
export function rowAt (at: number, parts: Partial<UsageRow> & { projectId: string }): UsageRow {
  return {
    atMs: at,
    requestId: `request-${at}`,
    keyId: unknownKey,
    secretId: 'sec_1',
    api: 'forms',
    operation: 'GET /submissions',
    method: 'GET',
    scope: 'submissions',
    outcome: 'admitted',
    code: null,
    status: 200,
    ms: 12,
    bytes: 4711,
    address: '192.0.2.7',
    client: 'curl/8.5.0',
    ...parts
  }
}

/** Writes rows of the log as the consumer does, and the partitions that they belong to. */
export async function storeLog (database: Database, rows: UsageRow[], keys: UsageOfKey[] = []): Promise<void> {
  const partitions = new Map(rows.map(({ atMs }) => partitionOf('request_log', new Date(atMs))).map(partition => [partition.name, partition]))
  await database.transaction(async tx => { await makePartitions(tx, [...partitions.values()]) })
  await database.transaction(async tx => { await storeBatches(tx, [{ ...batchOf(keys), rows }]) })
}

/** Sends a batch as a gateway does, and waits until it has been stored. */
export async function sendBatch ({ parts: { redis } }: TestApp, batch: UsageBatch): Promise<void> {
  await redis.call(async client => await client.xadd(usageStream, '*', usageField, JSON.stringify(batch)))
  while (await redis.call(async client => await client.xlen(usageStream)) > 0) await delay(5)
}
