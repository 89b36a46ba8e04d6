import { randomUUID } from 'node:crypto'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { sql as statement } from 'drizzle-orm'
import fc from 'fast-check'
import { test, type Test } from 'tap'
import { logDrop } from '../src/cli/log-drop.ts'
import { runCommandLine } from '../src/cli/run.ts'
import { openDatabase, type Database, type Executor } from '../src/db/database.ts'
import { migrate } from '../src/db/migrate.ts'
import { dropDay, findOldDays } from '../src/request-log/retention.ts'
import { dropPartition, listPartitions, makePartitions, partitionOf, partitioned, type Partition, type Partitioned } from '../src/usage/partitions.ts'
import { storeBatches } from '../src/usage/store.ts'
import { createUsageUpkeep, keptDays, partitionsBefore } from '../src/usage/upkeep.ts'
import { configFor, redisIsReady, startApp, startHouse, type Sql } from './helper.ts'
import { rowAt, sendBatch, storeLog, unknownKey } from './log-rows.ts'
import { tablesOf } from './people-helper.ts'
import { batchOf, sumAt, usageOf } from './usage-batches.ts'

const [hourMs, dayMs] = [3_600_000, 86_400_000]
const tables = Object.keys(partitioned) as Partitioned[]
const iso = (ms: number): string => new Date(ms).toISOString()
const context = { actor: { type: 'host', id: 'command-line', name: 'command-line' }, requestId: 'upkeep' } as const
const quiet = { info: () => {}, warn: () => {}, error: () => {} } as unknown as Parameters<typeof createUsageUpkeep>[0]['log']

test('the partition that a moment belongs to', t => {
  const names = (moment: string): string[] => tables.map(table => partitionOf(table, new Date(moment)).name)
  t.strictSame(names('2026-11-21T23:59:59.999Z'), ['usage_minutes_20261121', 'usage_hours_20261116', 'usage_days_2026', 'request_log_20261121'])
  t.strictSame(names('2026-11-23T00:00:00.000Z'), ['usage_minutes_20261123', 'usage_hours_20261123', 'usage_days_2026', 'request_log_20261123'], 'a Monday')
  t.strictSame(names('2027-01-01T00:00:00.000Z'), ['usage_minutes_20270101', 'usage_hours_20261228', 'usage_days_2027', 'request_log_20270101'])
  t.strictSame(names('1969-12-31T23:59:59.999Z'), ['usage_minutes_19691231', 'usage_hours_19691229', 'usage_days_1969', 'request_log_19691231'], 'before 1970')
  const moment = fc.date({ min: new Date('1900-01-01'), max: new Date('2200-01-01'), noInvalidDate: true })
  fc.assert(fc.property(fc.constantFrom(...tables), moment, (table, at) => {
    const { from, until, name } = partitionOf(table, at)
    const [first, last, next] = [from, new Date(until.getTime() - 1), until].map(moment => partitionOf(table, moment))
    return from <= at && at < until && first?.name === name && last?.name === name && next?.from.getTime() === until.getTime()
  }), { numRuns: 300 })
  t.end()
})

test('GX-33 what is dropped has no row that is as young as what is kept', t => {
  const moment = fc.integer({ min: 0, max: 400 * dayMs })
  fc.assert(fc.property(fc.constantFrom(...tables), fc.array(moment, { minLength: 1 }), moment, fc.integer({ min: 1, max: 100 }), (table, rows, now, days) => {
    const partitions = new Map(rows.map(at => partitionOf(table, new Date(at))).map(partition => [partition.name, partition]))
    const dropped = new Set(partitionsBefore([...partitions.values()], now - days * dayMs).map(({ name }) => name))
    return rows.every(at => now - at > days * dayMs || !dropped.has(partitionOf(table, new Date(at)).name))
  }), { numRuns: 300 })
  const day = partitionOf('request_log', new Date('2026-11-20T12:00:00Z'))
  const end = day.until.getTime()
  t.strictSame([end - 1, end].map(cut => partitionsBefore([day], cut).length), [0, 1], 'to the millisecond')
  t.end()
})

test('upkeep of usage', async t => {
  const house = await startHouse(t)

  async function start (t: Test) {
    const url = await house.database()
    await migrate(url)
    const database = openAgain(t, url)
    return { url, database, sql: tablesOf(t, url) }
  }
  function openAgain (t: Test, url: string): Database {
    const database = openDatabase(url, { timeoutMs: 20_000, applicationName: 'test' })
    t.teardown(async () => { await database.close() })
    return database
  }
  const namesOf = async (database: Database, table: Partitioned): Promise<string[]> => (await database.run(async db => await listPartitions(db, table))).map(({ name }) => name)
  const upkeep = (database: Database, nowMs: number, logRetentionDays?: number) => createUsageUpkeep({ database, log: quiet, logRetentionDays, nowMs: () => nowMs })
  const make = async (database: Database, partitions: Partition[]): Promise<void> => { await database.transaction(async tx => { await makePartitions(tx, partitions) }) }

  /** Rows of the sums, of a new project, at these moments. */
  async function addSums (database: Database, sql: Sql, table: Partitioned, moments: number[]): Promise<string> {
    const projectId = randomUUID()
    await make(database, moments.map(at => partitionOf(table, new Date(at))))
    for (const at of moments) await sql`INSERT INTO ${sql(table)} (project_id, key_id, at, api, operation, scope, admitted, limited, refused, upstream_errors, admitted_locally) VALUES (${projectId}, 'k', ${iso(at)}, '', '', '', 1, 0, 0, 0, 0)`
    return projectId
  }
  const momentsOf = async (sql: Sql, table: string, projectId: string): Promise<number[]> =>
    (await sql`SELECT at FROM ${sql(table)} WHERE project_id = ${projectId} ORDER BY at`).map(({ at }) => (at as Date).getTime())

  await t.test('partitions are made ahead, in every time zone of the server alike, and found with their bounds', async t => {
    const { database, url, sql } = await start(t)
    await sql.unsafe(`ALTER DATABASE ${new URL(url).pathname.slice(1)} SET timezone = 'Asia/Kolkata'`)
    await sql.unsafe(`ALTER DATABASE ${new URL(url).pathname.slice(1)} SET datestyle = 'SQL, DMY'`)
    const now = Date.parse('2026-12-31T23:59:59.999Z')
    const fresh = openAgain(t, url)
    await upkeep(fresh, now).run()
    for (const [table, names] of [
      ['usage_minutes', ['20261231', '20270101']], ['usage_hours', ['20261228', '20270104']], ['usage_days', ['2026', '2027']], ['request_log', ['20261231', '20270101']]
    ] as const) {
      for (const each of [database, fresh]) {
        const found = await each.run(async db => await listPartitions(db, table))
        t.strictSame(found.map(({ name }) => name), names.map(name => `${table}_${name}`))
        for (const { table, name, from, until } of found) t.strictSame({ table, name, from, until }, partitionOf(table, from))
      }
    }
    await upkeep(fresh, now).run()
    await upkeep(fresh, now + 1).run()
    t.strictSame(await namesOf(fresh, 'usage_minutes'), ['usage_minutes_20261231', 'usage_minutes_20270101', 'usage_minutes_20270102'])
  })

  await t.test('by several at once, ahead, on demand and while old ones are dropped', async t => {
    const { database, url, sql } = await start(t)
    const others = [database, openAgain(t, url), openAgain(t, url)]
    const now = Date.parse('2026-11-21T12:00:00Z')
    for (let round = 0; round < 4; round++) {
      const at = now + round * 9 * dayMs
      // Each wants the same ones, in another order.
      const wanted = Array.from({ length: 4 }, (_, i) => tables.map(table => partitionOf(table, new Date(at - i * dayMs)))).flat()
      await Promise.all(others.flatMap((each, i) => [
        upkeep(each, at, 2).run(),
        make(each, i === 1 ? wanted.toReversed() : wanted),
        // Somebody writes meanwhile, in the order of the consumer.
        each.transaction(async tx => { await lockInOrder(tx) })
      ]))
      for (const table of ['usage_minutes', 'request_log'] as const) {
        const names = await namesOf(database, table)
        for (const day of [at, at + dayMs]) t.ok(names.includes(partitionOf(table, new Date(day)).name))
        t.notOk(names.includes(partitionOf(table, new Date(at - 9 * dayMs)).name))
      }
    }
    // A session has certainly counted its deadlocks when it has ended; here they would be mended by doing it again.
    await Promise.all(others.map(async each => { await each.close() }))
    while ((await sql`SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'test'`).length > 0) { /* each look takes a round trip */ }
    t.equal((await sql`SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()`)[0]?.['deadlocks'], 0)
  })

  await t.test('minutes are kept 7 days, hours 90, days for ever, to the millisecond', async t => {
    const { database, sql } = await start(t)
    const now = Date.parse('2026-11-21T00:00:00.000Z')
    for (const [table, days, unitMs] of [['usage_minutes', keptDays.usage_minutes, dayMs], ['usage_hours', keptDays.usage_hours, 7 * dayMs]] as const) {
      const cut = now - days * dayMs
      const begin = partitionOf(table, new Date(cut)).from.getTime()
      const moments = [begin - unitMs, begin - 1, begin, cut - 1, cut, now].filter((at, i, list) => list.indexOf(at) === i).sort((a, b) => a - b)
      const projectId = await addSums(database, sql, table, moments)
      await upkeep(database, now - 1).run()
      const before = await momentsOf(sql, table, projectId)
      t.ok(before.every(at => at >= begin - unitMs), 'a moment before')
      await upkeep(database, now).run()
      const after = await momentsOf(sql, table, projectId)
      t.strictSame(after, moments.filter(at => at >= begin), table)
      t.ok(moments.filter(at => at >= cut).every(at => after.includes(at)))
    }
    const old = [now - 40 * 365 * dayMs, now - 366 * dayMs, now]
    const projectId = await addSums(database, sql, 'usage_days', old)
    await upkeep(database, now + 100 * 365 * dayMs).run()
    t.strictSame(await momentsOf(sql, 'usage_days', projectId), old)
  })

  await t.test('callers are kept 7 days; lines go when nothing of them was lost, and stay otherwise', async t => {
    const { database, sql } = await start(t)
    const now = Date.parse('2026-11-21T10:00:00.000Z')
    const projectId = randomUUID()
    for (const hours of [0, 167, 168, 169, 1000]) await sql`INSERT INTO usage_callers (project_id, key_id, address, client, secret_id, hour, count, last_seen) VALUES (${projectId}, 'k', 'a', 'c', 's', ${iso(now - hours * hourMs)}, 1, ${iso(now)})`
    const lines = { whole: [5, 5, 5, 0], lost: [5, 5, 4, 0], open: [5, 4, 4, 0], tail: [5, 5, 5, 1] }
    for (const [boot, [admitted = 0, finished = 0, stored = 0, tail = 0]] of Object.entries(lines)) {
      for (const hours of [167, 168, 169]) await sql`INSERT INTO usage_lines (boot_id, project_id, hour, admitted, finished, stored, tail) VALUES (${boot}, ${projectId}, ${iso(now - hours * hourMs)}, ${admitted}, ${finished}, ${stored}, ${tail})`
    }
    await upkeep(database, now).run()
    t.strictSame((await sql`SELECT hour FROM usage_callers ORDER BY hour DESC`).map(({ hour }) => (now - (hour as Date).getTime()) / hourMs), [0, 167, 168])
    t.strictSame((await sql`SELECT boot_id, count(*)::int AS lines FROM usage_lines GROUP BY 1 ORDER BY 1`).map(({ boot_id: boot, lines }) => [boot, lines]), [['lost', 3], ['open', 3], ['tail', 3], ['whole', 2]])
  })

  await t.test('very many callers are forgotten some at a time, and none is waited for', async t => {
    const { url, database, sql } = await start(t)
    const now = Date.parse('2026-11-21T10:00:00.000Z')
    const old = iso(now - 8 * dayMs)
    await sql`INSERT INTO usage_callers SELECT ${randomUUID()}::uuid, 'k' || n, 'a', 'c', 's', ${old}::timestamptz, 1, ${old}::timestamptz FROM generate_series(1, 25000) n`
    const most: number[] = []
    const watched: Database = {
      ...database,
      run: async work => {
        const before = await callers()
        const answer = await database.run(work)
        most.push(before - await callers())
        return answer
      }
    }
    const callers = async (): Promise<number> => (await sql`SELECT count(*)::int AS callers FROM usage_callers`)[0]?.['callers']
    const holder = openAgain(t, url)
    await holder.transaction(async tx => {
      await tx.execute(statement`SELECT 1 FROM usage_callers WHERE key_id = 'k7' FOR UPDATE`)
      await upkeep(watched, now).run()
    })
    t.equal(await callers(), 1, 'one that somebody else is at is left')
    t.ok(Math.max(...most) <= 10_000, `at most ${Math.max(...most)} in one statement`)
    await upkeep(watched, now).run()
    t.equal(await callers(), 0)
  })

  await t.test('lines stay while a batch may still speak of them', async t => {
    const { database, sql } = await start(t)
    const now = Date.parse('2026-11-21T10:00:00.000Z')
    const [projectId, firstMs] = [randomUUID(), now - 10 * dayMs]
    const minute = Math.floor(firstMs / 60_000)
    await make(database, (['usage_minutes', 'usage_hours', 'usage_days'] as const).map(table => partitionOf(table, new Date(firstMs))))
    // key-service was away for ten days; a part of what waited is stored when it looks what is old enough to go.
    const tell = async (seq: number): Promise<void> => {
      const line = { projectId, hour: Math.floor(minute / 60), admitted: seq + 1, finished: seq + 1, unanswered: 0 }
      const batch = { ...batchOf([usageOf(projectId, 'k', { sums: [sumAt(firstMs, { admitted: 1 })] })]), bootId: 'boot', seq, atMs: firstMs, lines: [line] }
      await database.transaction(async tx => { await storeBatches(tx, [batch]) })
    }
    const linesLeft = async (): Promise<number[]> => (await sql`SELECT finished - stored AS lost FROM usage_lines`).map(({ lost }) => Number(lost))
    const looks = async (oldestMs: number | null): Promise<void> => { await createUsageUpkeep({ database, log: quiet, logRetentionDays: undefined, oldestBatchMs: async () => oldestMs, nowMs: () => now }).run() }
    await tell(0)
    for (const oldestMs of [firstMs, now - 8 * dayMs, 0]) {
      await looks(oldestMs)
      t.strictSame(await linesLeft(), [0])
    }
    await make(database, [partitionOf('usage_minutes', new Date(firstMs))])
    await tell(1)
    t.strictSame(await linesLeft(), [0], 'nothing is lost, and nothing looks like it')
    await looks(now - 6 * dayMs)
    t.strictSame(await linesLeft(), [])
  })

  await t.test('GX-33 the log goes by an explicit policy alone, whole days, and never a younger row', async t => {
    const { database, sql } = await start(t)
    const projectId = randomUUID()
    const now = Date.parse('2026-11-21T00:00:00.000Z')
    const cut = now - 30 * dayMs
    const moments = [cut - 400 * dayMs, cut - dayMs, cut - 1, cut, cut + 1, cut + dayMs, now]
    await storeLog(database, moments.map(at => rowAt(at, { projectId })))
    await upkeep(database, now + 4000 * dayMs).run()
    t.strictSame(await momentsOf(sql, 'request_log', projectId), moments, 'without a policy nothing, ever')
    await upkeep(database, now - 1, 30).run()
    t.strictSame(await momentsOf(sql, 'request_log', projectId), moments.filter(at => at >= cut - dayMs), 'a millisecond before the day is wholly older')
    await upkeep(database, now, 30).run()
    t.strictSame(await momentsOf(sql, 'request_log', projectId), moments.filter(at => at >= cut))
    await upkeep(database, now + dayMs - 1, 30).run()
    t.strictSame(await momentsOf(sql, 'request_log', projectId), moments.filter(at => at >= cut))
    await upkeep(database, now + dayMs, 30).run()
    t.strictSame(await momentsOf(sql, 'request_log', projectId), moments.filter(at => at >= cut + dayMs))
  })

  await t.test('whoever reads for long holds up one drop, not the rest of it and not those who write', async t => {
    const { url, database, sql } = await start(t)
    const now = Date.parse('2026-11-21T12:00:00.000Z')
    const old = now - 10 * dayMs
    const projectId = await addSums(database, sql, 'usage_minutes', [old])
    await storeLog(database, [rowAt(old, { projectId })])
    await sql`INSERT INTO usage_callers (project_id, key_id, address, client, secret_id, hour, count, last_seen) VALUES (${projectId}, 'k', 'a', 'c', 's', ${iso(old)}, 1, ${iso(old)})`
    const reader = tablesOf(t, url)
    await reader`BEGIN`
    await reader`SELECT count(*) FROM usage_minutes`
    await t.rejects(upkeep(database, now, 7).run(), { code: '55P03' } as unknown as Error)
    t.strictSame(await momentsOf(sql, 'usage_minutes', projectId), [old])
    t.strictSame([...await sql`SELECT (SELECT count(*)::int FROM usage_callers) AS callers, (SELECT count(*)::int FROM request_log) AS rows`], [{ callers: 0, rows: 0 }])
    await addSums(database, sql, 'usage_minutes', [old + 1])
    await reader`COMMIT`
    await upkeep(database, now, 7).run()
    t.strictSame(await momentsOf(sql, 'usage_minutes', projectId), [])

    await storeLog(database, [rowAt(old, { projectId })])
    const [day] = await database.run(async db => await findOldDays(db, 7, now))
    if (day === undefined) throw new Error('there is no old day')
    await reader`BEGIN`
    await reader`SELECT count(*) FROM request_log`
    await t.rejects(database.transaction(async tx => { await dropPartition(tx, day) }), { code: '55P03' } as unknown as Error)
    const dropped = dropDay(database, context, day, 7)
    await reader`COMMIT`
    await dropped
    t.strictSame(await momentsOf(sql, 'request_log', projectId), [])
  })

  await t.test('a partition that was dropped is made again when a batch comes late', async t => {
    const config = configFor(t, await house.database(), house.redis.url)
    const app = await startApp(t, config)
    await redisIsReady(app)
    const sql = tablesOf(t, config.databaseUrl)
    const projectId = (await app.call('POST', '/projects', { name: 'P' })).body.id as string
    const at = Date.now() - 20 * dayMs
    const send = async (): Promise<void> => { await sendBatch(app, { ...batchOf([usageOf(projectId, unknownKey, { sums: [sumAt(at, { admitted: 1 })] })]), rows: [rowAt(at, { projectId })] }) }
    await send()
    for (const table of ['usage_minutes', 'request_log'] as const) await app.parts.database.transaction(async tx => { await dropPartition(tx, partitionOf(table, new Date(at))) })
    t.equal((await sql`SELECT 1 FROM request_log`).length, 0)
    await send()
    t.equal((await sql`SELECT 1 FROM request_log`).length, 1)
    t.strictSame([...await sql`SELECT (SELECT sum(admitted)::int FROM usage_minutes WHERE key_id = '*') AS minutes, (SELECT sum(admitted)::int FROM usage_days WHERE key_id = '*') AS days`], [{ minutes: 1, days: 2 }])
  })

  await t.test('GX-33 the command: says what it would do, does it with --yes, day by day, audited', async t => {
    const { url, database, sql } = await start(t)
    const env = { DATABASE_URL: url, REDIS_URL: house.redis.url, KEYGATE_APIS: fileURLToPath(new URL('fixtures/apis.yaml', import.meta.url)), KEYGATE_PORT: '0', KEYGATE_PEPPER: 'a pepper for tests of 32 characters or more', LOG_LEVEL: 'silent' }
    async function cli (...args: string[]) {
      const [out, err] = [new PassThrough(), new PassThrough()]
      const texts = Promise.all([text(out), text(err)])
      const code = await runCommandLine([logDrop], ['log', 'drop', ...args], { env, out, err })
      out.end()
      err.end()
      const [said, remarked] = await texts
      return { code, out: said, err: remarked }
    }
    const projectId = randomUUID()
    const rows = async (): Promise<number[]> => await momentsOf(sql, 'request_log', projectId)
    const today = Math.floor(Date.now() / dayMs) * dayMs
    const moments = [today - 41 * dayMs, today - 30 * dayMs - 1, today - 30 * dayMs, today - 30 * dayMs + 1, today - dayMs, today]
    await storeLog(database, moments.map(at => rowAt(at, { projectId })))
    await sql`ANALYZE request_log`

    for (const args of [['--older-than', '30'], ['--older-than', '30', '--dry-run'], ['--older-than', '30', '--dry-run', '--yes']]) {
      const said = await cli(...args)
      t.match(said, { code: 0, out: /^ {2}[\d-]{10} {2}about 1 row, \d+ KiB\n {2}[\d-]{10} {2}about 1 row, \d+ KiB\nWould drop 2 days with about 2 rows, \d+ KiB\. Nothing was dropped\.\n$/ }, args.join(' '))
      t.equal(said.err, args.includes('--yes') ? '' : 'To do it, add --yes.\n')
      t.strictSame(await rows(), moments)
    }
    t.match(await cli('--older-than', '36500', '--yes'), { code: 0, out: 'No day of the log is wholly older than 36500 days.\n', err: '' })
    t.match(await cli('--older-than', '30', '--yes'), { code: 0, out: /\nDropped 2 days with about 2 rows, \d+ KiB\.\n$/, err: /^0 of 2 days[^]*2 of 2 days/ })
    t.strictSame(await rows(), moments.filter(at => at >= today - 30 * dayMs))
    t.match([...await sql`SELECT chain, actor_type, action, details FROM audit_events ORDER BY seq`], [today - 41 * dayMs, today - 31 * dayMs].map(from => ({
      chain: 'installation', actor_type: 'host', action: 'log.drop', details: { olderThanDays: 30, from: iso(from), until: iso(from + dayMs), rows: 1, bytes: Number }
    })))
    for (const args of [[], ['--older-than', '0'], ['--older-than', '1.5'], ['--older-than', '-1'], ['--older-than', '36501'], ['--older-than', 'x'], ['--older-than', '30', 'all']]) {
      t.match(await cli(...args), { code: 2, out: '', err: /log drop|older-than/ }, args.join(' '))
    }
    t.strictSame(await rows(), moments.filter(at => at >= today - 30 * dayMs))

    // Somebody reads the second of two days, and does not end.
    const [first, second] = [today - 29 * dayMs, today - 28 * dayMs]
    await storeLog(database, [first, second].map(at => rowAt(at, { projectId })))
    const reader = tablesOf(t, url)
    await reader`BEGIN`
    await reader`SELECT count(*) FROM ${reader(partitionOf('request_log', new Date(second)).name)}`
    const events = (await sql`SELECT 1 FROM audit_events`).length
    t.match(await cli('--older-than', '27', '--yes'), { code: 1, out: /^( {2}.+\n){3}$/, err: /^0 of 3 days\n[^]*\nSomebody reads the log for long, such as a backup: 2 of 3 days were dropped\. Run this again when that has ended\.\n$/ })
    t.strictSame(await rows(), [second, ...moments.slice(-2)])
    t.equal((await sql`SELECT 1 FROM audit_events`).length, events + 2, 'what was dropped stands in the trail, and no more')
    await reader`COMMIT`
    t.match(await cli('--older-than', '27', '--yes'), { code: 0, out: /\nDropped 1 day with about 1 row, \d+ KiB\.\n$/ })
    t.strictSame(await rows(), moments.slice(-2))
  })
})

/** Locks the tables in the order in which the consumer writes them. */
async function lockInOrder (tx: Executor): Promise<void> {
  for (const table of tables) await tx.execute(statement`LOCK TABLE ${statement.identifier(table)} IN ROW EXCLUSIVE MODE`)
}
