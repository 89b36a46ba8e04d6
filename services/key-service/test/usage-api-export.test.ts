import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { setImmediate as turn } from 'node:timers/promises'
import { sql as statement } from 'drizzle-orm'
import t, { type Test } from 'tap'
import { buildApp } from '../src/app.ts'
import { openDatabase, type Database } from '../src/db/database.ts'
import { codeOf } from '../src/db/failures.ts'
import { openParts, type Parts } from '../src/parts.ts'
import { exportUsage } from '../src/usage/export.ts'
import { makePartitions, partitionOf } from '../src/usage/partitions.ts'
import { countPoints, findPoints, listTopKeys, placeOf, type Place, type Selection } from '../src/usage/queries.ts'
import { configFor, startHouse, tokens } from './helper.ts'
import { tablesOf } from './people-helper.ts'
import { book, nothing } from './usage-helper.ts'

const [hourMs, dayMs] = [3_600_000, 86_400_000]
/** A Monday and its week, long enough ago to be over and not yet dropped. */
const monday = Math.floor((Date.now() - 4 * dayMs) / (7 * dayMs)) * 7 * dayMs - 3 * dayMs
const iso = (ms: number): string => new Date(ms).toISOString()
const operations = 200
const hours = 7 * 24

/** What runs before a search, which is given its number. */
interface Watched { searches: number, before: (n: number) => Promise<void> }

async function start (t: Test) {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const watched: Watched = { searches: 0, before: async () => {} }
  let parts: Parts | undefined
  const { app } = await buildApp(config, async log => {
    const opened = await openParts(config, log, () => {})
    const { database } = opened
    const search: Database['search'] = async work => {
      await watched.before(++watched.searches)
      return await database.search(work)
    }
    parts = { ...opened, database: { ...database, search } }
    return parts
  })
  t.teardown(async () => { await app.close() })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  return { app, config, watched, parts: parts as Parts, url: `http://127.0.0.1:${port}/v1`, sql: tablesOf(t, config.databaseUrl) }
}

const house = await start(t)
const { app, parts, watched, url, sql } = house
const headers = { authorization: `Bearer ${tokens.all}` }
const ask = async (method: 'GET' | 'POST' | 'HEAD', path: string, payload?: object) => await app.inject({ method, url: `/v1${path}`, headers, ...payload !== undefined && { payload } })
const projectId: string = (await ask('POST', '/projects', { name: 'Exported' })).json().id
const keyIds: string[] = []
for (let i = 0; i < 3; i++) keyIds.push((await ask('POST', `/projects/${projectId}/keys`, { name: `Key ${i}` })).json().id)

/** A key with 200 operations in each hour of a week: 33 600 rows of about 700 characters. */
await parts.database.transaction(async tx => { await makePartitions(tx, [partitionOf('usage_hours', new Date(monday))]) })
await sql`
  INSERT INTO usage_hours SELECT ${projectId}, ${keyIds[0] as string}, ${iso(monday)}::timestamptz + h * interval '1 hour', 'forms', 'operation ' || lpad(o::text, 3, '0') || repeat('.', 500), '', o, 0, 0, 0, 0
  FROM generate_series(0, ${hours - 1}) h, generate_series(1, ${operations}) o`
const week = `from=${iso(monday)}&until=${iso(monday + 7 * dayMs)}`
const large = `/projects/${projectId}/keys/${keyIds[0]}/usage/export?groupBy=operation&${week}`
const selection: Selection = { projectId, keyId: keyIds[0], interval: 'hour', groupBy: 'operation', from: iso(monday), until: iso(monday + 7 * dayMs) }

await t.test('NDJSON and CSV have the rows of the list, with their number and a file\'s name', async t => {
  const recent = Math.floor(Date.now() / hourMs) * hourMs - 5 * hourMs
  const texts = ['=1+1', '+1', '-1', '@x', '\tx', '\rx', 'a,b', 'say "hi"', 'two\nlines', '', 'plain', ' =1', 'Förderung 😀']
  await book(parts, projectId, texts.map((scope, i) => ({ keyId: keyIds[1] as string, at: iso(recent), scope, admitted: i, limited: 1 })))
  const query = `interval=hour&groupBy=scope&from=${iso(recent)}&until=${iso(recent + hourMs)}`
  const list = (await ask('GET', `/projects/${projectId}/usage?${query}`)).json()
  t.equal(list.data.length, texts.length)

  const ndjson = await ask('GET', `/projects/${projectId}/usage/export?${query}`)
  t.equal(ndjson.statusCode, 200)
  t.match(ndjson.headers, { 'content-type': 'application/x-ndjson; charset=utf-8', 'x-total-rows': texts.length, 'cache-control': 'no-store' })
  t.match(ndjson.headers['content-disposition'], new RegExp(`^attachment; filename="keygate-usage-${projectId}-hour-by-scope-\\d{8}T\\d{4}-\\d{8}T\\d{4}\\.ndjson"$`))
  t.same(ndjson.body.trimEnd().split('\n').map(line => JSON.parse(line)), list.data)

  const csv = await ask('GET', `/projects/${projectId}/usage/export?${query}&format=csv`)
  t.match(csv.headers, { 'content-type': /^text\/csv/, 'x-total-rows': texts.length, 'content-disposition': /\.csv"$/ })
  const [header, ...rows] = cellsOf(csv.body)
  t.same(header, ['at', 'scope', 'admitted', 'limited', 'refused', 'upstreamErrors', 'admittedLocally'])
  const isFormula = (text: string): boolean => /^\s*[=+\-@]|^[\t\r\n]/.test(text)
  t.same(rows, list.data.map((row: any) => [row.at, isFormula(row.scope) ? `'${row.scope}` : row.scope, ...Object.keys(nothing).map((_, i) => String([row.admitted, row.limited, row.refused, row.upstreamErrors, row.admittedLocally][i]))]))
  t.notOk(rows.flat().some(isFormula), 'no cell is a formula')

  for (const [groupBy, names] of [['none', ['at']], ['operation', ['at', 'api', 'operation']], ['key', ['at', 'keyId']]] as const) {
    const [header] = cellsOf((await ask('GET', `/projects/${projectId}/usage/export?groupBy=${groupBy}&format=csv&${week}`)).body)
    t.same(header?.slice(0, -5), names)
  }
  const empty = await ask('GET', `/projects/${projectId}/usage/export?${query}&api=nothing&format=csv`)
  t.equal(empty.body, 'at,scope,admitted,limited,refused,upstreamErrors,admittedLocally\r\n')
  t.equal(Number(empty.headers['x-total-rows']), 0)
})

await t.test('HEAD tells as much without reading a row', async t => {
  const before = watched.searches
  const answer = await ask('HEAD', large)
  t.match(answer, { statusCode: 200, body: '' })
  t.equal(Number(answer.headers['x-total-rows']), operations * hours)
  t.equal(watched.searches - before, 2, 'the key, and the count')
})

await t.test('a long export has every row once, in order, and pages as they are taken', async t => {
  const rows = exportUsage(parts.database.search, selection)
  const before = watched.searches
  let [last, count] = ['', 0]
  for await (const { at, operation = '', admitted } of rows) {
    if (++count === 1000 || count === 1001) t.equal(watched.searches - before, count === 1000 ? 1 : 2, 'the next page is read when its first row is taken')
    const place = `${at} ${operation}`
    if (place <= last || admitted !== Number(operation.slice(10, 13))) t.fail(`${place} after ${last}`)
    last = place
  }
  t.equal(count, operations * hours)
  t.equal(watched.searches - before, Math.ceil(count / 1000))
})

await t.test('the count of all keys is the number of rows', async t => {
  await sql`INSERT INTO keys (project_id, id, name, status, created_by, allowed_for_all) SELECT ${projectId}, 'key_' || lpad(n::text, 22, '0'), 'Many', 'active', 'test', false FROM generate_series(1, 450) n`
  await sql`
    INSERT INTO usage_hours SELECT ${projectId}, id, ${iso(monday)}::timestamptz + h * interval '1 hour', 'forms', 'o', '', 1, 0, 0, 0, 0
    FROM keys, generate_series(0, 4) h WHERE project_id = ${projectId} AND name = 'Many'`
  const answer = await ask('GET', `/projects/${projectId}/usage/export?groupBy=key&format=csv&${week}`)
  const lines = answer.body.trimEnd().split('\r\n').slice(1)
  t.equal(lines.length, 450 * 5 + hours)
  t.equal(new Set(lines.map(line => line.split(',').slice(0, 2).join())).size, lines.length, 'each once')
  t.equal(Number(answer.headers['x-total-rows']), lines.length)
})

/** What the server answers when the time of a statement is up. */
const tooSlow = (): Error => Object.assign(new Error('canceling statement due to statement timeout'), { code: '57014' })

await t.test('all keys in one statement, and in several when that takes too long', async t => {
  const range = { from: iso(monday - 80 * dayMs), until: iso(monday + 7 * dayMs) }
  const byKey: Selection = { projectId, interval: 'hour', groupBy: 'key', ...range }
  const asked = async <T>(work: (search: Database['search']) => Promise<T>): Promise<[T, number]> => {
    const before = watched.searches
    return [await work(parts.database.search), watched.searches - before]
  }

  await sql`UPDATE usage_hours SET limited = 1 + n % 3 FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM keys) k WHERE k.id = key_id AND at = ${iso(monday)} AND operation = 'o' AND project_id = ${projectId}`
  const wanted = await sql`SELECT key_id, sum(limited)::int AS limited, sum(admitted)::int AS admitted FROM usage_hours WHERE project_id = ${projectId} AND key_id <> '*' AND at < ${range.until} GROUP BY 1 HAVING sum(limited) > 0 ORDER BY 2 DESC, key_id COLLATE "C" LIMIT 100`
  const top = async (search: Database['search']) => (await listTopKeys(search, projectId, { interval: 'hour', by: 'limited', limit: 100 }, range)).map(({ keyId, limited, admitted }) => ({ key_id: keyId, limited, admitted }))
  t.same(await asked(top), [wanted, 1])
  const [found, searches] = await asked(async search => {
    let isFirst = true
    return await top(async work => {
      if (!isFirst) return await search(work)
      isFirst = false
      throw tooSlow()
    })
  })
  t.same(found, wanted)
  t.ok(searches > 10, `${searches} statements`)
  await t.rejects(top(async () => { throw tooSlow() }), { code: '57014' }, 'not for ever')
  await t.rejects(top(async () => { throw Object.assign(new Error('a lock'), { code: '55P03' }) }), { code: '55P03' })

  const filtered = { ...byKey, operation: 'o' }
  const all = await findPoints(parts.database.search, filtered, undefined, 10_000)
  t.equal(all.length, 450 * 5)
  const paged: typeof all = []
  for (let after: Place | undefined; paged.length < all.length;) {
    const page: typeof all = await findPoints(parts.database.search, filtered, after, 333)
    after = placeOf(page.at(-1) as (typeof all)[number], 'key')
    paged.push(...page)
  }
  t.same(paged, all, 'a page ends in the middle of a key, and the next one goes on there')
  t.ok((await asked(async search => await findPoints(search, { ...filtered, operation: 'nothing' }, undefined, 500)))[1] > 10, 'a filter that nothing passes')
})

await t.test('what is too large to be counted soon has no number of rows, and begins at once', async t => {
  await sql`
    INSERT INTO usage_hours SELECT ${projectId}, ${keyIds[2] as string}, ${iso(monday)}::timestamptz + h * interval '1 hour', 'forms', 'operation ' || o, 'scope ' || o % 2, 1, 0, 0, 0, 0
    FROM generate_series(0, ${hours - 1}) h, generate_series(1, 300) o`
  const path = `/projects/${projectId}/keys/${keyIds[2]}/usage/export?${week}`
  const totalOf = async (query: string): Promise<[number, unknown]> => {
    const before = watched.searches
    const answer = await ask('HEAD', `${path}&${query}`)
    return [watched.searches - before, answer.headers['x-total-rows']]
  }
  for (const query of ['groupBy=operation', 'groupBy=none', 'groupBy=operation&scope=nothing']) t.same(await totalOf(query), [2, undefined], `${query}: 50 400 rows are to be looked through`)
  const lines = (await ask('GET', `${path}&groupBy=scope`)).body.trimEnd().split('\n')
  t.equal(lines.length, 2 * hours, 'all rows are there')
  const shorter = path.replace(/until=[^&]+/, `until=${iso(monday + 10 * hourMs)}`)
  t.equal(Number((await ask('HEAD', `${shorter}&groupBy=operation&scope=scope+1`)).headers['x-total-rows']), 10 * 150, 'with a filter')

  const count = async (most: number) => await countPoints(parts.database.search, { ...selection, keyId: keyIds[2], until: iso(monday + 10 * hourMs) }, most)
  t.same([await count(2999), await count(3000)], [undefined, 3000], 'exactly so many')
  t.equal(await countPoints(async () => { throw tooSlow() }, selection), undefined, 'the server finds it too slow')
  await t.rejects(countPoints(async () => { throw Object.assign(new Error('a lock'), { code: '55P03' }) }, selection), { code: '55P03' })
  await sql`DELETE FROM usage_hours WHERE key_id = ${keyIds[2] as string}`
})

await t.test('a page that takes the server too long is read in smaller ones', async t => {
  const impatient = openDatabase(house.config.databaseUrl, { timeoutMs: 1000 })
  t.teardown(async () => { await impatient.close() })
  let slow = 0
  const search: Database['search'] = async work => {
    if (slow++ < 3) await impatient.search(async db => await db.execute(statement`SELECT pg_sleep(60)`)) // ended by the server
    return await parts.database.search(work)
  }
  const rows = exportUsage(search, { ...selection, until: iso(monday + 10 * hourMs) })
  let count = 0
  while ((await rows.next()).done !== true) count++
  t.equal(count, 10 * operations)
  t.equal(slow, 3 + Math.ceil(count / 125) + 1, 'pages of 125 rows, and one that says there is no more')
  await t.rejects(exportUsage(async () => { throw Object.assign(new Error('too slow'), { code: '57014' }) }, selection).next(), { code: '57014' }, 'not for ever')
  await t.rejects(impatient.search(async db => await db.execute(statement`SELECT pg_sleep(60)`)).catch((error: Error) => { throw new Error(codeOf(error)) }), { message: '57014' })
})

await t.test('an export whose first rows are long in coming begins without them', async t => {
  const path = large.replace(/until=[^&]+/, `until=${iso(monday + 10 * hourMs)}`)
  const [held, isHeld, heldAgain] = [event(), event(), event()]
  const page = watched.searches + 3 // behind the key and the count
  watched.before = async n => {
    if (n !== page) return
    isHeld.tell()
    await held.told
  }
  const request = get(`${url}${path}`, { headers })
  const [response] = await once(request, 'response') as [IncomingMessage]
  await isHeld.told
  t.match(response, { statusCode: 200, headers: { 'content-type': /ndjson/, 'content-disposition': /attachment/, 'x-content-type-options': 'nosniff' } })
  held.tell()
  t.equal((await text(response)).trimEnd().split('\n').length, operations * 10, 'and has all of them')

  // The same, with a fault: it breaks off, and does not look like the end.
  const failing = watched.searches + 3
  watched.before = async n => {
    if (n !== failing) return
    await heldAgain.told
    throw new Error('away')
  }
  const [broken] = await once(get(`${url}${path}`, { headers }), 'response') as [IncomingMessage]
  heldAgain.tell()
  await t.rejects(text(broken), { code: 'ECONNRESET' })
  watched.before = async () => {}
})

await t.test('a client that leaves ends the work', async t => {
  const [held, isHeld, closed] = [event(), event(), event()]
  const first = watched.searches + 5 // the key, the count, and three pages
  watched.before = async n => {
    if (n !== first) return
    isHeld.tell()
    await held.told
  }
  app.server.once('request', (_request, response) => { response.once('close', closed.tell) })
  const request = get(`${url}${large}`, { headers })
  const [response] = await once(request, 'response') as [IncomingMessage]
  t.equal(response.headers['x-total-rows'], String(operations * hours))
  response.on('error', () => {})
  response.resume()
  await isHeld.told
  request.destroy()
  await closed.told
  held.tell()
  // Whatever were to come would come now: the page that is held is answered behind these.
  for (let i = 0; i < 5; i++) await parts.database.run(async db => await db.execute(statement`SELECT 1`))
  for (let i = 0; i < 100; i++) await turn()
  t.equal(watched.searches, first, 'no further page is read')
  watched.before = async () => {}
  t.equal((await ask('GET', `/projects/${projectId}/usage`)).statusCode, 200)
})

function event (): { told: Promise<void>, tell: () => void } {
  let tell = (): void => {}
  return { told: new Promise<void>(resolve => { tell = resolve }), tell: () => { tell() } }
}

/** A reader of RFC 4180 of our own: what is written by one hand and read by the same proves little. */
function cellsOf (text: string): string[][] {
  const rows: string[][] = []
  for (let i = 0, row: string[] = []; i < text.length;) {
    let cell = ''
    if (text[i] === '"') {
      for (i++; ; i++) {
        if (text[i] !== '"') cell += text[i]
        else if (text[i + 1] === '"') cell += text[i++]
        else break
      }
      i++
    } else {
      while (i < text.length && text[i] !== ',' && text[i] !== '\r') cell += text[i++]
    }
    row.push(cell)
    if (text[i] === ',') {
      i++
    } else if (text.startsWith('\r\n', i)) {
      i += 2
      rows.push(row)
      row = []
    } else {
      throw new Error(`neither a comma nor the end of a line at ${i}: ${JSON.stringify(text.slice(i, i + 20))}`)
    }
  }
  return rows
}
