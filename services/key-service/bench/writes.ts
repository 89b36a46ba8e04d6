import { randomUUID } from 'node:crypto'
import type { UsageBatch } from '@keygate/contracts'
import type postgres from 'postgres'

/** The build of the service: this program is built beside it, not into it. */
const dist = new URL('../../dist/', import.meta.url)

/** So many keys in use at once, requests per second in all, and batches in one transaction: more than one when the consumer is behind. */
export interface Load { keys: number, requestsPerSecond: number, together: number }

/** Per second of the gateways' time. */
export interface Written { rows: number, updatedInPlace: number, transactions: number, walBytes: number, batchBytes: number, storeMs: number }

const batchesPerSecond = 5
const minuteMs = 60_000

/** A gateway's batches: one every 200 ms, in which each key occurs if there were requests enough. The clock is a made one. */
export function * batchesOf ({ keys, requestsPerSecond }: Omit<Load, 'together'>, seconds: number, startMs: number): Generator<UsageBatch, void> {
  const projectId = randomUUID()
  const bootId = randomUUID()
  const perBatch = Math.floor(requestsPerSecond / batchesPerSecond)
  const base = { version: 1 as const, bootId, replica: 'bench' }
  yield { ...base, seq: 0, atMs: startMs, lines: [], incarnations: [], keys: [], rows: [] }
  let [admitted, turn] = [0, 0]
  let hour = Math.floor(startMs / (60 * minuteMs))
  for (let seq = 1; seq <= seconds * batchesPerSecond; seq++) {
    const atMs = startMs + seq * 1000 / batchesPerSecond
    const minute = Math.floor(atMs / minuteMs)
    if (Math.floor(minute / 60) !== hour) [hour, admitted] = [Math.floor(minute / 60), 0]
    admitted += perBatch
    const active = Math.min(keys, perBatch)
    const used = Array.from({ length: active }, (_, i) => {
      const number = (turn + i) % keys
      const count = Math.floor(perBatch / active) + (i < perBatch % active ? 1 : 0)
      return {
        projectId,
        keyId: `key_bench${String(number).padStart(17, '0')}`,
        secrets: [{ secretId: `sec_bench${String(number).padStart(17, '0')}`, lastUsedMs: atMs }],
        sums: [{ api: 'forms', operation: 'listSubmissions', scope: 'submissions', minute, admitted: count, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 }],
        callers: [{ address: `10.0.${number >> 8 & 255}.${number & 255}`, client: 'bench', secretId: `sec_bench${String(number).padStart(17, '0')}`, lastSeenMs: atMs, counts: [{ hour, count }] }]
      }
    })
    turn += active
    yield { ...base, seq, atMs, lines: [{ projectId, hour, admitted, finished: admitted, unanswered: 0 }], incarnations: [], keys: used, rows: [] }
  }
}

/** Stores `seconds` of a load as the consumer does, and reads what PostgreSQL has written. */
export async function measureWrites ({ databaseUrl, admin }: { databaseUrl: string, admin: postgres.Sql }, load: Load, seconds: number): Promise<Written> {
  const { openDatabase } = await import(new URL('db/database.js', dist).href) as typeof import('../dist/db/database.js')
  const { makePartitions, partitionOf } = await import(new URL('usage/partitions.js', dist).href) as typeof import('../dist/usage/partitions.js')
  const { storeBatches } = await import(new URL('usage/store.js', dist).href) as typeof import('../dist/usage/store.js')
  const startMs = Date.now()
  const open = () => openDatabase(databaseUrl, { timeoutMs: 60_000, applicationName: 'keygate-bench' })

  const preparing = open()
  const tables = ['usage_minutes', 'usage_hours', 'usage_days'] as const
  await preparing.transaction(async tx => { await makePartitions(tx, tables.flatMap(table => [startMs, startMs + seconds * 1000].map(ms => partitionOf(table, new Date(ms))))) })
  await preparing.close()

  const before = await counters(admin)
  const database = open()
  let [transactions, batchBytes] = [0, 0]
  const begun = performance.now()
  const batches = [...batchesOf(load, seconds, startMs)]
  for (let i = 0; i < batches.length; i += load.together) {
    const some = batches.slice(i, i + load.together)
    batchBytes += JSON.stringify(some).length
    await database.transaction(async tx => { await storeBatches(tx, some) })
    transactions++
  }
  const storeMs = performance.now() - begun
  await database.close() // a session that ends tells its counts
  const after = await counters(admin)
  const perSecond = (total: number): number => total / seconds
  return {
    rows: perSecond(after.rows - before.rows),
    updatedInPlace: (after.hot - before.hot) / Math.max(1, after.updates - before.updates),
    transactions: perSecond(transactions),
    walBytes: perSecond(after.wal - before.wal),
    batchBytes: perSecond(batchBytes),
    storeMs: perSecond(storeMs)
  }
}

interface Counters { rows: number, updates: number, hot: number, wal: number }

async function counters (admin: postgres.Sql): Promise<Counters> {
  // The session that has ended may still be telling: it is gone from the list when it has.
  while ((await admin`SELECT 1 FROM pg_stat_activity WHERE application_name = 'keygate-bench'`).length > 0);
  const [row] = await admin<Array<Record<keyof Counters, string>>>`
    SELECT (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE relname LIKE 'usage\_%') AS rows,
      (SELECT sum(n_tup_upd) FROM pg_stat_user_tables WHERE relname LIKE 'usage\_%') AS updates,
      (SELECT sum(n_tup_hot_upd) FROM pg_stat_user_tables WHERE relname LIKE 'usage\_%') AS hot,
      (SELECT wal_bytes FROM pg_stat_wal) AS wal`
  const { rows, updates, hot, wal } = row ?? { rows: 0, updates: 0, hot: 0, wal: 0 }
  return { rows: Number(rows), updates: Number(updates), hot: Number(hot), wal: Number(wal) }
}
