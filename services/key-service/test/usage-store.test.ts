import { randomBytes, randomUUID } from 'node:crypto'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { usageBoots, usageField, usageStream, type UsageBatch, type UsageSum } from '@keygate/contracts'
import { connectRedis, gatewaysKey, type RedisConnection } from '@keygate/rate-limit'
import { createRegistry } from '@keygate/service-kit'
import { sql } from 'drizzle-orm'
import type { FastifyBaseLogger } from 'fastify'
import { test, type Test } from 'tap'
import { runCommandLine } from '../src/cli/run.ts'
import { usageBalance } from '../src/cli/usage-balance.ts'
import { openDatabase, type Database, type Executor } from '../src/db/database.ts'
import { migrate } from '../src/db/migrate.ts'
import type { LastUse } from '../src/keys/last-use.ts'
import { balanceOf, weigh } from '../src/usage/balance.ts'
import { countNames, wholeProject, type Counts, type SumRow } from '../src/usage/columns.ts'
import { createUsageConsumer } from '../src/usage/consumer.ts'
import { foldBatches } from '../src/usage/fold.ts'
import { createIncarnationWatch, noteIncarnations } from '../src/usage/incarnations.ts'
import { createUsageMetrics } from '../src/usage/metrics.ts'
import { listPartitions, makePartitions, partitionOf } from '../src/usage/partitions.ts'
import { callersOfKey, storeBatches } from '../src/usage/store.ts'
import { createUsageStream, type UsageStream } from '../src/usage/stream.ts'
import { createTails } from '../src/usage/tails.ts'
import { startHouse, type House, type Sql } from './helper.ts'
import { waiterFor } from './lock-watch.ts'
import { tablesOf } from './people-helper.ts'

const [minuteMs, hourMs, dayMs] = [60_000, 3_600_000, 86_400_000]
/** 2026-11-21T10:58Z: two minutes before an hour ends, so that what is counted here lies in two. */
const firstMinute = Date.UTC(2026, 10, 21, 10, 58) / minuteMs
const firstHour = Math.floor(firstMinute / 60)

/** The same numbers each time (mulberry32). */
function dice (seed: number): (sides: number) => number {
  let state = seed
  return sides => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % sides
  }
}

function grouped<T> (items: T[], nameOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const item of items) groups.set(nameOf(item), [...groups.get(nameOf(item)) ?? [], item])
  return groups
}

const nothing: Counts = { admitted: 0, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 }
const where = { api: 'forms', operation: 'getForm', scope: 'forms' }
const sumOf = (counts: Partial<Counts>, minute = firstMinute): UsageSum => ({ ...where, minute, ...nothing, ...counts })

function batchOf (bootId: string, seq: number, lists: Partial<UsageBatch> = {}): UsageBatch {
  return { version: 1, bootId, seq, atMs: firstMinute * minuteMs + seq, replica: `${bootId}:8080`, lines: [], incarnations: [], keys: [], rows: [], ...lists }
}

/** A batch with some admissions of one key, told on the line as well. */
function admissions (bootId: string, seq: number, projectId: string, { admitted, before = 0, atMs = firstMinute * minuteMs, open = 0, unanswered = 0 }: { admitted: number, before?: number, atMs?: number, open?: number, unanswered?: number }): UsageBatch {
  const minute = Math.floor(atMs / minuteMs)
  return batchOf(bootId, seq, {
    atMs,
    lines: [{ projectId, hour: Math.floor(minute / 60), admitted: before + admitted + open, finished: before + admitted, unanswered }],
    keys: admitted === 0 ? [] : [{ projectId, keyId: 'key_1', secrets: [], sums: [sumOf({ admitted }, minute)], callers: [] }]
  })
}

/** What a gateway would have seen, one request at a time. */
interface Seen { boot: number, batch: number, project: number, key: number, operation: number, minute: number, counts: Counts, caller: number, secret: number }

function seenBy (roll: (sides: number) => number, requests: number, { boots = 3, batches = 4, projects = 2, keys = 3, operations = 2, minutes = 5 } = {}): Seen[] {
  return Array.from({ length: requests }, () => {
    const kind = roll(10)
    const counts = { ...nothing }
    if (kind < 6) counts.admitted = 1
    else if (kind < 8) counts.limited = 1
    else counts.refused = 1
    if (kind === 0) counts.upstreamErrors = 1
    if (kind === 1) counts.admittedLocally = 1
    return { boot: roll(boots), batch: roll(batches), project: roll(projects), key: roll(keys), operation: roll(operations), minute: firstMinute + roll(minutes), counts, caller: roll(4), secret: roll(2) }
  })
}

const operationOf = (seen: Seen) => ({ api: 'forms', operation: `operation ${seen.operation}`, scope: seen.operation === 0 ? '' : 'forms' })

/** The batches that carry them: sums as a gateway folds them, in no order of time. */
function batchesOf (all: Seen[], projectIds: string[]): UsageBatch[] {
  const groups = grouped(all, ({ boot, batch }) => `${boot} ${batch}`)
  return [...groups.values()].map(group => {
    const { boot, batch } = group[0] as Seen
    return batchOf(`boot-${boot}`, batch, {
      keys: [...grouped(group, ({ project, key }) => `${project} ${key}`).values()].map(ofKey => {
        const { project, key } = ofKey[0] as Seen
        return {
          projectId: projectIds[project] as string,
          keyId: `key_${key}`,
          secrets: [...new Set(ofKey.map(({ secret }) => secret))].map(secret => ({ secretId: `secret ${key} ${secret}`.replaceAll(' ', '_'), lastUsedMs: Math.max(...ofKey.filter(seen => seen.secret === secret).map(({ minute }) => minute)) * minuteMs })),
          sums: ofKey.map(seen => ({ ...operationOf(seen), minute: seen.minute, ...seen.counts })),
          callers: ofKey.map(({ caller, secret, minute }) => ({ address: `192.0.2.${caller}`, client: 'curl/8', secretId: `secret_${key}_${secret}`, lastSeenMs: minute * minuteMs, counts: [{ hour: Math.floor(minute / 60), count: 1 }] }))
        }
      })
    })
  })
}

/** The rows of a table of sums, counted one request after the other. */
function naive (all: Seen[], projectIds: string[], stepMs: number): Map<string, Counts> {
  const rows = new Map<string, Counts>()
  for (const seen of all) {
    const at = new Date(Math.floor(seen.minute * minuteMs / stepMs) * stepMs).toISOString()
    for (const keyId of [`key_${seen.key}`, wholeProject]) {
      const name = nameOf({ projectId: projectIds[seen.project] as string, keyId, at, ...operationOf(seen) })
      const row = rows.get(name) ?? { ...nothing }
      for (const count of countNames) row[count] += seen.counts[count]
      rows.set(name, row)
    }
  }
  return rows
}

const nameOf = ({ projectId, keyId, at, api, operation, scope }: Omit<SumRow, keyof Counts>): string => JSON.stringify([projectId, keyId, at, api, operation, scope])
const sorted = (rows: Map<string, Counts>): Array<[string, Counts]> => [...rows].sort(([a], [b]) => a < b ? -1 : 1)
const rowsByName = (rows: SumRow[]): Array<[string, Counts]> => sorted(new Map(rows.map(row => [nameOf(row), Object.fromEntries(countNames.map(name => [name, row[name]])) as unknown as Counts])))

test('foldBatches: the rows of many batches are what counting one request after the other gives', async t => {
  const projectIds = [randomUUID(), randomUUID()]
  for (let seed = 1; seed <= 20; seed++) {
    const all = seenBy(dice(seed), 200)
    const rows = foldBatches(batchesOf(all, projectIds))
    for (const [table, step] of [['minutes', minuteMs], ['hours', hourMs], ['days', dayMs]] as const) t.strictSame(rowsByName(rows[table]), sorted(naive(all, projectIds, step)), `seed ${seed}: ${table}`)
    const byScript = all.filter(({ counts }) => counts.admitted > counts.admittedLocally)
    t.strictSame(
      rows.lines.map(({ bootId, projectId, hour, stored }) => [bootId, projectId, hour, stored]).sort(),
      [...grouped(byScript, ({ boot, project, minute }) => JSON.stringify([`boot-${boot}`, projectIds[project], new Date(Math.floor(minute / 60) * hourMs).toISOString()]))].map(([name, { length }]) => [...JSON.parse(name), length]).sort(),
      `seed ${seed}: what the script has admitted is on the lines, and nothing else`
    )
    t.equal(rows.callers.reduce((sum, { count }) => sum + count, 0), all.length)
    for (const { secretId, at } of rows.uses) {
      const [, key, secret] = secretId.split('_').map(Number)
      t.equal(at, new Date(Math.max(...all.filter(seen => seen.key === key && seen.secret === secret).map(({ minute }) => minute)) * minuteMs).toISOString(), 'the latest use')
    }
  }
})

test('foldBatches: a line keeps its greatest totals, whatever the order; rows of the log keep their replica', async t => {
  const projectId = randomUUID()
  const line = { projectId, hour: firstHour }
  const row = { atMs: firstMinute * minuteMs, requestId: 'r', projectId, keyId: 'k', secretId: 's', ...where, method: 'GET', outcome: 'admitted' as const, code: null, status: 200, ms: 1, bytes: 2, address: '192.0.2.1', client: '' }
  const batches = [
    batchOf('a', 1, { lines: [{ ...line, admitted: 7, finished: 4, unanswered: 1 }], rows: [row] }),
    batchOf('a', 0, { lines: [{ ...line, admitted: 5, finished: 5, unanswered: 0 }], incarnations: [{ projectId, incarnation: 'x', minute: firstMinute + 1 }] }),
    batchOf('b', 0, { incarnations: [{ projectId, incarnation: 'x', minute: firstMinute }] })
  ]
  for (const order of [batches, batches.toReversed()]) {
    const rows = foldBatches(order)
    t.strictSame(rows.lines, [{ bootId: 'a', projectId, hour: new Date(firstHour * hourMs).toISOString(), admitted: 7, finished: 5, stored: 0, unanswered: 1 }])
    t.strictSame(rows.incarnations, [{ projectId, incarnation: 'x', at: new Date(firstMinute * minuteMs).toISOString() }])
    t.match(rows.log, [{ requestId: 'r', replica: 'a:8080', at: new Date(firstMinute * minuteMs).toISOString() }])
  }
})

test('weigh: left and right', t => {
  const even = { counted: 10, admitted: 10, finished: 10, stored: 10, tail: 0, unanswered: 0, unansweredBefore: 0, isSettled: false }
  const quiet = { isDrained: true, isComplete: true }
  const cases: Array<[string, Partial<typeof even>, Partial<typeof quiet>, object]> = [
    ['all stored', {}, {}, { stored: 10, lost: 0, inFlight: 0, difference: 0, verdict: 'balanced' }],
    ['open requests are in flight', { finished: 7, stored: 7 }, {}, { lost: 0, inFlight: 3, difference: 0, verdict: 'balanced' }],
    ['a batch that is on its way is in flight', { stored: 6 }, { isDrained: false }, { lost: 0, inFlight: 4, difference: 0, verdict: 'balanced' }],
    ['a batch that will never come is lost', { stored: 6 }, {}, { lost: 4, inFlight: 0, difference: 0, verdict: 'balanced' }],
    ['a dead boot\'s tail is lost', { counted: 15, finished: 8, stored: 6, tail: 7, isSettled: true }, {}, { lost: 9, inFlight: 0, difference: 0, verdict: 'balanced' }],
    ['settled: nothing is on its way any more', { stored: 6, isSettled: true }, { isDrained: false }, { lost: 4, inFlight: 0, verdict: 'balanced' }],
    ['what was not told yet leaves it open', { counted: 13 }, {}, { difference: 3, verdict: 'open' }],
    ['and not when all has been told', { counted: 13, isSettled: true }, {}, { difference: 3, verdict: 'unbalanced' }],
    ['an unanswered decision may have been counted, or not', { counted: 12, unanswered: 2 }, {}, { difference: 2, verdict: 'balanced' }],
    ['also in the next hour, by a Redis that hung over the end of one', { counted: 13, unanswered: 1, unansweredBefore: 2, isSettled: true }, {}, { unanswered: 1, difference: 3, verdict: 'balanced' }],
    ['and explains no more than itself', { counted: 13, unanswered: 2, isSettled: true }, {}, { difference: 3, verdict: 'unbalanced' }],
    ['more stored than counted is wrong', { counted: 9 }, {}, { difference: -1, verdict: 'unbalanced' }],
    ['unless Redis has lost its memory', { counted: 0 }, { isComplete: false }, { difference: -10, verdict: 'incomplete' }]
  ]
  for (const [name, sides, state, wanted] of cases) t.match(weigh({ ...even, ...sides }, { ...quiet, ...state }), wanted, name)
  t.end()
})

interface Logged { level: string, message: string, [field: string]: unknown }

/** A log that remembers. */
function logInto (lines: Logged[]): FastifyBaseLogger {
  const at = (level: string) => (first: object | string, message?: string) => { lines.push(typeof first === 'string' ? { level, message: first } : { ...first, level, message: message ?? '' }) }
  return { info: at('info'), warn: at('warn'), error: at('error') } as unknown as FastifyBaseLogger
}

interface Store { database: Database, table: Sql, url: string, projectId: string, store: (batches: UsageBatch[]) => Promise<UsageBatch[]>, totals: (table?: string) => Promise<Counts> }

interface Base { house: House, url: string, database: Database, table: Sql }

async function openBase (t: Test): Promise<Base> {
  const house = await startHouse(t)
  const url = await house.database()
  await migrate(url)
  const database = openDatabase(url, { timeoutMs: 20_000 })
  t.teardown(async () => { await database.close() })
  return { house, url, database, table: tablesOf(t, url) }
}

/** Nothing stored yet, a new project, and the partitions of `firstMinute`. */
async function openStore ({ url, database, table }: Base): Promise<Store> {
  await table`TRUNCATE usage_boots, usage_lines, usage_incarnations, usage_minutes, usage_hours, usage_days, usage_callers, request_log`
  const [project] = await table`INSERT INTO projects (name, created_by) VALUES ('P', 'test') RETURNING id`
  await database.transaction(async tx => { await makePartitions(tx, (['usage_minutes', 'usage_hours', 'usage_days', 'request_log'] as const).map(name => partitionOf(name, new Date(firstMinute * minuteMs)))) })
  return {
    database,
    table,
    url,
    projectId: project?.['id'] as string,
    store: async batches => await database.transaction(async tx => await storeBatches(tx, batches)),
    totals: async (name = 'usage_minutes') => {
      const [row] = await table`SELECT coalesce(sum(admitted), 0)::int AS admitted, coalesce(sum(limited), 0)::int AS limited, coalesce(sum(refused), 0)::int AS refused,
        coalesce(sum(upstream_errors), 0)::int AS "upstreamErrors", coalesce(sum(admitted_locally), 0)::int AS "admittedLocally" FROM ${table(name)} WHERE key_id <> '*'`
      return { ...row } as unknown as Counts
    }
  }
}

const seenSeqs = async (table: Sql, bootId: string): Promise<string> => (await table`SELECT seen::text FROM usage_boots WHERE boot_id = ${bootId}`)[0]?.['seen'] as string
const linesOf = async (table: Sql): Promise<object[]> => (await table`SELECT boot_id AS boot, admitted::int, finished::int, stored::int, tail::int FROM usage_lines ORDER BY boot_id, hour`).map(row => ({ ...row }))

test('storeBatches', async t => {
  const base = await openBase(t)

  await t.test('what is stored is what counting one request after the other gives, in whatever pieces and order it comes', async t => {
    const { database, table, projectId, store } = await openStore(base)
    const [other] = await table`INSERT INTO projects (name, created_by) VALUES ('Q', 'test') RETURNING id`
    const projectIds = [projectId, other?.['id'] as string]
    const roll = dice(7)
    const all = seenBy(roll, 600, { batches: 20 })
    const batches = batchesOf(all, projectIds)
    const order = batches.map(batch => ({ batch, place: roll(1000) })).sort((a, b) => a.place - b.place).map(({ batch }) => batch)
    while (order.length > 0) await store(order.splice(0, 1 + roll(7)))
    for (const [name, step] of [['usage_minutes', minuteMs], ['usage_hours', hourMs], ['usage_days', dayMs]] as const) {
      const found = await database.run(async db => await db.execute<Record<string, string>>(sql`SELECT * FROM ${sql.identifier(name)}`))
      const rows = found.map(row => ({
        projectId: row['project_id'],
        keyId: row['key_id'],
        at: new Date(row['at'] as string).toISOString(),
        api: row['api'],
        operation: row['operation'],
        scope: row['scope'],
        admitted: Number(row['admitted']),
        limited: Number(row['limited']),
        refused: Number(row['refused']),
        upstreamErrors: Number(row['upstream_errors']),
        admittedLocally: Number(row['admitted_locally'])
      }) as SumRow)
      t.strictSame(rowsByName(rows), sorted(naive(all, projectIds, step)), name)
    }
    t.equal(await seenSeqs(table, 'boot-0'), '{[0,20)}')
  })

  await t.test('the same batch twice: one after the other, and in one call', async t => {
    const { table, projectId, store, totals } = await openStore(base)
    const batch = admissions('a', 0, projectId, { admitted: 3 })
    t.equal((await store([batch, batch])).length, 1)
    t.equal((await store([batch])).length, 0)
    const next = admissions('a', 1, projectId, { admitted: 2, before: 3 })
    t.strictSame((await store([batch, next])).map(({ seq }) => seq), [1])
    t.match(await totals(), { admitted: 5 })
    t.strictSame(await linesOf(table), [{ boot: 'a', admitted: 5, finished: 5, stored: 5, tail: 0 }])
  })

  await t.test('out of order: seq 3, 1, 0, 2', async t => {
    const { table, projectId, store, totals } = await openStore(base)
    const batches = [0, 1, 2, 3].map(seq => admissions('a', seq, projectId, { admitted: 1, before: seq }))
    const kept = []
    for (const seq of [3, 1, 0, 2]) {
      await store([batches[seq] as UsageBatch])
      kept.push(await seenSeqs(table, 'a'))
    }
    t.strictSame(kept, ['{[3,4)}', '{[1,2),[3,4)}', '{[0,2),[3,4)}', '{[0,4)}'])
    t.strictSame(await linesOf(table), [{ boot: 'a', admitted: 4, finished: 4, stored: 4, tail: 0 }], 'its totals are the greatest, not the last')
    t.match(await totals(), { admitted: 4 })
    t.equal((await store(batches)).length, 0)
  })

  await t.test('the same batch in two transactions at once: the second waits for the boot, and finds it stored', async t => {
    const { database, url, projectId, totals } = await openStore(base)
    const batch = admissions('a', 0, projectId, { admitted: 3 })
    const other = admissions('b', 0, projectId, { admitted: 1 })
    const watch = tablesOf(t, url)
    let second: Promise<UsageBatch[]> | undefined
    const first = await database.transaction(async tx => {
      const fresh = await storeBatches(tx, [other, batch])
      const pid = (await tx.execute<{ pid: number }>(sql`SELECT pg_backend_pid() AS pid`))[0]?.pid as number
      second = database.transaction(async tx => await storeBatches(tx, [batch, other]))
      t.not(await waiterFor(watch, pid, second), undefined, 'it waits')
      return fresh
    })
    t.strictSame([first.length, (await second)?.length], [2, 0])
    t.match(await totals(), { admitted: 4 })
  })

  await t.test('a transaction that is rolled back leaves nothing, and the batch is new again', async t => {
    const { database, table, projectId, store, totals } = await openStore(base)
    const batch = admissions('a', 0, projectId, { admitted: 3 })
    await t.rejects(database.transaction(async tx => { await storeBatches(tx, [batch]); throw new Error('no') }), { message: 'no' })
    t.strictSame([await linesOf(table), (await totals()).admitted], [[], 0])
    t.equal((await store([batch])).length, 1)
    t.match(await totals(), { admitted: 3 })
  })

  await t.test('many transactions at once over the same keys: all is counted, and none got in another\'s way', async t => {
    const { database, projectId, totals } = await openStore(base)
    const roll = dice(11)
    const all = seenBy(roll, 4000, { boots: 10, batches: 24, projects: 1, keys: 4, operations: 3 })
    const batches = batchesOf(all, [projectId])
    // More callers than are kept, so that rows are dropped while others count on them.
    for (const batch of batches) for (const key of batch.keys) key.callers = key.callers.map(caller => ({ ...caller, address: `192.0.2.${roll(120)}` }))
    // Each batch is in two of them, which take it in opposite orders.
    const portions = Array.from({ length: 60 }, (_, i) => {
      const some = batches.filter((_, place) => place % 60 === i || place % 60 === (i + 1) % 60)
      return i % 2 === 0 ? some : some.toReversed()
    })
    let begun = 0
    await Promise.all(portions.map(async some => {
      await database.transaction(async tx => {
        begun++
        await storeBatches(tx, some)
      })
    }))
    t.equal(begun, portions.length, 'no transaction had to be done again')
    const wanted = all.reduce((sum, { counts }) => { for (const name of countNames) sum[name] += counts[name]; return sum }, { ...nothing })
    for (const name of ['usage_minutes', 'usage_hours', 'usage_days']) t.strictSame(await totals(name), wanted, name)
  })

  await t.test('the number of statements does not hang on the number of batches', async t => {
    const { database, projectId } = await openStore(base)
    const all = seenBy(dice(3), 500, { boots: 5, batches: 40, projects: 1 })
    const batches = batchesOf(all, [projectId]).map(batch => ({ ...batch, lines: [{ projectId, hour: firstHour, admitted: 1, finished: 1, unanswered: 0 }], incarnations: [{ projectId, incarnation: batch.bootId, minute: firstMinute }] }))
    const statements = async (some: UsageBatch[]): Promise<number> => {
      let count = 0
      await database.transaction(async tx => {
        const counting = new Proxy(tx, { get: (target, name) => name === 'execute' ? async (query: never) => { count++; return await target.execute(query) } : Reflect.get(target, name) }) as Executor
        await storeBatches(counting, some)
      })
      return count
    }
    const [one, many, none] = [await statements(batches.slice(0, 1)), await statements(batches), await statements(batches)]
    t.comment(`1 batch: ${one} statements; ${batches.length} batches: ${many}; all of them again: ${none}`)
    t.ok(many <= 10 && many <= one)
    t.ok(none <= 3, 'what was there before costs a look')
  })

  await t.test('callers: the last fifty of a key', async t => {
    const { table, projectId, store } = await openStore(base)
    const batch = (seq: number, callers: Array<[string, number]>) => batchOf('a', seq, { keys: [{ projectId, keyId: 'key_1', secrets: [], sums: [], callers: callers.map(([address, ms]) => ({ address, client: 'curl/8', secretId: 's', lastSeenMs: firstMinute * minuteMs + ms, counts: [{ hour: firstHour, count: 1 }] })) }] })
    await store([batch(0, Array.from({ length: callersOfKey }, (_, i) => [`192.0.2.${i}`, i]))])
    await store([batch(1, [['192.0.2.0', 1000], ['198.51.100.1', 1001]])])
    const kept = (await table`SELECT address, count::int FROM usage_callers ORDER BY last_seen DESC`).map(row => ({ ...row }))
    t.equal(kept.length, callersOfKey)
    t.match(kept, [{ address: '198.51.100.1', count: 1 }, { address: '192.0.2.0', count: 2 }])
    t.notOk(kept.some(row => (row as { address?: string }).address === '192.0.2.1'), 'the one that was not seen for longest has left')
  })
})

interface ConsumerHouse extends Store { redis: RedisConnection, stream: (name: string, lateMs?: number) => UsageStream, consume: (t: Test, name: string, options?: { lateMs?: number, lastUse?: LastUse }) => Consuming, add: (batches: UsageBatch[]) => Promise<string[]> }
interface Consuming { lines: Logged[], stop: () => Promise<void>, metric: (name: string) => Promise<number> }

test('the way from the stream into the tables', async t => {
  const base = await openBase(t)
  const { house } = base

  async function openConsumers (t: Test): Promise<ConsumerHouse> {
    const store = await openStore(base)
    const redis = connectRedis(house.redis.url, { timeoutMs: 10_000 })
    t.teardown(async () => { await redis.close() })
    t.equal(await redis.opened, 'ready')
    await redis.client.flushall()
    const stream = (name: string, lateMs = 30_000): UsageStream => createUsageStream(redis, name, lateMs)
    return {
      ...store,
      redis,
      stream,
      add: async batches => {
        const ids = []
        for (const batch of batches) ids.push(await redis.client.xadd(usageStream, '*', usageField, JSON.stringify(batch)) as string)
        return ids
      },
      consume: (t, name, { lateMs = 30_000, lastUse = { note: () => {}, flush: async () => {}, close: async () => {} } } = {}) => {
        const own = stream(name, lateMs)
        const lines: Logged[] = []
        const registry = createRegistry('test')
        const consumer = createUsageConsumer({
          database: store.database,
          stream: own,
          lastUse,
          metrics: createUsageMetrics(registry, own),
          incarnations: createIncarnationWatch(redis),
          log: logInto(lines),
          intervalMs: 10,
          takeOverEveryMs: lateMs / 2
        })
        consumer.start()
        t.teardown(consumer.stop)
        return { lines, stop: consumer.stop, metric: async metric => (await registry.getMetricsAsJSON()).find(({ name }) => name === metric)?.values.reduce((sum, { value }) => sum + value, 0) ?? NaN }
      }
    }
  }

  const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
    for (const deadline = Date.now() + 30_000; !await holds(); await setImmediate()) if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`)
  }
  const isEmpty = (redis: RedisConnection) => async (): Promise<boolean> => await redis.client.xlen(usageStream) === 0
  const pendingOf = async (redis: RedisConnection): Promise<number> => Number((await redis.client.xpending(usageStream, 'key-service') as [number])[0])

  await t.test('two consumers on one stream, among it each entry twice: everything once', async t => {
    const { redis, add, consume, projectId, totals } = await openConsumers(t)
    const batches = [0, 1, 2].flatMap(boot => Array.from({ length: 100 }, (_, seq) => admissions(`boot-${boot}`, seq, projectId, { admitted: 1, before: seq })))
    const roll = dice(5)
    await add([...batches, ...batches].map(batch => ({ batch, place: roll(10_000) })).sort((a, b) => a.place - b.place).map(({ batch }) => batch))
    const consumers = [consume(t, 'one'), consume(t, 'two')]
    await until('all are stored', isEmpty(redis))
    for (const { stop } of consumers) await stop()
    t.match(await totals(), { admitted: 300 })
    const sum = async (name: string): Promise<number> => (await Promise.all(consumers.map(async ({ metric }) => await metric(name)))).reduce((a, b) => a + b)
    t.strictSame([await sum('key_service_usage_batches_total'), await sum('key_service_usage_repeated_batches_total')], [300, 300])
    t.equal(await pendingOf(redis), 0)
  })

  await t.test('partitions come when a row wants them, also when two consumers want them at once', async t => {
    const { database, redis, add, consume, projectId, totals } = await openConsumers(t)
    const days = Array.from({ length: 20 }, (_, i) => (firstMinute - (i + 1) * 1440 * 9) * minuteMs)
    await add(days.flatMap((atMs, i) => [admissions('a', 2 * i, projectId, { admitted: 1, atMs }), admissions('b', 2 * i, projectId, { admitted: 1, atMs: atMs - dayMs })]))
    const consumers = [consume(t, 'one'), consume(t, 'two')]
    await until('all are stored', isEmpty(redis))
    for (const { stop } of consumers) await stop()
    t.match(await totals(), { admitted: 40 })
    const names = (await database.run(async db => await listPartitions(db, 'usage_minutes'))).map(({ name }) => name)
    for (const atMs of days) t.ok(names.includes(partitionOf('usage_minutes', new Date(atMs)).name))
    t.strictSame(consumers.flatMap(({ lines }) => lines), [])
  })

  await t.test('what is no batch, or cannot be stored, is left out, counted, told and taken off the stream; the others are stored', async t => {
    const { redis, add, consume, projectId, totals } = await openConsumers(t)
    const [good, alike] = [admissions('a', 0, projectId, { admitted: 2 }), admissions('a', 1, projectId, { admitted: 3, before: 2 })]
    await add([good])
    const ids = []
    for (const entry of [[usageField, 'no JSON'], [usageField, '{}'], [usageField, JSON.stringify({ ...alike, version: 2 })], ['other', 'field']] as const) ids.push(await redis.client.xadd(usageStream, '*', ...entry) as string)
    // Half of a surrogate pair: right for JSON and for the schema, and nothing that PostgreSQL can hold.
    const poison = admissions('b', 0, projectId, { admitted: 5 })
    for (const key of poison.keys) for (const sum of key.sums) sum.operation = '\ud800'
    // Longer than an entry of an index may be, and two names of one project.
    const long = admissions('c', 0, projectId, { admitted: 5 })
    for (const key of long.keys) for (const sum of key.sums) sum.operation = randomBytes(2900).toString('base64url')
    const twice = admissions('d', 0, projectId, { admitted: 5 })
    twice.keys = [projectId, projectId.toUpperCase()].flatMap(projectId => twice.keys.map(key => ({ ...key, projectId })))
    ids.push(...await add([poison, long, twice]))
    await add([alike])
    const { lines, metric, stop } = consume(t, 'one')
    await until('all are gone', isEmpty(redis))
    await stop()
    t.match(await totals(), { admitted: 5 })
    t.strictSame(lines.filter(({ level }) => level === 'error').map(({ id }) => id), ids, 'each is told once')
    t.equal(await metric('key_service_usage_unreadable_total'), ids.length)
    t.equal(await pendingOf(redis), 0)
  })

  await t.test('last uses of more keys than fit at once: none is left out', async t => {
    const { redis, add, consume, projectId } = await openConsumers(t)
    let [waiting, most, noted] = [0, 0, 0]
    const lastUse: LastUse = { note: () => { noted++; most = Math.max(most, ++waiting) }, flush: async () => { waiting = 0 }, close: async () => {} }
    await add(Array.from({ length: 3 }, (_, seq) => batchOf('a', seq, { keys: Array.from({ length: 1500 }, (_, i) => ({ projectId, keyId: `key_${seq}_${i}`, secrets: [{ secretId: `sec_${seq}_${i}`, lastUsedMs: 1 }], sums: [], callers: [] })) })))
    const { stop } = consume(t, 'one', { lastUse })
    await until('all are stored', isEmpty(redis))
    await stop()
    t.equal(noted, 4500)
    t.ok(most <= 2000, `${most} at once`)
  })

  await t.test('Redis comes back empty (FLUSHALL): the group is made again', async t => {
    const { redis, add, consume, projectId, totals } = await openConsumers(t)
    const { lines } = consume(t, 'one')
    await add([admissions('a', 0, projectId, { admitted: 1 })])
    await until('it is stored', async () => (await totals()).admitted === 1)
    await redis.client.flushall()
    await add([admissions('a', 1, projectId, { admitted: 1, before: 1 })])
    await until('it is stored', async () => (await totals()).admitted === 2)
    t.strictSame(lines, [], 'and nobody need hear of it')
  })

  await t.test('a dead consumer\'s entries are taken over when they are late, and not before', async t => {
    const { redis, add, consume, stream, projectId, totals } = await openConsumers(t)
    await add([admissions('a', 0, projectId, { admitted: 1 }), admissions('a', 1, projectId, { admitted: 1, before: 1 })])
    t.equal((await stream('dead').read(10)).length, 2)
    t.strictSame(await stream('patient', 3_600_000).takeOver(10), [])
    t.strictSame(await stream('patient', 3_600_000).read(10), [], 'nobody else is given them')
    t.equal((await totals()).admitted, 0)
    consume(t, 'heir', { lateMs: 100 })
    await until('they are stored', isEmpty(redis))
    t.equal((await totals()).admitted, 2)
  })

  await t.test('a consumer was slower than its heir: the second to store finds it stored', async t => {
    const { redis, add, stream, projectId, store, totals } = await openConsumers(t)
    await add([admissions('a', 0, projectId, { admitted: 4 })])
    const [slow, heir] = [stream('slow'), stream('heir', 0)]
    const read = await slow.read(10)
    const taken = await heir.takeOver(10)
    t.strictSame(taken, read)
    const batches = [read, taken].map(entries => entries.map(({ text = '' }) => JSON.parse(text) as UsageBatch))
    const fresh = await Promise.all(batches.map(store))
    t.equal(fresh.flat().length, 1)
    await heir.finish(taken)
    await slow.finish(read)
    t.equal((await totals()).admitted, 4)
    t.equal(await redis.client.xlen(usageStream), 0)
  })

  await t.test('an entry that the cap took while its consumer was dead is told of', async t => {
    const { redis, add, consume, stream, projectId, totals } = await openConsumers(t)
    await add([admissions('a', 0, projectId, { admitted: 1 })])
    await stream('dead').read(10)
    await redis.client.xtrim(usageStream, 'MAXLEN', 0)
    await add([admissions('a', 1, projectId, { admitted: 1, before: 1 })])
    const { metric } = consume(t, 'heir', { lateMs: 100 })
    await until('the other is stored', async () => (await totals()).admitted === 1)
    await until('it is told', async () => await metric('key_service_usage_trimmed_total') === 1)
    t.equal(await pendingOf(redis), 0)
  })

  await t.test('consumers that have nothing are forgotten, those that have something are not', async t => {
    const { redis, add, stream, projectId } = await openConsumers(t)
    await add([admissions('a', 0, projectId, { admitted: 1 }), admissions('a', 1, projectId, { admitted: 1, before: 1 })])
    const [idle, busy, own] = [stream('idle'), stream('busy'), stream('own')]
    await idle.finish(await idle.read(1))
    await busy.read(1)
    const names = async (): Promise<string[]> => (await redis.client.xinfo('CONSUMERS', usageStream, 'key-service') as string[][]).map(fields => fields[1] as string).sort()
    await own.forgetDead()
    t.strictSame(await names(), ['busy', 'idle'], 'not before an hour')
    await own.forgetDead(0)
    t.strictSame(await names(), ['busy'])
    t.equal(await pendingOf(redis), 1)
  })

  await t.test('PostgreSQL says no for a while: nothing is lost, and it is told once', async t => {
    const { redis, table, add, consume, projectId, totals } = await openConsumers(t)
    await table`ALTER TABLE usage_boots RENAME TO usage_boots_away`
    const { lines } = consume(t, 'one')
    await add([admissions('a', 0, projectId, { admitted: 1 }), admissions('a', 1, projectId, { admitted: 1, before: 1 })])
    await until('it is told', async () => lines.length > 0)
    await table`ALTER TABLE usage_boots_away RENAME TO usage_boots`
    await until('all is stored', isEmpty(redis))
    t.equal((await totals()).admitted, 2)
    await until('and that too', async () => lines.length > 1)
    t.match(lines, [{ level: 'warn', message: /waits in Redis/ }, { level: 'info', message: 'usage is stored again' }])
  })

  await t.test('tails and the balance', async t => {
    interface Scene extends ConsumerHouse { nowMs: number, settle: () => Promise<number>, count: (bootId: string, admissions: number) => Promise<void>, balance: () => ReturnType<typeof balanceOf>, cli: (...args: string[]) => Promise<{ code: number, out: string, err: string }> }
    const silentMs = 1000

    /** Boots that were last heard of ten seconds ago, in the hour that it is now. */
    async function open (t: Test): Promise<Scene> {
      const parts = await openConsumers(t)
      const { redis, database, projectId, url } = parts
      const nowMs = Date.now() - 10_000
      await database.transaction(async tx => { await makePartitions(tx, (['usage_minutes', 'usage_hours', 'usage_days'] as const).map(name => partitionOf(name, new Date(nowMs)))) })
      const stream = parts.stream('tails')
      await redis.client.hset(`kg:{${projectId}}:versions`, '#', 'memory')
      return {
        ...parts,
        nowMs,
        settle: createTails({ database, redis, stream, silentMs, missingMs: 0 }).settle,
        count: async (bootId, admissions) => { await redis.client.hincrby(`kg:{${projectId}}:admitted:${Math.floor(nowMs / minuteMs)}`, bootId, admissions) },
        balance: async () => await balanceOf(projectId, 0, { database, redis, stream }),
        cli: async (...args) => {
          const [out, err] = [new PassThrough(), new PassThrough()]
          const texts = Promise.all([text(out), text(err)])
          const code = await runCommandLine([usageBalance], ['usage', 'balance', ...args], { env: { DATABASE_URL: url, REDIS_URL: house.redis.url, KEYGATE_APIS: fileURLToPath(new URL('fixtures/apis.yaml', import.meta.url)), KEYGATE_PEPPER: 'a pepper for tests of 32 characters or more', LOG_LEVEL: 'silent' }, out, err })
          out.end()
          err.end()
          const [outText, errText] = await texts
          return { code, out: outText, err: errText }
        }
      }
    }

    await t.test('a dead boot with admissions that it never told', async t => {
      const { table, store, settle, count, balance, projectId, nowMs } = await open(t)
      await store([admissions('a', 0, projectId, { admitted: 5, atMs: nowMs })])
      await count('a', 8)
      t.match(await balance(), [{ counted: 8, stored: 5, lost: 0, difference: 3, verdict: 'open' }], 'before')
      t.equal(await settle(), 1)
      t.strictSame(await linesOf(table), [{ boot: 'a', admitted: 5, finished: 5, stored: 5, tail: 3 }])
      t.match(await balance(), [{ counted: 8, stored: 5, lost: 3, inFlight: 0, difference: 0, verdict: 'balanced' }])
      t.equal(await settle(), 0, 'once')
    })

    await t.test('with requests that were open, and a batch that never came', async t => {
      const { table, store, settle, count, balance, projectId, nowMs } = await open(t)
      await store([admissions('a', 1, projectId, { admitted: 3, before: 4, open: 2, atMs: nowMs })]) // seq 0 had four, and is lost
      await count('a', 9)
      t.match(await balance(), [{ counted: 9, stored: 3, lost: 4, inFlight: 2, difference: 0, verdict: 'balanced' }], 'a living boot\'s open requests are in flight')
      t.equal(await settle(), 1)
      t.strictSame(await linesOf(table), [{ boot: 'a', admitted: 9, finished: 7, stored: 3, tail: 2 }])
      t.match(await balance(), [{ stored: 3, lost: 6, inFlight: 0, difference: 0, verdict: 'balanced' }])
    })

    await t.test('without any batch but the hello', async t => {
      const { store, settle, count, balance, projectId, nowMs } = await open(t)
      await store([batchOf('a', 0, { atMs: nowMs })])
      await count('a', 7)
      await settle()
      t.match(await balance(), [{ bootId: 'a', projectId, counted: 7, stored: 0, lost: 7, difference: 0, verdict: 'balanced' }])
    })

    await t.test('thought dead, and speaks again: its tail is taken back, and settled anew when it has really ended', async t => {
      const { table, store, settle, count, balance, projectId, nowMs } = await open(t)
      const first = admissions('a', 0, projectId, { admitted: 5, atMs: nowMs })
      await store([first])
      await count('a', 8)
      await settle()
      await store([admissions('a', 1, projectId, { admitted: 3, before: 5, atMs: nowMs + 1 })])
      t.strictSame(await linesOf(table), [{ boot: 'a', admitted: 8, finished: 8, stored: 8, tail: 0 }])
      t.match(await balance(), [{ stored: 8, lost: 0, difference: 0, verdict: 'balanced' }])
      await count('a', 2)
      t.equal(await settle(), 1)
      t.match(await balance(), [{ stored: 8, lost: 2, difference: 0, verdict: 'balanced' }])
      t.equal((await store([first])).length, 0)
      t.match(await balance(), [{ stored: 8, lost: 2, difference: 0, verdict: 'balanced' }], 'a batch that comes again is no sign of life')
    })

    await t.test('not while its heart beats, and not while something older lies in the stream', async t => {
      const { redis, store, settle, add, stream, projectId, nowMs } = await open(t)
      await store([admissions('a', 0, projectId, { admitted: 5, atMs: nowMs })])
      await redis.client.zadd(gatewaysKey, Date.now(), 'a')
      t.equal(await settle(), 0)
      await redis.client.zrem(gatewaysKey, 'a')
      await add([admissions('a', 1, projectId, { admitted: 1, before: 5, atMs: nowMs })])
      t.equal(await settle(), 0)
      await stream('one').finish(await stream('one').read(1))
      t.equal(await settle(), 1)
    })

    await t.test('B2-14 a gap among its batches: also what no later one has told of again', async t => {
      const { redis, table, store, settle, count, balance, projectId, nowMs } = await open(t)
      const [hello, told] = [nowMs - 5 * hourMs, nowMs - 3 * hourMs]
      await store([batchOf('a', 0, { atMs: hello })]) // its next ones were trimmed, with all that they told of the hour
      await redis.client.hincrby(`kg:{${projectId}}:admitted:${Math.floor(told / minuteMs)}`, 'a', 6)
      await store([admissions('a', 9, projectId, { admitted: 5, atMs: nowMs })])
      await count('a', 7)
      t.match(await balance(), [{ counted: 6, lost: 0, verdict: 'open' }, { counted: 7, stored: 5, verdict: 'open' }], 'before')
      t.equal(await settle(), 1)
      t.match(await balance(), [{ counted: 6, stored: 0, lost: 6, verdict: 'balanced' }, { counted: 7, stored: 5, lost: 2, verdict: 'balanced' }])
      t.match(await linesOf(table), [{ tail: 6 }, { tail: 2 }])
    })

    await t.test('B2-14 a gateway whose clock runs ahead, until it has asked Redis for something', async t => {
      const { redis, table, add, consume, settle, balance, projectId } = await open(t)
      const begun = Date.now()
      await add([batchOf('a', 0, { atMs: begun + hourMs })])
      consume(t, 'one')
      await until('it is stored', isEmpty(redis))
      await redis.client.hincrby(`kg:{${projectId}}:admitted:${Math.floor(begun / minuteMs)}`, 'a', 4)
      const [boot] = await table`SELECT last_at FROM usage_boots`
      t.ok(Number(boot?.['last_at']) <= Date.now(), 'nothing was heard of it in the future')
      await until('it is settled', async () => await settle() === 1)
      t.match(await balance(), [{ counted: 4, stored: 0, lost: 4, verdict: 'balanced' }])
    })

    await t.test('B2-14 a boot of which nothing ever came, since the cap took it all', async t => {
      const { redis, table, settle, store, balance, projectId, nowMs } = await open(t)
      const told = nowMs - 26 * hourMs
      await redis.client.sadd(usageBoots, 'a', 'living')
      await redis.client.zadd(gatewaysKey, Date.now(), 'living')
      await redis.client.hincrby(`kg:{${projectId}}:admitted:${Math.floor(told / minuteMs)}`, 'a', 6)
      t.match(await balance(), [{ bootId: 'a', counted: 6, lost: 0, verdict: 'open' }], 'before')
      t.equal(await settle(), 1)
      t.match(await balance(), [{ bootId: 'a', counted: 6, lost: 6, verdict: 'balanced' }])
      t.strictSame(await redis.client.smembers(usageBoots), ['living'])
      t.equal(await settle(), 0, 'once')
      await redis.client.zrem(gatewaysKey, 'living')
      await store([batchOf('living', 0, { atMs: Date.now() })])
      t.equal(await settle(), 0, 'of this one something came')
      await table`UPDATE usage_boots SET settled_at = now()`
      await settle()
      t.strictSame(await redis.client.smembers(usageBoots), [], 'settled by another')
    })

    await t.test('not by one look at a Redis that has come back empty', async t => {
      const { redis, database, stream, store, projectId, nowMs } = await open(t)
      await store([admissions('a', 0, projectId, { admitted: 5, open: 3, atMs: nowMs })])
      const patient = createTails({ database, redis, stream: stream('patient'), silentMs, missingMs: 50 })
      t.equal(await patient.settle(), 0, 'its next heartbeat may be on the way')
      await redis.client.zadd(gatewaysKey, Date.now(), 'a')
      t.equal(await patient.settle(), 0)
      await redis.client.zrem(gatewaysKey, 'a')
      t.equal(await patient.settle(), 0, 'and it counts from anew')
      await until('it is settled', async () => await patient.settle() === 1)
    })

    await t.test('a Redis that hung over the end of an hour, with decisions that were not answered', async t => {
      const { redis, store, balance, projectId, nowMs } = await open(t)
      const before = nowMs - hourMs
      await store([batchOf('a', 0, { lines: [before, nowMs].map(atMs => ({ projectId, hour: Math.floor(atMs / hourMs), admitted: 0, finished: 0, unanswered: atMs === before ? 3 : 0 })) })])
      await redis.client.hincrby(`kg:{${projectId}}:admitted:${Math.floor(nowMs / minuteMs)}`, 'a', 3)
      t.match(await balance(), [{ counted: 0, unanswered: 3, verdict: 'balanced' }, { counted: 3, unanswered: 0, difference: 3, verdict: 'balanced' }])
    })

    await t.test('not before it has been silent for long', async t => {
      const { store, settle } = await open(t)
      await store([batchOf('a', 0, { atMs: Date.now() + 60_000 })])
      t.equal(await settle(), 0)
    })

    await t.test('Redis was emptied: what was told is still right, and the left side is incomplete', async t => {
      const { redis, database, store, settle, count, balance, cli, projectId, nowMs } = await open(t)
      const watch = createIncarnationWatch(redis)
      await database.run(async db => { await noteIncarnations(db, await watch.look([projectId])) })
      await store([admissions('a', 0, projectId, { admitted: 4, open: 1, atMs: nowMs })])
      await count('a', 5)
      t.match(await cli(), { code: 0, err: '', out: / balanced\n# 1 lines, 0 unbalanced, 0 open, 0 with the left side incomplete, 0 admissions lost\n$/ })
      await redis.client.flushall()
      t.match(await balance(), [{ counted: 0, verdict: 'incomplete' }], 'and nobody has used it since')
      await redis.client.hset(`kg:{${projectId}}:versions`, '#', 'another memory')
      t.match(await balance(), [{ counted: 0, verdict: 'incomplete' }], 'nor told of it')
      await settle()
      t.match(await balance(), [{ stored: 4, lost: 1, inFlight: 0, verdict: 'incomplete' }])
      await database.run(async db => { await noteIncarnations(db, await createIncarnationWatch(redis).look([projectId])) })
      t.match(await balance(), [{ verdict: 'incomplete' }])
      t.match(await cli('--project', projectId), { code: 0, out: / left side incomplete\n# 1 lines, 0 unbalanced, 0 open, 1 with the left side incomplete, 1 admissions lost\n$/ })
    })

    await t.test('the command: 1 when a side is too light, and what it cannot understand', async t => {
      const { store, settle, count, cli, projectId, nowMs } = await open(t)
      await store([admissions('a', 0, projectId, { admitted: 5, atMs: nowMs }), admissions('b', 0, projectId, { admitted: 5, atMs: nowMs })])
      await count('a', 5)
      await count('b', 4)
      t.match(await cli(), { code: 1, out: /\n[^\n]* a +[^\n]* balanced\n[^\n]* b +[^\n]* unbalanced\n# 2 lines, 1 unbalanced/ })
      await count('b', 3)
      t.match(await cli(), { code: 0, out: / open\n# 2 lines, 0 unbalanced, 1 open/ }, 'it may tell later')
      await settle()
      t.match(await cli(), { code: 0, out: /# 2 lines, 0 unbalanced, 0 open, 0 with the left side incomplete, 2 admissions lost/ })
      t.match(await cli('--since', new Date(Date.now() + hourMs).toISOString()), { code: 0, out: /# 0 lines/ })
      t.match(await cli('--project', randomUUID()), { code: 0, out: /# 0 lines/ })
      t.match(await cli('--since', 'yesterday'), { code: 2, err: /^--since must be a date-time/ })
      t.match(await cli('--project', 'mine'), { code: 2, err: /^--project must be/ })
    })
  })

  await t.test('memories of Redis: each is told when it is news, and noted once with its first moment', async t => {
    const { redis, database, table, store, projectId } = await openConsumers(t)
    const watch = createIncarnationWatch(redis)
    t.strictSame(await watch.look([projectId]), [], 'none yet')
    const versions = `kg:{${projectId}}:versions`
    await redis.client.hset(versions, '#', 'first')
    t.strictSame(await watch.look([projectId, projectId]), [], 'asked a moment ago')
    const again = createIncarnationWatch(redis)
    await t.rejects(again.look([projectId], async () => { throw new Error('not now') }), { message: 'not now' })
    const found = await again.look([projectId, projectId])
    t.strictSame(await again.look([projectId]), [], 'once')
    t.strictSame(found, [{ projectId, incarnation: 'first' }])
    for (let i = 0; i < 2; i++) await database.run(async db => { await noteIncarnations(db, found) })
    await store([batchOf('a', 0, { incarnations: [{ projectId, incarnation: 'first', minute: 1 }, { projectId, incarnation: 'second', minute: 3 }] })])
    await store([batchOf('a', 1, { incarnations: [{ projectId, incarnation: 'first', minute: 5 }, { projectId, incarnation: 'second', minute: 2 }] })])
    const noted = (await table`SELECT incarnation, first_at FROM usage_incarnations ORDER BY first_at`).map(row => [row['incarnation'], Number(row['first_at']) / minuteMs])
    t.strictSame(noted, [['first', 1], ['second', 2]], 'the earliest of the moments')
  })
})
