import postgres from 'postgres'
import t from 'tap'
import { openHouse, type Key } from './house.ts'

const house = await openHouse({ logLevel: 'warn' })
const sql = postgres(house.stack.postgres.url, { max: 1 })
t.teardown(async () => {
  await sql.end({ timeout: 1 })
  await house.stop()
})

interface Answer { status: number, etag: string | null, body: Record<string, any> }

const many = 20
const keys = `/v1/projects/${house.projectId}/keys`

async function ask (method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(house.stack.keyService.url + path, {
    method,
    headers: { authorization: `Bearer ${house.stack.tokens.operator}`, ...body === undefined ? {} : { 'content-type': 'application/json' }, ...headers },
    ...body === undefined ? {} : { body: JSON.stringify(body) }
  })
  const text = await response.text()
  return { status: response.status, etag: response.headers.get('etag'), body: text === '' ? {} : JSON.parse(text) }
}

/** The same request, `many` times at once; `each` may make a difference. */
async function atOnce (request: (i: number) => Promise<Answer>): Promise<Answer[]> {
  return await Promise.all(Array.from({ length: many }, async (_, i) => await request(i)))
}

const statuses = (answers: Answer[]): Record<number, number> => answers.reduce<Record<number, number>>((sum, { status }) => ({ ...sum, [status]: (sum[status] ?? 0) + 1 }), {})
const through = async (secret: string): Promise<number[]> => await Promise.all([0, 1].map(async gateway => (await house.use(gateway, secret)).status))
const live = async (key: Key) => [...await sql<Array<{ state: string, hint: string }>>`SELECT state, hint FROM secrets WHERE key_id = ${key.id}`]
const actions = async (key: { id: string }) => (await sql<Array<{ action: string }>>`SELECT action FROM audit_events WHERE key_id = ${key.id} ORDER BY seq`).map(({ action }) => action)

async function warmKey (): Promise<Key> {
  const key = await house.createKey()
  await through(key.secret)
  return key
}

t.test('K4: 20 rotations at once: one secret lives, some caller got it, and both gateways know only that one', async t => {
  const key = await warmKey()
  const answers = await atOnce(async () => await ask('POST', `${keys}/${key.id}/rotate`, {}))
  t.strictSame(statuses(answers), { 200: many })
  const last = answers.find(({ body }) => body['version'] === key.version + many)
  const rows = await live(key)
  t.strictSame(rows, [{ state: 'current', hint: last?.body['hint'] }])
  for (const { body } of answers) t.strictSame(await through(body['secret']), body === last?.body ? [200, 200] : [401, 401])
  t.strictSame(await through(key.secret), [401, 401])
  t.strictSame(await actions(key), ['key.create', ...Array(many).fill('key.rotate')])
})

t.test('20 rotations with a grace at once: the last two secrets live, and no other', async t => {
  const key = await warmKey()
  const answers = await atOnce(async () => await ask('POST', `${keys}/${key.id}/rotate`, { gracePeriodSeconds: 600 }))
  t.strictSame(statuses(answers), { 200: many })
  t.strictSame((await live(key)).map(({ state }) => state).sort(), ['current', 'retiring'])
  for (const { body } of answers) t.strictSame(await through(body['secret']), body['version'] >= key.version + many - 1 ? [200, 200] : [401, 401])
})

t.test('20 revocations at once: one is made, the others are told that it is final', async t => {
  const key = await warmKey()
  const answers = await atOnce(async i => await ask('POST', `${keys}/${key.id}/revoke`, { reason: `reason ${i}` }))
  t.strictSame(statuses(answers), { 200: 1, 409: many - 1 })
  t.strictSame([...await sql`SELECT status, version::int FROM keys WHERE id = ${key.id}`], [{ status: 'revoked', version: key.version + 1 }])
  t.strictSame(await actions(key), ['key.create', 'key.revoke'])
  t.strictSame(await through(key.secret), [401, 401])
})

t.test('20 deletions at once: one is made, for the others there is no such key', async t => {
  const key = await warmKey()
  const answers = await atOnce(async () => await ask('DELETE', `${keys}/${key.id}`))
  t.strictSame(statuses(answers), { 204: 1, 404: many - 1 })
  t.strictSame([...await sql`SELECT status, version::int FROM keys WHERE id = ${key.id}`], [{ status: 'deleted', version: key.version + 1 }])
  t.strictSame(await live(key), [])
  t.strictSame(await actions(key), ['key.create', 'key.delete'])
  t.strictSame(await through(key.secret), [401, 401])
})

t.test('20 edits at once with one ETag: one is made, 412 for the others, and both gateways go by that one', async t => {
  const key = await warmKey()
  const { etag } = await ask('GET', `${keys}/${key.id}`)
  const answers = await atOnce(async i => await ask('PATCH', `${keys}/${key.id}`, { policies: [{ name: 'wide', limit: 1000 + i, windowSeconds: 60 }] }, { 'if-match': String(etag) }))
  t.strictSame(statuses(answers), { 200: 1, 412: many - 1 })
  const won = answers.find(({ status }) => status === 200) as Answer
  const limit = won.body['policies'][0].limit
  t.strictSame([...await sql`SELECT "limit"::int FROM policies WHERE key_id = ${key.id}`], [{ limit }])
  t.strictSame([...await sql`SELECT version::int FROM keys WHERE id = ${key.id}`], [{ version: key.version + 1 }])
  t.strictSame(await actions(key), ['key.create', 'key.edit'])
  for (const gateway of [0, 1]) t.equal((await house.use(gateway, key.secret)).headers['ratelimit-policy'], `${limit};w=60`)
})

t.test('K5, GX-20: 20 creations at once with one Idempotency-Key: one key, and every answer is its first one', async t => {
  const body = { name: 'only once', allowedForAll: true }
  const headers = { 'idempotency-key': '"5c9e4f0a-only-once"' }
  const create = async (): Promise<Answer> => await ask('POST', keys, body, headers)
  const answers = await atOnce(create)
  const [first] = answers.filter(({ status }) => status === 201) as [Answer]
  for (const answer of answers) {
    if (answer.status === 201) t.strictSame(answer.body, first.body)
    else t.match(answer, { status: 409, body: { code: 'request_in_flight' } })
  }
  t.strictSame((await create()).body, first.body, 'asked again later')
  t.strictSame([...await sql`SELECT id FROM keys WHERE name = ${body.name}`], [{ id: first.body['id'] }])
  t.strictSame(await actions({ id: first.body['id'] }), ['key.create'])
  t.strictSame(await through(first.body['secret']), [200, 200])
})

t.test('a mixture at once: whatever came last is what the database, the answers and both gateways say', async t => {
  const key = await warmKey()
  const requests = [
    async () => await ask('POST', `${keys}/${key.id}/disable`), async () => await ask('POST', `${keys}/${key.id}/enable`),
    async () => await ask('POST', `${keys}/${key.id}/rotate`, {}), async () => await ask('PATCH', `${keys}/${key.id}`, { description: 'x' }, { 'if-match': '*' })
  ]
  const answers = await atOnce(async i => await (requests[i % requests.length] as () => Promise<Answer>)())
  t.strictSame(statuses(answers), { 200: many })
  const last = answers.find(({ body }) => body['version'] === key.version + many) as Answer
  const newest = answers.filter(({ body }) => body['secret'] !== undefined).sort((a, b) => b.body['version'] - a.body['version'])[0] as Answer
  const [row] = await sql<Array<{ status: string, version: number }>>`SELECT status, version::int FROM keys WHERE id = ${key.id}`
  t.strictSame(row, { status: last.body['status'], version: key.version + many })
  t.strictSame(await through(newest.body['secret']), last.body['status'] === 'active' ? [200, 200] : [401, 401])
  t.strictSame(answers.map(({ body }) => body['version']).sort((a, b) => a - b), Array.from({ length: many }, (_, i) => key.version + 1 + i), 'each change has a version of its own')
})
