import { once } from 'node:events'
import { PassThrough, type Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { digestSecret } from '@keygate/api-key'
import { sql as statement } from 'drizzle-orm'
import fc from 'fast-check'
import { test } from 'tap'
import { describeScan } from '../bench/plans.ts'
import { openDatabase } from '../src/db/database.ts'
import { migrate } from '../src/db/migrate.ts'
import { csvLine } from '../src/download/csv.ts'
import { downloadHeaders, toReadable } from '../src/download/download.ts'
import { listLog } from '../src/request-log/queries.ts'
import { partitionOf } from '../src/usage/partitions.ts'
import { storeBatches } from '../src/usage/store.ts'
import { createUsageUpkeep } from '../src/usage/upkeep.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens, type Answer } from './helper.ts'
import { rowAt, sendBatch, storeLog, unknownKey } from './log-rows.ts'
import { waiterFor } from './lock-watch.ts'
import { tablesOf } from './people-helper.ts'
import { recordingDatabase, scansFor } from './recording.ts'
import { batchOf, callerAt, sumAt, usageOf } from './usage-batches.ts'

const dayMs = 86_400_000
const iso = (ms: number): string => new Date(ms).toISOString()

/** What a table program would read: RFC 4180. */
function readCsv (csv: string): string[][] {
  const rows: string[][] = [[]]
  const fields = /("(?:[^"]|"")*"|[^,\r\n"]*)(,|\r\n)/y
  while (fields.lastIndex < csv.length) {
    const at = fields.lastIndex
    const [, field = '', end] = fields.exec(csv) ?? []
    if (end === undefined) throw new Error(`no CSV at ${at}: ${JSON.stringify(csv.slice(at, at + 50))}`)
    rows.at(-1)?.push(field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field)
    if (end === '\r\n') rows.push([])
  }
  return rows.slice(0, -1)
}

test('rows as CSV', async t => {
  await t.test('what comes in comes out, and none is a formula', t => {
    const hostile = fc.constantFrom('=1+1', '@SUM(A1)', '+1', '-1', '\t=1', '\r=1', '\n', ' =cmd|\' /C calc\'!A0', '＝1', '"', ',', 'a\r\nb', '', '\'', 'x"y,z')
    const cell = fc.oneof(hostile, fc.string({ unit: 'binary' }), fc.integer(), fc.constant(null))
    fc.assert(fc.property(fc.array(cell, { minLength: 2, maxLength: 5 }), cells => {
      const [fields = [], ...others] = readCsv(csvLine(cells))
      return others.length === 0 && fields.length === cells.length && cells.every((given, i) => {
        const field = fields[i] as string
        if (typeof given !== 'string') return field === (given === null ? '' : String(given))
        return (field === given || field === `'${given}`) && !/^\s*[=+\-@＝＋－＠]|^[\t\r\n]/.test(field)
      })
    }), { numRuns: 100 })
    t.equal(csvLine([-5, '-5', null, 'plain']), '-5,\'-5,,plain\r\n', 'our own numbers stay numbers')
    t.end()
  })

  await t.test('rows are read as fast as the client takes them, and no longer than it is there', async t => {
    const read = { rows: 0, isOver: false }
    async function * rows (): AsyncGenerator<string> {
      try {
        for (;;) {
          read.rows++
          yield 'x'.repeat(1000)
        }
      } finally {
        read.isOver = true
      }
    }
    const body = await toReadable({ format: 'ndjson', columns: [{ name: 'x', valueOf: row => row }], rows: rows() })
    t.ok(read.rows < 100, 'before anybody reads: one piece')
    const slow = new PassThrough({ highWaterMark: 1000 })
    body.pipe(slow)
    for (let i = 0; i < 50; i++) await delay(0)
    t.ok(read.rows < 1000, `${read.rows} rows, while nobody takes them`)
    body.destroy()
    await once(body, 'close')
    while (!read.isOver) await delay(0)
    t.pass('the generator was returned')
  })

  await t.test('a fault of the first rows is thrown, a later one breaks the stream', async t => {
    async function * failing (after: number): AsyncGenerator<number> {
      for (let i = 0; i < after; i++) yield i
      throw new Error('away')
    }
    const read = async (after: number): Promise<Readable> => await toReadable({ format: 'csv', columns: [{ name: 'n', valueOf: (row: number) => row }], rows: failing(after) })
    await t.rejects(read(10), { message: 'away' })
    await t.rejects(text(await read(50_000)), { message: 'away' })
  })

  t.throws(() => downloadHeaders({ name: 'a"b', format: 'csv' }))
})

test('the request log', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const app = await startApp(t, config)
  await redisIsReady(app)
  const { call, parts: { database } } = app
  const sql = tablesOf(t, config.databaseUrl)

  const newProject = async (): Promise<string> => (await call('POST', '/projects', { name: 'P' })).body.id
  const newKey = async (projectId: string, settings: object = {}): Promise<{ id: string, secret: string }> => (await call('POST', `/projects/${projectId}/keys`, { name: 'K', scopes: ['submissions'], ...settings })).body
  const idsOf = ({ body }: Answer): string[] => body.data.map(({ requestId }: { requestId: string }) => requestId)
  const now = Date.now()

  await t.test('K22 rows that are there stay when logging ends, and the key still works', async t => {
    const projectId = await newProject()
    const { id: keyId, secret } = await newKey(projectId, { logging: { scopes: { submissions: 'forever' } } })
    const at = now - 2 * dayMs
    await sendBatch(app, { ...batchOf([]), rows: [rowAt(at, { projectId, keyId, requestId: 'kept' })] })
    const log = `/projects/${projectId}/keys/${keyId}/log`
    const before = await call('GET', log)
    t.strictSame(before.body, {
      data: [{
        at: iso(at),
        requestId: 'kept',
        projectId,
        keyId,
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
        replica: 'test'
      }],
      nextCursor: null
    })
    t.match(await call('PATCH', `/projects/${projectId}/keys/${keyId}`, { logging: { scopes: { submissions: null } } }), { status: 200, body: { logging: { all: null, scopes: {} } } })
    await createUsageUpkeep({ database, log: app.app.log, logRetentionDays: undefined, nowMs: () => now + 5000 * dayMs }).run()
    t.strictSame((await call('GET', log)).body, before.body, 'after many years too')
    t.match(await call('POST', '/verifications', { digest: digestSecret(secret) }), { body: { outcome: 'found', record: { logging: { all: null, scopes: {} } } } })
    t.equal((await call('DELETE', `/projects/${projectId}/keys/${keyId}`)).status, 204)
    t.strictSame((await call('GET', log)).body, before.body, 'also of a key that was deleted')
    t.strictSame(idsOf(await call('GET', `/projects/${projectId}/log?keyId=${keyId}`)), ['kept'])
  })

  await t.test('newest first, by pages that neither repeat nor leave out a row, also within one millisecond', async t => {
    const projectId = await newProject()
    const other = await newProject()
    const [{ id: keyId }, { id: second }] = [await newKey(projectId), await newKey(projectId)]
    const moments = Array.from({ length: 25 }, (_, i) => now - dayMs * (i % 3) - Math.floor(i / 6))
    await storeLog(database, moments.map((at, i) => rowAt(at, { projectId, keyId: i % 2 === 0 ? keyId : second, requestId: `r${i}` })))
    await storeLog(database, [rowAt(now, { projectId: other, keyId, requestId: 'of another project' })])
    for (const [path, count] of [[`/projects/${projectId}/log`, 25], [`/projects/${projectId}/keys/${keyId}/log`, 13]] as const) {
      const rows: Array<{ at: string, requestId: string }> = []
      for (let cursor = ''; cursor !== 'null';) {
        const { status, body } = await call('GET', `${path}?limit=4${cursor === '' ? '' : `&cursor=${cursor}`}`)
        t.equal(status, 200)
        rows.push(...body.data)
        cursor = String(body.nextCursor)
        // What comes meanwhile shifts nothing.
        await storeLog(database, [rowAt(now + 1000, { projectId, keyId, requestId: 'younger' })])
      }
      t.equal(new Set(rows.map(({ requestId }) => requestId)).size, count)
      t.equal(rows.length, count)
      t.strictSame(rows.map(({ at }) => at), rows.map(({ at }) => at).sort().reverse())
      await sql`DELETE FROM request_log WHERE request_id = 'younger'`
    }
  })

  await t.test('each filter', async t => {
    const projectId = await newProject()
    const { id: keyId } = await newKey(projectId)
    const at = now - 1000
    await storeLog(database, [
      rowAt(at, { projectId, keyId, requestId: 'a' }),
      rowAt(at + 1, { projectId, keyId, requestId: 'b', outcome: 'limited', status: 429, code: 'rate_limited' }),
      rowAt(at + 2, { projectId, keyId, requestId: 'c', outcome: 'refused', status: 403, code: 'scope_missing', scope: '', secretId: 'sec_2' }),
      rowAt(at + 3, { projectId, requestId: 'd', outcome: 'upstream_error', status: 502, api: 'files', operation: 'GET /files/{id}', address: '2001:db8::1' }),
      rowAt(at + 4, { projectId, requestId: 'e', outcome: 'upstream_error', status: 500 })
    ])
    const of = `/projects/${projectId}/log`
    for (const [query, expected] of [
      ['', 'edcba'], ['outcome=limited', 'b'], ['outcome=upstream_error', 'ed'], ['status=502', 'd'], ['status=5xx', 'ed'], ['status=4xx', 'cb'], ['status=404', ''], ['code=scope_missing', 'c'],
      ['operation=GET+%2Ffiles%2F%7Bid%7D', 'd'], ['api=files', 'd'], ['scope=submissions', 'edba'], ['scope=', 'c'], ['secretId=sec_2', 'c'], ['requestId=a', 'a'], ['address=2001:db8::1', 'd'],
      [`keyId=${keyId}`, 'cba'], [`keyId=${unknownKey}`, 'ed'], [`from=${iso(at + 2)}`, 'edc'], [`until=${iso(at + 2)}`, 'ba'], [`from=${iso(at + 1)}&until=${iso(at + 3)}`, 'cb'],
      ['outcome=refused&status=4xx&api=forms', 'c'], ['client=%25', undefined], ['operation=%25', '']
    ] as const) {
      const answer = await call('GET', `${of}?${query}`)
      if (expected === undefined) t.equal(answer.status, 400, query)
      else t.equal(idsOf(answer).join(''), expected, query)
    }
    t.equal(idsOf(await call('GET', `/projects/${projectId}/keys/${keyId}/log?status=4xx`)).join(''), 'cb')
    for (const [query, status, pointer] of [
      ['status=6', 422, '/status'], ['status=0xx', 422, '/status'], ['status=5x', 422, '/status'], ['outcome=lost', 422, '/outcome'], ['code=No', 422, '/code'], ['keyId=x', 422, '/keyId'], ['from=yesterday', 422, '/from'],
      ['until=2026-11-20T10:00:60Z', 422, '/until'], [`from=${iso(at)}&until=${iso(at)}`, 422, '/from'], [`from=${iso(at)}&until=${iso(at - 1)}`, 422, '/from'], ['from=2026-11-20T01:00:00%2B02:00&until=2026-11-19T23:00:00Z', 422, '/from'], ['scope=%00', 422, '/scope'], ['limit=0', 422, '/limit'], ['cursor=x', 400, '/cursor'], ['format=csv', 400, '/format']
    ] as const) t.match(await call('GET', `${of}?${query}`), { status, body: { errors: [{ pointer }] } }, query)
    const [audit] = (await call('GET', '/audit-events?limit=1')).body.data
    t.ok(audit)
    t.match(await call('GET', `${of}?cursor=${(await call('GET', '/audit-events?limit=1')).body.nextCursor}`), { status: 400, body: { code: 'invalid_cursor' } }, 'a cursor of another list')
  })

  await t.test('of somebody else it is not there; of a deleted project neither', async t => {
    const [projectId, other] = [await newProject(), await newProject()]
    const { id: keyId } = await newKey(projectId)
    await storeLog(database, [rowAt(now, { projectId, keyId })])
    for (const end of ['', '/export']) {
      t.match(await call('GET', `/projects/${other}/keys/${keyId}/log${end}`), { status: 404, body: { code: 'key_not_found' } })
      t.match(await call('GET', `/projects/${projectId}/log${end}`, undefined, tokens.bound), { status: 404, body: { code: 'project_not_found' } })
      t.match(await call('GET', `/projects/${projectId}/log${end}`, undefined, tokens.reader), { status: 403, body: { code: 'forbidden' } })
    }
    t.strictSame(idsOf(await call('GET', `/projects/${other}/log?keyId=${keyId}`)), [])
    t.equal((await call('DELETE', `/projects/${projectId}`)).status, 204)
    for (const end of ['', '/export']) {
      t.match(await call('GET', `/projects/${projectId}/log${end}`), { status: 404, body: { code: 'project_not_found' } })
      t.match(await call('GET', `/projects/${projectId}/keys/${keyId}/log${end}`), { status: 404, body: { code: 'key_not_found' } })
    }
  })

  await t.test('all rows as a file: more than a page, of several days, NDJSON and CSV alike', async t => {
    const projectId = await newProject()
    const { id: keyId } = await newKey(projectId)
    await storeLog(database, [rowAt(now, { projectId, keyId, requestId: 'first', client: '=cmd|', operation: 'GET /a,"b"' })])
    await storeLog(database, Array.from({ length: 3 }, (_, i) => rowAt(now - i * dayMs, { projectId: unknownProject, requestId: 'makes the days' })))
    await sql`
      INSERT INTO request_log (at, project_id, key_id, secret_id, request_id, api, operation, method, scope, outcome, status, ms, bytes, address, client, replica)
      SELECT ${iso(now - 1)}::timestamptz - make_interval(days => n % 3), ${projectId}, ${keyId}, 's', 'r' || n, 'forms', 'o', 'GET', '', 'admitted', 200, 1, 1, 'a', 'c', 'r' FROM generate_series(1, 3500) n`
    const log = `/projects/${projectId}/log/export`
    const inject = async (url: string, method: 'GET' | 'HEAD' = 'GET') => await app.app.inject({ method, url: `/v1${url}`, headers: { authorization: `Bearer ${tokens.all}` } })

    const ndjson = await inject(log)
    t.match(ndjson, { statusCode: 200, headers: { 'content-type': 'application/x-ndjson; charset=utf-8', 'content-disposition': `attachment; filename="keygate-log-${projectId}.ndjson"`, 'cache-control': 'no-store' } })
    const rows = ndjson.body.trimEnd().split('\n').map(line => JSON.parse(line) as Record<string, string | number | null>)
    t.equal(rows.length, 3501)
    t.equal(new Set(rows.map(({ requestId }) => requestId)).size, 3501)
    t.strictSame(rows.map(({ at }) => at), rows.map(({ at }) => at).sort().reverse())
    t.strictSame(rows[0], (await call('GET', `/projects/${projectId}/log?limit=1`)).body.data[0], 'each as the list shows it')

    const csv = await inject(`/projects/${projectId}/keys/${keyId}/log/export?format=csv`)
    t.match(csv, { statusCode: 200, headers: { 'content-type': 'text/csv; charset=utf-8; header=present', 'content-disposition': `attachment; filename="keygate-log-${keyId}.csv"` } })
    const [head = [], ...lines] = readCsv(csv.body)
    t.strictSame(head, Object.keys(rows[0] ?? {}))
    t.strictSame(lines.slice(1), rows.slice(1).map(row => head.map(name => row[name] === null ? '' : String(row[name]))))
    t.equal(lines[0]?.[head.indexOf('client')], '\'=cmd|')
    t.equal(lines[0]?.[head.indexOf('operation')], 'GET /a,"b"')

    t.equal((await inject(`${log}?requestId=r7`)).body.trimEnd().split('\n').length, 1, 'with filters')
    t.equal((await inject(`${log}?status=404`)).body, '', 'nothing at all')
    t.match(await inject(log, 'HEAD'), { statusCode: 200, body: '', headers: { 'content-type': 'application/x-ndjson; charset=utf-8' } })
    t.match(await call('GET', `${log}?format=xml`), { status: 422, body: { errors: [{ pointer: '/format' }] } })
    t.match(await call('GET', `${log}?from=2026-11-20T10:00:60Z`), { status: 422, body: { errors: [{ pointer: '/from' }] } })
    t.match(await call('GET', `${log}?from=${iso(now)}&until=${iso(now)}`), { status: 422, body: { errors: [{ pointer: '/from' }] } })
    t.match(await call('GET', `${log}?limit=5`), { status: 400 })
  })

  await t.test('what was written down of callers goes with their project; sums stay', async t => {
    const [projectId, other] = [await newProject(), await newProject()]
    const rows = Array.from({ length: 6000 }, (_, i) => rowAt(now - (i % 3) * dayMs, { projectId, requestId: `r${i}` }))
    const usage = (of: string) => [usageOf(of, unknownKey, { callers: [callerAt(now, 's', '192.0.2.1'), callerAt(now, 's', '192.0.2.2')] })]
    await storeLog(database, rows, usage(projectId))
    await storeLog(database, [rowAt(now, { projectId: other })], usage(other))
    await sendBatch(app, batchOf([usageOf(projectId, unknownKey, { sums: [sumAt(now, { admitted: 3 })] })]))
    const left = async (of: string) => {
      const [row] = await sql`SELECT (SELECT count(*)::int FROM request_log WHERE project_id = ${of}) AS rows, (SELECT count(*)::int FROM usage_callers WHERE project_id = ${of}) AS callers, (SELECT count(*)::int FROM usage_days WHERE project_id = ${of}) AS days`
      return row
    }
    t.match(await left(projectId), { rows: 6000, callers: 2, days: 2 })

    // A batch that is being stored while the project is deleted.
    const session = tablesOf(t, config.databaseUrl)
    const late = { ...batchOf(usage(projectId)), rows: [rowAt(now, { projectId, requestId: 'late' })] }
    const storing = deferred()
    const stored = deferred()
    const transaction = database.transaction(async tx => {
      await storeBatches(tx, [late])
      const [{ pid } = { pid: 0 }] = await tx.execute<{ pid: number }>(statement`SELECT pg_backend_pid() AS pid`)
      storing.resolve(pid)
      await stored.promise
    })
    const pid = await storing.promise
    t.equal((await call('DELETE', `/projects/${projectId}`)).status, 204)
    t.ok(await waiterFor(session, pid, transaction), 'the erasure waits for it')
    t.notOk((await sql`SELECT 1 FROM projects WHERE id = ${projectId} AND erased_at IS NOT NULL`).length > 0)
    stored.resolve(0)
    await transaction
    while ((await sql`SELECT 1 FROM projects WHERE id = ${projectId} AND erased_at IS NOT NULL`).length === 0) await delay(5)
    t.match(await left(projectId), { rows: 0, callers: 0, days: 2 })
    t.match(await left(other), { rows: 1, callers: 2 })

    await sendBatch(app, { ...batchOf([usageOf(projectId, unknownKey, { sums: [sumAt(now, { admitted: 1 })], callers: [callerAt(now, 's', '192.0.2.1')] })]), rows: [rowAt(now, { projectId, requestId: 'very late' })] })
    t.match(await left(projectId), { rows: 0, callers: 0, days: 2 }, 'what comes after it is counted and no more')
    const [{ admitted } = { admitted: 0 }] = await sql`SELECT sum(admitted)::int AS admitted FROM usage_days WHERE project_id = ${projectId} AND key_id = ${unknownKey}`
    t.equal(admitted, 4)
  })

  await t.test('filters that need too long each time are not answered "try again"', async t => {
    const url = await house.database()
    await migrate(url)
    const [own, hasty] = [tablesOf(t, url), openDatabase(url, { timeoutMs: 2000 })]
    t.teardown(async () => { await hasty.close() })
    const projectId = unknownProject
    await storeLog(hasty, Array.from({ length: 5 }, (_, i) => rowAt(now + i, { projectId })))
    // Each row that is looked at takes a second.
    await own.unsafe('ALTER TABLE request_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY slow ON request_log USING (pg_sleep(1)::text IS NOT NULL)')
    await t.rejects(listLog(hasty, projectId, { status: '200', limit: 50 }), { problem: { status: 422, errors: [{ pointer: '/from', message: /must be given, or be later/ }] } } as unknown as Error)
    await t.rejects(listLog(hasty, projectId, { limit: 50 }), { code: '57014' } as unknown as Error)
  })

  await t.test('every page finds its rows by an index', async t => {
    const projectId = await newProject()
    const { id: keyId } = await newKey(projectId)
    const day = Math.floor(now / dayMs) * dayMs - 10 * dayMs
    await storeLog(database, [rowAt(day, { projectId, keyId })])
    await sql`
      INSERT INTO request_log (at, project_id, key_id, secret_id, request_id, api, operation, method, scope, outcome, status, ms, bytes, address, client, replica)
      SELECT ${iso(day)}::timestamptz + n * interval '1 second', CASE WHEN n % 10 = 0 THEN ${projectId}::uuid ELSE gen_random_uuid() END, ${keyId}, 's', 'r' || n, 'forms', 'o', 'GET', '', 'admitted', 200, 1, 1, 'a', 'c', 'r' FROM generate_series(1, 20000) n`
    await sql`ANALYZE request_log`
    const recording = recordingDatabase(config.databaseUrl)
    t.teardown(async () => { await recording.close() })
    for (const filters of [{}, { status: '5xx' }, { keyId }, { requestId: 'r77' }, { from: iso(day), until: iso(day + 3_600_000) }]) {
      const { nextCursor } = await listLog(recording, projectId, { ...filters, limit: 10 })
      if (nextCursor !== null) await listLog(recording, projectId, { ...filters, limit: 10, cursor: nextCursor })
    }
    const scans = await scansFor(sql, recording.statements)
    const large = scans.filter(({ table }) => table === partitionOf('request_log', new Date(day)).name)
    t.ok(large.length > 5)
    t.strictSame(large.filter(({ node }) => node === 'Seq Scan').map(describeScan), [])
  })
})

const unknownProject = '11111111-2222-4333-8444-555555555555'

function deferred (): { promise: Promise<number>, resolve: (value: number) => void } {
  let resolve: (value: number) => void = () => {}
  const promise = new Promise<number>(_resolve => { resolve = _resolve })
  return { promise, resolve }
}
