import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import type { Counts } from '../src/usage/columns.ts'
import { rangeOf } from '../src/usage/range.ts'
import { createRandom } from './fuzz/random.ts'
import { boundProject, configFor, redisIsReady, startApp, startHouse, tokens, type Answer, type TestApp } from './helper.ts'
import { tablesOf } from './people-helper.ts'
import { book, nothing, type Booked } from './usage-helper.ts'

const [minuteMs, hourMs, dayMs] = [60_000, 3_600_000, 86_400_000]
const steps = { minute: minuteMs, hour: hourMs, day: dayMs } as const
type Interval = keyof typeof steps
type GroupBy = 'none' | 'scope' | 'operation' | 'key'

/** Midnight two days ago: recent enough for minutes to be kept. */
const base = Math.floor(Date.now() / dayMs) * dayMs - 2 * dayMs
const iso = (ms: number): string => new Date(ms).toISOString()

async function start (t: Test) {
  const house = await startHouse(t)
  const url = await house.database()
  const app = await startApp(t, configFor(t, url, house.redis.url))
  await redisIsReady(app)
  return { app, sql: tablesOf(t, url) }
}

async function newProject ({ call }: TestApp, keys = 0): Promise<{ projectId: string, keyIds: string[] }> {
  const { body: { id: projectId } } = await call('POST', '/projects', { name: 'Used' })
  const keyIds: string[] = []
  for (let i = 0; i < keys; i++) keyIds.push((await call('POST', `/projects/${projectId}/keys`, { name: `Key ${i}` })).body.id)
  return { projectId, keyIds }
}

/** All pages of an answer, and how many there were. */
async function everyPage (app: TestApp, path: string, limit: number): Promise<{ data: any[], pages: number }> {
  const data: any[] = []
  for (let pages = 1, cursor: string | null = ''; ; pages++) {
    const answer: Answer = await app.call('GET', `${path}&limit=${limit}${cursor === '' ? '' : `&cursor=${cursor}`}`)
    if (answer.status !== 200) throw new Error(answer.text)
    if (answer.body.data.length > limit) throw new Error('the page is too long')
    data.push(...answer.body.data)
    cursor = answer.body.nextCursor
    if (cursor === null) return { data, pages }
  }
}

/** What should be answered, made from what was booked, by hand. */
function expected (booked: Booked[], { interval, groupBy, from, until, filter = () => true }: { interval: Interval, groupBy: GroupBy, from: number, until: number, filter?: (one: Required<Booked>) => boolean }): object[] {
  const rows = new Map<string, Record<string, any>>()
  for (const one of booked as Array<Required<Booked>>) {
    const at = Math.floor(Date.parse(one.at) / steps[interval]) * steps[interval]
    if (!filter(one) || at < from || at >= until) continue
    const group = { none: {}, scope: { scope: one.scope }, operation: { api: one.api, operation: one.operation }, key: { keyId: one.keyId } }[groupBy]
    const name = JSON.stringify(groupBy === 'key' ? [one.keyId, at] : [at, ...Object.values(group)])
    const row = rows.get(name) ?? { at: iso(at), ...group, ...nothing }
    for (const count of Object.keys(nothing) as Array<keyof Counts>) row[count] += one[count]
    rows.set(name, row)
  }
  return [...rows.values()]
}

/** In an order of our own: which of two names comes first is the database's business. */
const sorted = (rows: object[]): string[] => rows.map(row => JSON.stringify(Object.entries(row).sort(([a], [b]) => a < b ? -1 : 1))).sort()

const { app, sql } = await start(t)

await t.test('which steps a request is about', t => {
  const now = Date.parse('2026-11-21T10:30:30.500Z')
  const of = (query: object) => rangeOf({ interval: 'hour', ...query }, now)
  t.same(of({}), { from: '2026-11-20T11:00:00.000Z', until: '2026-11-21T11:00:00.000Z' }, '24 hours, the running one among them')
  t.same(of({ interval: 'minute' }), { from: '2026-11-21T09:31:00.000Z', until: '2026-11-21T10:31:00.000Z' }, '60 minutes')
  t.same(of({ interval: 'day' }), { from: '2026-10-23T00:00:00.000Z', until: '2026-11-22T00:00:00.000Z' }, '30 days')
  t.same(of({ until: '2026-11-01T00:00:00Z' }), { from: '2026-10-31T00:00:00.000Z', until: '2026-11-01T00:00:00.000Z' })
  t.same(of({ from: '2026-11-01T00:59:59.999Z', until: '2026-11-01T02:00:00.001Z' }), { from: '2026-11-01T00:00:00.000Z', until: '2026-11-01T03:00:00.000Z' }, 'whole steps')
  t.same(of({ from: '2026-11-01T01:30:00+05:30', until: '2026-11-01T02:30:00+05:30' }), { from: '2026-10-31T20:00:00.000Z', until: '2026-10-31T21:00:00.000Z' }, 'in UTC')
  t.same(of({ interval: 'day', from: '0001-01-01T00:00:00Z', until: '9999-12-31T23:59:59.999Z' }), { from: '0001-01-01T00:00:00.000Z', until: '9999-12-31T23:59:59.999Z' }, 'any number of days')
  t.same(of({ interval: 'day', until: '0001-01-02T00:00:00Z' }).from, '0001-01-01T00:00:00.000Z', 'never a year that PostgreSQL does not know')

  const refused: Array<[object, string, RegExp]> = [
    [{ from: '2026-11-01T00:00:00Z', until: '2026-11-01T00:00:00Z' }, '/from', /before until/],
    [{ from: '2026-11-02T00:00:00Z', until: '2026-11-01T00:00:00Z' }, '/from', /before until/],
    [{ from: '2027-01-01T00:00:00Z' }, '/from', /future/],
    [{ until: '0001-01-01T00:00:00Z' }, '/until', /later/],
    [{ from: '2026-11-01T00:00:60Z' }, '/from', /date-time/],
    [{ until: '0000-01-01T00:00:00Z' }, '/until', /date-time/],
    [{ interval: 'minute', from: '2026-11-01T00:00:00Z', until: '2026-11-08T00:01:00.001Z' }, '/from', /at most 7 days/],
    [{ interval: 'hour', from: '2026-01-01T00:00:00Z', until: '2026-04-01T01:00:00.001Z' }, '/from', /at most 90 days/]
  ]
  for (const [query, pointer, message] of refused) {
    try {
      of(query)
      t.fail(`accepted ${JSON.stringify(query)}`)
    } catch (error) {
      t.match((error as { problem: object }).problem, { status: 422, errors: [{ pointer, message }] }, JSON.stringify(query))
    }
  }
  for (const [interval, days] of [['minute', 7], ['hour', 90]] as const) {
    t.doesNotThrow(() => of({ interval, from: iso(now - days * dayMs - 1000) }), `the last ${days} days of a clock that is a second slow`)
  }
  t.end()
})

await t.test('sums by time, group and filter are those of what was booked', async t => {
  const { projectId, keyIds } = await newProject(app, 3)
  const random = createRandom('usage')
  const hostile = ['submissions', '', 'a,"b"', '=1+1', '\u00e9\u{1f600}', "'; DROP TABLE keys; --"]
  const booked: Booked[] = Array.from({ length: 400 }, () => ({
    keyId: random.pick(keyIds),
    at: iso(base + random.integer(0, 60) * 17 * minuteMs + random.integer(0, 1) * dayMs),
    api: random.pick(['forms', 'files']),
    operation: random.pick(['list', 'GET /a/{b}', 'a\nb']),
    scope: random.pick(hostile),
    admitted: random.integer(0, 9),
    limited: random.integer(0, 3),
    refused: random.integer(0, 3),
    upstreamErrors: random.integer(0, 2),
    admittedLocally: random.integer(0, 2)
  }))
  await book(app.parts, projectId, booked)
  const stranger = await newProject(app, 1)
  await book(app.parts, stranger.projectId, booked.map(one => ({ ...one, keyId: stranger.keyIds[0] as string })))
  const of = `/projects/${projectId}`

  for (const interval of ['minute', 'hour', 'day'] as const) {
    for (const groupBy of ['none', 'scope', 'operation', 'key'] as const) {
      await t.test(`a project by ${interval}, ${groupBy}`, async t => {
        const [from, until] = [base, base + 2 * dayMs]
        const query = `interval=${interval}&groupBy=${groupBy}&from=${iso(from)}&until=${iso(until)}`
        const wanted = expected(booked, { interval, groupBy, from, until })
        const { data } = await everyPage(app, `${of}/usage?${query}`, 1500)
        t.same(sorted(data), sorted(wanted))
        t.ok(wanted.length > 1)
        const paged = await everyPage(app, `${of}/usage?${query}`, 7)
        t.same(paged, { data, pages: Math.ceil(wanted.length / 7) }, 'page by page it is the same')
        const order = data.map(row => groupBy === 'key' ? `${row.keyId} ${row.at}` : row.at)
        t.same(order, order.toSorted(), groupBy === 'key' ? 'key by key, oldest first' : 'oldest first')
      })
    }
  }

  await t.test('a key', async t => {
    for (const groupBy of ['none', 'scope', 'operation'] as const) {
      const [from, until] = [base, base + 2 * dayMs]
      const wanted = expected(booked, { interval: 'hour', groupBy, from, until, filter: ({ keyId }) => keyId === keyIds[1] })
      const query = `interval=hour&groupBy=${groupBy}&from=${iso(from)}&until=${iso(until)}`
      t.same(sorted((await everyPage(app, `${of}/keys/${keyIds[1]}/usage?${query}`, 100)).data), sorted(wanted), groupBy)
      t.same(sorted((await everyPage(app, `${of}/usage?${query}&keyId=${keyIds[1]}`, 100)).data), sorted(wanted), `${groupBy}, as a filter`)
    }
  })

  await t.test('filters, also of what means something to SQL', async t => {
    const [from, until] = [base + 3 * hourMs, base + dayMs]
    const filters: Array<[string, GroupBy, (one: Required<Booked>) => boolean]> = [
      ['api=files', 'none', ({ api }) => api === 'files'],
      [`api=forms&operation=${encodeURIComponent('GET /a/{b}')}`, 'key', ({ api, operation }) => api === 'forms' && operation === 'GET /a/{b}'],
      ...hostile.map((scope): [string, GroupBy, (one: Required<Booked>) => boolean] => [`scope=${encodeURIComponent(scope)}`, 'scope', one => one.scope === scope]),
      [`scope=&keyId=${keyIds[0]}`, 'key', ({ scope, keyId }) => scope === '' && keyId === keyIds[0]]
    ]
    for (const [query, groupBy, filter] of filters) {
      const wanted = expected(booked, { interval: 'hour', groupBy, from, until, filter })
      t.ok(wanted.length > 0, query)
      t.same(sorted((await everyPage(app, `${of}/usage?groupBy=${groupBy}&from=${iso(from)}&until=${iso(until)}&${query}`, 5)).data), sorted(wanted), query)
    }
    t.same((await app.call('GET', `${of}/usage?from=${iso(from)}&scope=nothing`)).body.data, [])
  })

  await t.test('what touches a range is told as a whole, and what it is told of is named', async t => {
    const { status, body } = await app.call('GET', `${of}/usage?from=${iso(base + 90 * minuteMs)}&until=${iso(base + 150 * minuteMs)}`)
    t.equal(status, 200)
    t.match(body, { from: iso(base + hourMs), until: iso(base + 3 * hourMs), nextCursor: null })
    t.same(body.data, expected(booked, { interval: 'hour', groupBy: 'none', from: base + hourMs, until: base + 3 * hourMs }).sort((a, b) => (a as { at: string }).at < (b as { at: string }).at ? -1 : 1))
  })
})

await t.test('without a range: the last 60 minutes, 24 hours, 30 days, the running one among them', async t => {
  const { projectId, keyIds: [keyId = ''] } = await newProject(app, 1)
  const now = Date.now()
  const ages = [0, 50 * minuteMs, 70 * minuteMs, 22 * hourMs, 26 * hourMs]
  await book(app.parts, projectId, ages.map((age, i) => ({ keyId, at: iso(now - age), admitted: 10 ** i })))
  const sum = async (interval: string): Promise<number> => (await app.call('GET', `/projects/${projectId}/usage?interval=${interval}`)).body.data.reduce((total: number, { admitted }: Counts) => total + admitted, 0)
  t.equal(await sum('minute'), 11)
  t.equal(await sum('hour'), 1111)
  t.equal(await sum('day'), 11_111)
})

await t.test('whose usage it is', async t => {
  const [mine, theirs] = [await newProject(app, 2), await newProject(app, 1)]
  const [kept = '', gone = ''] = mine.keyIds
  const at = iso(base)
  await book(app.parts, mine.projectId, [{ keyId: kept, at, admitted: 1 }, { keyId: gone, at, admitted: 2 }])
  const range = `from=${at}`
  const paths = (projectId: string, keyId: string): string[] => [`/projects/${projectId}/usage`, `/projects/${projectId}/usage/keys`, `/projects/${projectId}/usage/export`, `/projects/${projectId}/keys/${keyId}/usage`, `/projects/${projectId}/keys/${keyId}/usage/export`]

  await t.test('404 for a project or key that is not there, or is of somebody else', async t => {
    const nobody = randomUUID()
    for (const path of paths(nobody, kept)) t.match(await app.call('GET', path), { status: 404, body: { code: path.includes(kept) ? 'key_not_found' : 'project_not_found' } }, path)
    for (const keyId of [theirs.keyIds[0] as string, 'key_0000000000000000000000', '*']) {
      for (const path of paths(mine.projectId, keyId).slice(3)) t.match(await app.call('GET', path), { status: 404, body: { code: 'key_not_found' } }, path)
    }
    for (const path of paths(boundProject, kept)) t.match(await app.call('GET', path, undefined, tokens.bound), { status: 404 })
    for (const path of paths(mine.projectId, kept)) t.match(await app.call('GET', path, undefined, tokens.bound), { status: 404 }, 'a token that is bound to another project')
    for (const path of paths(mine.projectId, kept)) t.match(await app.call('GET', path, undefined, tokens.reader), { status: 403, body: { code: 'forbidden', detail: /usage:read/ } })
    t.same((await app.call('GET', `/projects/${mine.projectId}/usage?${range}&keyId=${theirs.keyIds[0]}`)).body.data, [], 'as a filter it finds nothing')
  })

  await t.test('an upper-case id is the same project', async t => {
    t.same((await app.call('GET', `/projects/${mine.projectId.toUpperCase()}/usage?${range}`)).body.data.length, 1)
  })

  await t.test('what a deleted key has done stays', async t => {
    t.equal((await app.call('DELETE', `/projects/${mine.projectId}/keys/${gone}`)).status, 204)
    t.match(await app.call('GET', `/projects/${mine.projectId}/keys/${gone}/usage?${range}`), { status: 200, body: { data: [{ admitted: 2 }] } })
    t.match(await app.call('GET', `/projects/${mine.projectId}/usage?${range}`), { status: 200, body: { data: [{ admitted: 3 }] } })
    t.match((await app.call('GET', `/projects/${mine.projectId}/usage/keys?${range}`)).body.data, [{ keyId: gone, name: 'Key 1', status: 'deleted', admitted: 2 }, { keyId: kept, status: 'active' }])
  })

  await t.test('nothing of a deleted project', async t => {
    t.equal((await app.call('DELETE', `/projects/${mine.projectId}`)).status, 204)
    for (const path of paths(mine.projectId, kept)) t.match(await app.call('GET', path), { status: 404 }, path)
  })
})

await t.test('lost: what boots have finished or had open, and what is in no row', async t => {
  const { projectId, keyIds: [keyId = ''] } = await newProject(app, 1)
  const hour = (n: number): number => base / hourMs + n
  const line = (n: number, admitted: number, finished: number) => ({ projectId, hour: hour(n), admitted, finished, unanswered: 0 })
  // Of 10 finished 7 arrived; of the second boot all.
  await book(app.parts, projectId, [{ keyId, at: iso(base), admitted: 7 }], { bootId: 'one', lines: [line(0, 12, 10), line(5, 3, 2)] })
  await book(app.parts, projectId, [{ keyId, at: iso(base), admitted: 5, admittedLocally: 1 }], { bootId: 'two', lines: [line(0, 4, 4)] })
  const lostOf = async (query: string, path = 'usage'): Promise<unknown> => (await app.call('GET', `/projects/${projectId}/${path}?${query}`)).body.lost
  const all = `from=${iso(base)}&until=${iso(base + dayMs)}`
  t.equal(await lostOf(all), 3 + 2, 'finished and not stored')
  await sql`UPDATE usage_lines SET tail = 2 WHERE boot_id = 'one' AND hour = ${iso(base)}`
  t.equal(await lostOf(all), 3 + 2 + 2, 'and the tail')
  t.equal(await lostOf(`from=${iso(base + hourMs)}&until=${iso(base + dayMs)}`), 2, 'from is included')
  t.equal(await lostOf(`from=${iso(base)}&until=${iso(base + 5 * hourMs)}`), 5, 'until is not')
  t.equal(await lostOf(`interval=minute&from=${iso(base + 10 * minuteMs)}&until=${iso(base + 11 * minuteMs)}`), 5, 'by whole hours')
  t.equal(await lostOf(`interval=day&from=${iso(base)}`), 7)
  for (const groupBy of ['scope', 'operation', 'key']) t.equal(await lostOf(`${all}&groupBy=${groupBy}`), 7)
  for (const filter of ['api=forms', 'operation=x', 'scope=', `keyId=${keyId}`]) t.equal(await lostOf(`${all}&${filter}`), null, `nobody knows of ${filter}`)
  t.equal(await lostOf(all, `keys/${keyId}/usage`), null, 'nor of a key')
  await sql`UPDATE usage_lines SET stored = 11, tail = 0 WHERE boot_id = 'one' AND hour = ${iso(base)}`
  t.equal(await lostOf(all), 2, 'sums that came before their line make up for nothing')
  const other = await newProject(app)
  t.equal((await app.call('GET', `/projects/${other.projectId}/usage?${all}`)).body.lost, 0)
})

await t.test('top keys: most first, equal ones by id, with name and status', async t => {
  const { projectId, keyIds } = await newProject(app, 6)
  const [a, b, c, d, e, f] = keyIds.toSorted() as [string, string, string, string, string, string]
  await sql`UPDATE keys SET status = 'disabled' WHERE id = ${b}`
  await sql`UPDATE keys SET expires_at = now() - interval '1 day' WHERE id = ${c}`
  const at = iso(base)
  await book(app.parts, projectId, [
    { keyId: a, at, admitted: 5, upstreamErrors: 1 }, { keyId: b, at, admitted: 5, limited: 9 }, { keyId: c, at, admitted: 4 }, { keyId: c, at: iso(base + 2 * hourMs), admitted: 4, scope: 'files' },
    { keyId: d, at, refused: 3 }, { keyId: e, at: iso(base - dayMs), admitted: 100 }, { keyId: 'key_unknownunknownunknown0', at, admitted: 1 }
  ])
  const top = async (query: string): Promise<any[]> => (await app.call('GET', `/projects/${projectId}/usage/keys?${query}`)).body.data
  const all = `from=${at}&until=${iso(base + dayMs)}`
  t.match(await top(all), [
    { keyId: c, status: 'expired', ...nothing, admitted: 8 }, { keyId: a, status: 'active', ...nothing, admitted: 5, upstreamErrors: 1 }, { keyId: b, status: 'disabled', admitted: 5, limited: 9 },
    { keyId: 'key_unknownunknownunknown0', name: null, status: 'deleted', admitted: 1 }
  ])
  t.ok((await top(all)).every(({ keyId }) => keyId !== '*' && keyId !== f), 'the project itself is no key, and who did nothing is left out')
  t.same((await top(`${all}&limit=2`)).map(({ keyId }) => keyId), [c, a])
  t.same((await top(`${all}&by=limited`)).map(({ keyId }) => keyId), [b])
  t.same((await top(`${all}&by=refused`)).map(({ keyId }) => keyId), [d])
  t.same((await top(`${all}&by=upstreamErrors`)).map(({ keyId }) => keyId), [a])
  t.same((await top(`interval=day&from=${iso(base - dayMs)}`)).map(({ keyId }) => keyId).slice(0, 2), [e, c])
  t.match(await app.call('GET', `/projects/${projectId}/usage/keys?interval=minute`), { status: 422, body: { errors: [{ pointer: '/interval' }] } })
  // One step more than the longest range, because whoever asks has another clock.
  for (const [interval, days] of [['hour', 7], ['day', 31]] as const) {
    const during = (more: number) => `interval=${interval}&until=${at}&from=${iso(base - days * dayMs - more)}`
    t.match(await app.call('GET', `/projects/${projectId}/usage/keys?${during(0)}`), { status: 200 })
    t.match(await app.call('GET', `/projects/${projectId}/usage/keys?${during(2 * dayMs)}`), { status: 422, body: { errors: [{ pointer: '/from', message: new RegExp(`at most ${days} days`) }] } }, 'all keys are compared')
  }
  t.match(await app.call('GET', `/projects/${projectId}/usage/keys?limit=101`), { status: 422, body: { errors: [{ pointer: '/limit' }] } })
})

await t.test('what cannot be answered is refused, and says which parameter', async t => {
  const { projectId, keyIds: [keyId = ''] } = await newProject(app, 1)
  await book(app.parts, projectId, Array.from({ length: 3 }, (_, n) => ({ keyId, at: iso(base + n * hourMs), admitted: 1 })))
  const of = `/projects/${projectId}/usage`
  const range = `from=${iso(base)}&until=${iso(base + dayMs)}`
  const first = await app.call('GET', `${of}?${range}&limit=1`)
  const { nextCursor } = first.body
  t.type(nextCursor, 'string', first.text)
  const cursorOf = (parts: unknown): string => Buffer.from(JSON.stringify(parts)).toString('base64url')
  const refused: Array<[string, number, string]> = [
    ['interval=week', 422, '/interval'], ['groupBy=nothing', 422, '/groupBy'], ['from=yesterday', 422, '/from'], ['from=2026-11-21', 422, '/from'], ['limit=1501', 422, '/limit'], ['limit=0', 422, '/limit'], ['keyId=*', 422, '/keyId'],
    [`from=${iso(base)}&until=${iso(base)}`, 422, '/from'], [`interval=minute&from=${iso(base - 9 * dayMs)}`, 422, '/from'], [`from=${iso(base - 95 * dayMs)}`, 422, '/from'], ['unknown=1', 400, '/unknown'], ['scope=%00', 422, '/scope'],
    ['cursor=nonsense', 400, '/cursor'], [`groupBy=scope&cursor=${nextCursor}`, 400, '/cursor'], [`interval=day&cursor=${nextCursor}`, 400, '/cursor'],
    ...[[iso(base), '[1]'], [iso(base), '["a"]'], [iso(base), '{}'], [iso(base), '['], ['2026-11-41T00:00:00.000Z', '[]']].map(([value, id]): [string, number, string] => [`cursor=${cursorOf(['hour none', value, id])}`, 400, '/cursor']),
    [`groupBy=scope&cursor=${cursorOf(['hour scope', iso(base), '["\\u0000"]'])}`, 400, '/cursor']
  ]
  for (const [query, status, pointer] of refused) t.match(await app.call('GET', `${of}?${query}`), { status, body: { errors: [{ pointer }] } }, query)
  t.match(await app.call('GET', `/projects/${projectId}/keys/${keyId}/usage?groupBy=key`), { status: 422, body: { errors: [{ pointer: '/groupBy' }] } })
  t.match(await app.call('GET', `${of}/export?format=xlsx`), { status: 422, body: { errors: [{ pointer: '/format' }] } })
  t.match(await app.call('GET', `${of}/export?limit=1`), { status: 400, body: { errors: [{ pointer: '/limit' }] } }, 'an export has no pages')
  t.match(await app.call('GET', `${of}?${range}&limit=1&cursor=${nextCursor}`), { status: 200, body: { data: [{ at: iso(base + hourMs) }] } }, 'and a right cursor goes on')
})
