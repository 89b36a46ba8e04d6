import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { loadCatalogue } from '@keygate/api-catalog'
import postgres from 'postgres'
import { test, type Test } from 'tap'
import { describeScan, type Scan } from '../bench/plans.ts'
import { buildApp } from '../src/app.ts'
import { runCommandLine } from '../src/cli/run.ts'
import { migrate } from '../src/db/migrate.ts'
import { openParts } from '../src/parts.ts'
import { seed } from '../src/seed/command.ts'
import { seedKeys } from '../src/seed/seed-keys.ts'
import { seedUsage } from '../src/seed/seed-usage.ts'
import { chunksOf } from '../src/seed/usage-chunks.ts'
import { seedUsageCommand } from '../src/seed/usage-command.ts'
import { strandsOf, targetsOf, type Target } from '../src/seed/usage-profile.ts'
import { partitionOf, type Partitioned } from '../src/usage/partitions.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { configFor, startHouse, tokens, type House, type Sql } from './helper.ts'
import { recordingDatabase, scansFor } from './recording.ts'

const apisFile = fileURLToPath(new URL('fixtures/apis.yaml', import.meta.url))
const context = { actor: { type: 'host', id: 'command-line', name: 'command-line' }, requestId: 'usage-seed' } as const
const pepper = 'a pepper for tests of 32 characters or more'
const [hourMs, dayMs] = [3_600_000, 86_400_000]

const counts = ['admitted', 'limited', 'refused', 'upstream_errors', 'admitted_locally']

async function connect (t: Test, house: House): Promise<{ url: string, sql: Sql }> {
  const url = await house.database()
  await migrate(url)
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  t.teardown(async () => { await sql.end({ timeout: 1 }) })
  return { url, sql }
}

/** Rows that one side has and the other has not. */
async function differences (sql: Sql, left: string, right: string): Promise<number> {
  // Both are texts of this file.
  const [row] = await sql.unsafe<Array<{ count: string }>>(`SELECT count(*) FROM ((${left} EXCEPT ALL ${right}) UNION ALL (${right} EXCEPT ALL ${left})) d`)
  return Number(row?.count)
}

const sumsOf = (columns: string, table: string, where: string): string =>
  `SELECT ${columns}, ${counts.map(name => `sum(${name})::bigint AS ${name}`).join(', ')} FROM ${table} WHERE ${where} GROUP BY ${columns.replaceAll(/ AS \w+/g, '')}`

test('chunks are whole days, oldest first, as fine as is kept', t => {
  const nowMs = Date.parse('2026-11-21T10:20:30Z')
  const chunks = chunksOf({ nowMs, days: 365, strands: 11_000 })
  t.equal(chunks.reduce((sum, { days }) => sum + days, 0), 365)
  t.equal(chunks[0]?.from, Date.parse('2025-11-22T00:00:00Z'))
  t.equal(chunks.at(-1)?.until, Date.parse('2026-11-22T00:00:00Z'))
  t.ok(chunks.every(({ from }, i) => i === 0 || from === chunks[i - 1]?.until), 'they follow each other')
  const since = (finest: string) => new Date(chunks.find(chunk => chunk.finest === finest)?.from ?? 0).toISOString().slice(0, 10)
  t.same([since('day'), since('hour'), since('minute')], ['2025-11-22', '2026-08-23', '2026-11-14'])
  t.same(chunksOf({ nowMs, days: 1, strands: 1 }).map(({ days, finest }) => ({ days, finest })), [{ days: 1, finest: 'minute' }])
  t.end()
})

test('a few keys are hot, some are busy, and the same seed gives the same', t => {
  const targets: Target[] = ['a', 'b', 'c'].map(operation => ({ api: 'forms', operation, method: 'GET', scope: operation }))
  const all = (number: number) => Array.from({ length: 2000 }, (_, place) => strandsOf({ place, keyId: `key_${place}`, secretId: '' }, targets, number))
  const keys = all(1)
  t.equal(keys.filter(([strand]) => (strand?.minutes ?? 0) >= 0.9).length, 2)
  t.equal(keys.filter(([strand]) => strand?.minutes === 0.2).length, 40)
  t.equal(keys.filter(strands => strands.length === 0).length, 0, 'each is used')
  t.ok(keys.every(strands => new Set(strands.map(({ operation }) => operation)).size === strands.length), 'for different things')
  const same = (other: unknown) => JSON.stringify(other) === JSON.stringify(keys)
  t.ok(same(all(1)), 'the same')
  t.notOk(same(all(2)), 'another seed gives others')
  t.end()
})

test('seed usage: as gateways would have counted', async t => {
  const house = await startHouse(t)
  const { url, sql } = await connect(t, house)
  const env = { KEYGATE_APIS: apisFile, KEYGATE_PEPPER: pepper, DATABASE_URL: url, REDIS_URL: house.redis.url }
  const call = async (...args: string[]) => {
    const [out, err] = [new PassThrough(), new PassThrough()]
    const texts = Promise.all([text(out), text(err)])
    const code = await runCommandLine([seedUsageCommand, seed], ['seed', 'usage', ...args], { env, out, err })
    out.end()
    err.end()
    const [outText, errText] = await texts
    return { code, out: outText, err: errText }
  }
  const done = await call('--keys', '20', '--days', '100')
  t.match(done, { code: 0, out: /^20 new keys in the project [0-9a-f-]{36}\n\d+ rows of usage in the project [0-9a-f-]{36}: [\d.]+ s, \d+ rows\/s\n$/, err: /100 of 100 days of usage/ })
  const projectId = /project ([0-9a-f-]{36})/.exec(done.out)?.[1] ?? ''
  // A hot key is used in every hour, so there is a row of today; which day that is may change while this runs.
  const [newest] = await sql<Array<{ at: Date }>>`SELECT max(at) AS at FROM usage_days`
  const today = newest?.at.getTime() ?? NaN

  await t.test('a row for each key and day, hours of 90 days, minutes of 7', async t => {
    const days = await sql<Array<{ keys: number, at: Date }>>`SELECT at, count(DISTINCT key_id)::int AS keys FROM usage_days WHERE project_id = ${projectId} AND key_id <> '*' GROUP BY at ORDER BY at`
    t.equal(days.length, 100)
    t.equal(days[0]?.at.getTime(), today - 99 * dayMs)
    t.ok(days.slice(0, -1).every(({ keys }) => keys === 20), 'each key on each day; today has only begun')
    const first = async (table: string) => (await sql<Array<{ at: Date }>>`SELECT min(at) AS at FROM ${sql(table)}`)[0]?.at.getTime()
    t.equal(await first('usage_minutes'), today - 7 * dayMs)
    t.equal(await first('usage_hours'), today - 90 * dayMs)
    const [late] = await sql<Array<{ count: number }>>`SELECT count(*)::int AS count FROM usage_minutes WHERE at > now()`
    t.equal(late?.count, 0, 'nothing of the future')
  })

  await t.test('the project\'s rows are the sums of its keys\'', async t => {
    for (const table of ['usage_minutes', 'usage_hours', 'usage_days']) {
      const columns = 'at, api, operation, scope'
      t.equal(await differences(sql, sumsOf(columns, table, 'key_id = \'*\''), sumsOf(columns, table, 'key_id <> \'*\'')), 0, table)
    }
  })

  await t.test('hours are the sums of minutes, and days of hours', async t => {
    for (const [coarse, fine, unit] of [['usage_hours', 'usage_minutes', 'hour'], ['usage_days', 'usage_hours', 'day']] as const) {
      const since = `at >= (SELECT min(at) FROM ${fine})`
      const names = 'key_id, api, operation, scope'
      t.equal(await differences(sql, sumsOf(`at AS at, ${names}`, coarse, since), sumsOf(`date_trunc('${unit}', at, 'UTC') AS at, ${names}`, fine, 'true')), 0, `${coarse} of ${fine}`)
    }
    const [odd] = await sql<Array<{ count: number }>>`SELECT count(*)::int AS count FROM usage_days WHERE admitted < 1 OR upstream_errors > admitted OR admitted_locally > admitted OR limited < 0 OR refused < 0`
    t.equal(odd?.count, 0)
    const [{ kinds } = { kinds: [] }] = await sql<Array<{ kinds: boolean[] }>>`SELECT ARRAY[sum(limited) > 0, sum(refused) > 0, sum(upstream_errors) > 0, sum(admitted_locally) > 0] AS kinds FROM usage_days`
    t.same(kinds, [true, true, true, true], 'everything occurs')
  })

  await t.test('each row lies in the partition of its time', async t => {
    for (const table of ['usage_minutes', 'usage_hours', 'usage_days', 'request_log'] as Partitioned[]) {
      const found = await sql<Array<{ name: string, day: Date }>>`SELECT DISTINCT tableoid::regclass::text AS name, date_trunc('day', at, 'UTC') AS day FROM ${sql(table)}`
      t.ok(found.length > 0)
      t.same(found.filter(({ name, day }) => name !== partitionOf(table, day).name), [], table)
    }
  })

  await t.test('callers and logged requests are those of the rows', async t => {
    const callers = 'SELECT key_id, hour AS at, sum(count)::bigint AS requests FROM usage_callers GROUP BY 1, 2'
    const hours = 'SELECT key_id, at, sum(admitted + limited + refused)::bigint AS requests FROM usage_hours WHERE key_id IN (SELECT key_id FROM usage_callers) AND at >= (SELECT min(at) FROM usage_minutes) GROUP BY 1, 2'
    t.equal(await differences(sql, callers, hours), 0, 'who calls has made the requests')
    const [most] = await sql<Array<{ most: number, keys: number }>>`SELECT max(callers)::int AS most, count(*)::int AS keys FROM (SELECT count(DISTINCT (address, client)) AS callers FROM usage_callers GROUP BY key_id) c`
    t.ok(most !== undefined && most.most <= 50 && most.most > 4 && most.keys > 2 && most.keys < 20, JSON.stringify(most))
    const outcomes = await sql<Array<{ outcome: string }>>`SELECT DISTINCT outcome FROM request_log ORDER BY 1`
    t.same(outcomes.map(({ outcome }) => outcome), ['admitted', 'limited', 'refused', 'upstream_error'])
    const [strange] = await sql<Array<{ count: number }>>`
      SELECT count(*)::int AS count FROM request_log l WHERE NOT EXISTS (
        SELECT 1 FROM usage_minutes u WHERE (u.project_id, u.key_id, u.at, u.operation) = (l.project_id, l.key_id, date_trunc('minute', l.at, 'UTC'), l.operation))`
    t.equal(strange?.count, 0, 'what is logged is counted')
    const [orphans] = await sql<Array<{ count: number }>>`SELECT count(*)::int AS count FROM usage_callers c WHERE NOT EXISTS (SELECT 1 FROM secrets s WHERE (s.project_id, s.key_id, s.id) = (c.project_id, c.key_id, c.secret_id))`
    t.equal(orphans?.count, 0, 'with the keys\' own secrets')
  })

  await t.test('weekdays are busier than weekends', async t => {
    const [share] = await sql<Array<{ share: number }>>`
      SELECT (avg(admitted) FILTER (WHERE extract(isodow FROM at AT TIME ZONE 'UTC') < 6) / avg(admitted) FILTER (WHERE extract(isodow FROM at AT TIME ZONE 'UTC') > 5))::float8 AS share
      FROM (SELECT at, sum(admitted) AS admitted FROM usage_days WHERE key_id = '*' AND at < ${new Date(today)} GROUP BY at) d`
    t.ok((share?.share ?? 0) > 1.3, String(share?.share))
  })

  await t.test('a second time is refused, and nothing is added', async t => {
    const sizes = async () => await sql`SELECT (SELECT count(*) FROM usage_days) AS days, (SELECT count(*) FROM keys) AS keys, (SELECT sum(admitted) FROM usage_days) AS admitted, (SELECT count(*) FROM audit_events) AS events`
    const had = await sizes()
    t.match(await call('--project', projectId, '--keys', '40'), { code: 1, out: '', err: `The project ${projectId} has usage already, and more would only be added to it. Leave --project out, and a new one is made, or name one without usage.\n` })
    t.same(await sizes(), had)
    t.match(await call('--project', '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10'), { code: 1, err: /There is no project 5f1c2c1e/ })
    t.match(await call('--days', 'all'), { code: 2, err: /--days must be a whole number from 1 to 3650, but is "all"/ })
    t.match(await sql`SELECT details FROM audit_events WHERE project_id = ${projectId} ORDER BY seq DESC LIMIT 1`, [{ details: { usageDays: 100, keys: 20, seed: 1 } }], 'the trail says that these are no real numbers')
  })
})

test('the same seed, time and keys give the same rows', async t => {
  const house = await startHouse(t)
  const { url, sql } = await connect(t, house)
  const database = recordingDatabase(url)
  t.teardown(async () => { await database.close() })
  const targets = targetsOf(await loadCatalogue(apisFile))
  const nowMs = Date.parse('2026-11-21T10:20:30Z')
  const rowsWith = async (seed: number) => {
    const { projectId } = await seedKeys({ database, peppers: createPeppers({ current: { id: '1', value: pepper }, previous: [] }), prefix: 'kg', scopes: ['submissions'], context }, { keys: 5, projectId: undefined, seed: 1, batch: 5 })
    await seedUsage({ database, targets, context }, { projectId, days: 2, seed, nowMs })
    const sums = await sql`
      SELECT coalesce(substring(k.name FROM '[0-9]+$'), '*') AS place, u.at, operation, admitted, limited, refused, upstream_errors, admitted_locally
      FROM (SELECT * FROM usage_hours UNION ALL SELECT * FROM usage_days) u LEFT JOIN keys k ON k.project_id = u.project_id AND k.id = u.key_id WHERE u.project_id = ${projectId} ORDER BY 1, 2, 3, 4`
    const log = await sql`SELECT at, operation, outcome, ms, bytes, address FROM request_log WHERE project_id = ${projectId} ORDER BY at, operation, outcome, ms, bytes`
    return JSON.stringify([sums, log])
  }
  const first = await rowsWith(1)
  t.ok(first.length > 10_000)
  t.ok(await rowsWith(1) === first, 'the same')
  t.notOk(await rowsWith(2) === first, 'another seed gives others')
})

/** A year of a project, and some of others beside it. */
async function startYear (t: Test) {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const database = recordingDatabase(config.databaseUrl)
  const { app } = await buildApp(config, async log => {
    const parts = await openParts(config, log)
    t.teardown(async () => { await parts.database.close() })
    return { ...parts, database }
  })
  t.teardown(async () => { await app.close() })
  await app.ready()
  const admin = postgres(config.databaseUrl, { max: 1, onnotice: () => {} })
  t.teardown(async () => { await admin.end({ timeout: 1 }) })
  const targets = targetsOf(await loadCatalogue(apisFile))
  const parts = { database, peppers: createPeppers(config.peppers), prefix: config.keyPrefix, scopes: ['submissions', 'files'], context }
  const fill = async (keys: number, days: number): Promise<string> => {
    const { projectId } = await seedKeys(parts, { keys, projectId: undefined, seed: 1, batch: 1000 })
    await seedUsage({ database, targets, context }, { projectId, days, seed: 1, nowMs: Date.now() })
    return projectId
  }
  const nowMs = Date.now()
  const projectId = await fill(150, 365)
  for (let i = 0; i < 2; i++) await fill(20, 2)
  await admin`ANALYZE`
  // What has only begun may lie in the answer as a whole, and is rightly read so: which these are hangs on the hour and the day of the week.
  const begun = (['usage_minutes', 'usage_hours', 'request_log'] as const).map(table => partitionOf(table, new Date(nowMs)).name)
  const rows = await admin<Array<{ name: string }>>`SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND reltuples > 2000 AND relname <> ALL(${begun})`
  const [hot] = await admin<Array<{ key: string }>>`SELECT key_id AS key FROM usage_hours WHERE project_id = ${projectId} AND key_id <> '*' GROUP BY key_id ORDER BY count(*) DESC LIMIT 1`
  return { app, admin, database, large: new Set(rows.map(({ name }) => name)), projectId, keyId: hot?.key ?? '', nowMs }
}

test('the dashboard\'s questions read few partitions, by their indexes', async t => {
  const { app, admin, database, large, projectId, keyId, nowMs } = await startYear(t)
  t.ok(['usage_minutes', 'usage_hours', 'usage_days', 'request_log'].every(table => [...large].some(name => name.startsWith(`${table}_`))), 'each table is large enough for its plan to matter')

  async function ask (url: string): Promise<Scan[]> {
    database.statements.length = 0
    const answer = await app.inject({ method: 'GET', url: `/v1${url}`, headers: { authorization: `Bearer ${tokens.all}` } })
    t.equal(answer.statusCode, 200, `${url}: ${answer.statusCode === 200 ? '' : answer.body}`)
    return await scansFor(admin, database.statements.splice(0).map(statement => ({ ...statement, isPrepared: false })))
  }

  const project = `/projects/${projectId}`
  const key = `${project}/keys/${keyId}`
  const during = (fromMs: number, untilMs: number): string => `from=${new Date(fromMs).toISOString()}&until=${new Date(untilMs).toISOString()}`
  /** Of partitions that are over, so that it is always the same part of them. */
  const [yesterday, lastWeek] = [partitionOf('usage_minutes', new Date(nowMs - dayMs)), partitionOf('usage_hours', new Date(nowMs - 7 * dayMs))]
  const anHour = `interval=minute&${during(yesterday.from.getTime() + 10 * hourMs, yesterday.from.getTime() + 11 * hourMs)}`
  const someHours = `interval=minute&${during(yesterday.from.getTime() + 8 * hourMs, yesterday.from.getTime() + 13 * hourMs)}&limit=1500`
  const aDay = during(lastWeek.from.getTime() + 2 * dayMs, lastWeek.from.getTime() + 3 * dayMs)
  const year = `interval=day&${during(nowMs - 364 * dayMs, nowMs)}`
  // In the middle of the year, so that of each calendar year that they lie in there is half a year or more.
  const thirtyDays = `interval=day&${during(nowMs - 200 * dayMs, nowMs - 170 * dayMs)}`
  for (const [what, url, table, most, ofNow] of [
    ['project by minute, an hour', `${project}/usage?${anHour}`, 'usage_minutes', 1],
    ['project by minute, some hours', `${project}/usage?${someHours}`, 'usage_minutes', 1],
    ['project by hour, a day', `${project}/usage?${aDay}`, 'usage_hours', 1],
    ['project by day, a year', `${project}/usage?${year}`, 'usage_days', 2],
    ['project by scope', `${project}/usage?groupBy=scope&${aDay}`, 'usage_hours', 1],
    ['project by operation', `${project}/usage?groupBy=operation&${aDay}`, 'usage_hours', 1],
    ['key by minute, an hour', `${key}/usage?${anHour}`, 'usage_minutes', 1],
    ['key by minute, some hours', `${key}/usage?${someHours}`, 'usage_minutes', 1],
    ['key by hour, a day', `${key}/usage?${aDay}`, 'usage_hours', 1],
    ['key by day, a year', `${key}/usage?${year}`, 'usage_days', 2],
    ['key by operation', `${key}/usage?groupBy=operation&${aDay}`, 'usage_hours', 1],
    ['top keys of a day', `${project}/usage/keys?${aDay}`, 'usage_hours', 1],
    ['top keys of 30 days', `${project}/usage/keys?${thirtyDays}`, 'usage_days', 2],
    ['callers of a key', `${key}/callers`, 'usage_callers', 1],
    ['log of a key', `${key}/log`, 'request_log', 9],
    ['log of the project', `${project}/log`, 'request_log', 9],
    ['log of the project, a day', `${project}/log?${during(yesterday.from.getTime(), yesterday.until.getTime())}`, 'request_log', 1],
    // Always of now: how much of a partition that is may be anything. test/indexes.test.ts shows their indexes.
    ['page of keys with requests24h', `${project}/keys?limit=100`, 'usage_hours', 3, 'of now'],
    ['attention', `${project}/keys/attention`, 'usage_minutes', 3, 'of now']
  ] as Array<[string, string, string, number, string?]>) {
    await t.test(`K26 ${what}`, async t => {
      const scans = await ask(url)
      const read = scans.filter(scan => scan.table.startsWith(table))
      t.same(scans.filter(scan => scan.node === 'Seq Scan' && large.has(scan.table)).map(describeScan), [], 'nothing large is read as a whole')
      t.ok(ofNow !== undefined || read.some(scan => scan.index !== undefined), read.map(describeScan).join(', '))
      const partitions = new Set(read.map(scan => scan.table))
      t.ok(partitions.size <= most, `partitions: ${[...partitions].join(', ')}`)
    })
  }
})
