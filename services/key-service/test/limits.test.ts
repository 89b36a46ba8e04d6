import { loadCatalogue } from '@keygate/api-catalog'
import { startRedis } from '@keygate/local'
import { RedisStore, beat, draft7Headers, limitsOfKey, type Decision, type KeyLimit, type LimitedKey } from '@keygate/rate-limit'
import postgres from 'postgres'
import { test, type Test } from 'tap'
import { configFor, redisIsReady, startApp, startHouse, tokens, tokensFile, type TestApp } from './helper.ts'

/** One that a test may stop. */
async function ownRedis (t: Test) {
  const redis = await startRedis()
  t.teardown(async () => { await redis.stop() })
  return redis
}

const policy = (name: string, limit: number, more: object = {}) => ({ name, limit, windowSeconds: 60, ...more })

test('limits', async t => {
  const house = await startHouse(t)

  async function start (overrides: object = {}) {
    const url = await house.database()
    const sql = postgres(url, { max: 1, onnotice: () => {} })
    t.teardown(async () => { await sql.end({ timeout: 1 }) })
    const config = configFor(t, url, house.redis.url, overrides)
    const app = await startApp(t, config)
    await redisIsReady(app)
    return { app, sql, config, catalogue: await loadCatalogue(config.apisFile) }
  }

  async function newKey ({ call }: TestApp, { ofProject = null, ofKey = null }: { ofProject?: object[] | null, ofKey?: object[] | null } = {}) {
    const project = await call('POST', '/projects', { name: 'P', policies: ofProject })
    const { body } = await call('POST', `/projects/${project.body.id}/keys`, { name: 'K', policies: ofKey })
    return { ...body, at: `/projects/${body.projectId}/keys/${body.id}`, limit: `/projects/${body.projectId}/keys/${body.id}/limit` }
  }

  await t.test('the live limit of a key', async t => {
    const { app, catalogue, sql } = await start({ apisFile: new URL('fixtures/limits/apis.yaml', import.meta.url).pathname })
    const { call, parts } = app
    const store = new RedisStore(parts.redis)
    const [forms, reports] = catalogue.apis
    if (forms === undefined || reports === undefined) throw new Error('the fixture has two APIs')
    const operationOf = (id: string) => forms.operations.find(operation => operation.id === id) ?? { id, policies: [] }

    /** As a gateway does it, for a caller at some address. */
    const limitsOf = (key: LimitedKey, operation = 'listSubmissions', api = forms): KeyLimit[] => limitsOfKey(key, api, operationOf(operation), () => 'somewhere')
    const decide = async (key: LimitedKey, times: number, ...call: [string?]): Promise<Decision> => {
      let decision: Decision | undefined
      for (let i = 0; i < times; i++) decision = await store.decide({ cost: 1, limits: limitsOf(key, ...call) }) as Decision
      return decision as Decision
    }
    const plain = (key: { projectId: string, id: string }, policies: LimitedKey['policies'] = null): LimitedKey => ({ projectId: key.projectId, keyId: key.id, policies })

    await t.test('P3 the numbers are those of the headers, and asking counts nothing', async t => {
      const key = await newKey(app)
      t.match((await call('GET', key.limit)).body.data[0], { remaining: 20, resetSeconds: 60, admittedAgoMs: [] })
      for (const times of [1, 4, 15]) await decide(plain(key), times)
      const before = await store.peek(limitsOf(plain(key)))
      const { status, body } = await call('GET', key.limit)
      const after = await store.peek(limitsOf(plain(key)))
      t.equal(status, 200)
      const [live] = body.data
      t.match(live, { api: 'forms', operation: null, owner: 'api', name: 'default', limit: 20, windowSeconds: 60, algorithm: 'sliding', partition: 'key', remaining: 0 })
      // Time passes between the three: the answer lies between the two headers.
      const resets = [after, before].map(decision => Number(/reset=(\d+)/.exec(draft7Headers(decision)['ratelimit'] ?? '')?.[1]))
      t.ok(live.resetSeconds >= (resets[0] ?? NaN) && live.resetSeconds <= (resets[1] ?? NaN), `${live.resetSeconds} is within ${resets.join(' and ')}`)
      t.match(draft7Headers(after), { ratelimit: /limit=20, remaining=0/ })
      t.equal(live.admittedAgoMs.length, 20)
      t.strictSame(live.admittedAgoMs, [...live.admittedAgoMs].sort((a, b) => b - a), 'oldest first')
      t.ok(live.admittedAgoMs.every((age: number) => Number.isInteger(age) && age >= 0 && age < 60_000))
      t.match(await store.decide({ cost: 1, limits: limitsOf(plain(key)) }), { outcome: 'limited' })
    })

    await t.test('an operation\'s own limit stands beside the others', async t => {
      const key = await newKey(app)
      await decide(plain(key), 2, 'exportSubmissions')
      await decide(plain(key), 1)
      const { body } = await call('GET', key.limit)
      t.strictSame(body.data.map((live: { api: string, operation: string, owner: string, name: string, remaining: number }) => [live.api, live.operation, live.owner, live.name, live.remaining]), [
        ['forms', null, 'api', 'default', 17],
        ['forms', 'exportSubmissions', 'operation', 'export', 3],
        ['reports', null, 'api', 'default', 120]
      ])
    })

    await t.test('a key\'s list replaces the project\'s, which replaces the API\'s, and counts over all APIs', async t => {
      const ofProject = [policy('team', 50, { partition: 'project' }), policy('each', 9)]
      const one = await newKey(app, { ofProject })
      const list = one.policies ?? ofProject.map(p => ({ algorithm: 'sliding', partition: 'key', ...p }))
      await decide(plain(one, { owner: 'project', list }), 3)
      await store.decide({ cost: 1, limits: limitsOf(plain(one, { owner: 'project', list }), 'x', reports) })
      const seen = async (at: string) => (await call('GET', at)).body.data.filter((live: { operation: string | null }) => live.operation === null)
        .map((live: { api: string, owner: string, name: string, remaining: number }) => [live.api, live.owner, live.name, live.remaining])
      t.strictSame(await seen(one.limit), [[null, 'project', 'team', 46], [null, 'project', 'each', 5]])

      const { body: two } = await call('POST', `/projects/${one.projectId}/keys`, { name: 'K2' })
      const twoLimit = `/projects/${two.projectId}/keys/${two.id}/limit`
      t.strictSame(await seen(twoLimit), [[null, 'project', 'team', 46], [null, 'project', 'each', 9]], 'what is counted per project is shared')
      await app.app.inject({
        method: 'PATCH', url: `/v1/projects/${two.projectId}/keys/${two.id}`, headers: { authorization: `Bearer ${tokens.all}`, 'if-match': '*' }, payload: { policies: [policy('own', 7, { algorithm: 'fixed' })] }
      })
      await decide(plain(two, { owner: 'key', list: [policy('own', 7, { algorithm: 'fixed', partition: 'key' }) as KeyLimit['policy']] }), 2)
      t.strictSame(await seen(twoLimit), [[null, 'key', 'own', 5]])
      t.match((await call('GET', twoLimit)).body.data[0], { algorithm: 'fixed', admittedAgoMs: [], resetSeconds: Number })
    })

    await t.test('of a limit per address there are no numbers; of very many admissions the newest 120', async t => {
      const key = await newKey(app, { ofKey: [policy('near', 5, { partition: 'address' }), policy('wide', 500)] })
      const list = key.policies as KeyLimit['policy'][]
      await store.decide({ cost: 200, limits: limitsOf(plain(key, { owner: 'key', list: list.slice(1) })) })
      const { body } = await call('GET', key.limit)
      t.match(body.data[0], { name: 'near', limit: 5, partition: 'address', remaining: null, resetSeconds: null, admittedAgoMs: [] })
      t.match(body.data[1], { name: 'wide', remaining: 300 })
      t.equal(body.data[1].admittedAgoMs.length, 120)
    })

    await t.test('a reset gives the key all of its limits back, touches nobody else\'s, and is written down', async t => {
      const ofProject = [policy('team', 50, { partition: 'project' }), policy('each', 9)]
      const key = await newKey(app, { ofProject })
      const { body: other } = await call('POST', `/projects/${key.projectId}/keys`, { name: 'K2' })
      const list = ofProject.map(p => ({ algorithm: 'sliding', partition: 'key', ...p })) as KeyLimit['policy'][]
      for (const id of [key.id, other.id]) await decide({ ...plain(key, { owner: 'project', list }), keyId: id }, 2, 'exportSubmissions')
      const remaining = async (at: string): Promise<number[]> => (await call('GET', at)).body.data.map((live: { remaining: number }) => live.remaining)
      t.strictSame(await remaining(key.limit), [46, 7, 3])

      t.match(await call('DELETE', key.limit), { status: 204, text: '' })
      t.strictSame(await remaining(key.limit), [46, 9, 5], 'what all keys of the project share stays')
      t.strictSame(await remaining(`/projects/${other.projectId}/keys/${other.id}/limit`), [46, 7, 3])
      t.match(await sql`SELECT action, project_id, key_id, actor_name, details FROM audit_events WHERE action = 'limit.reset'`, [
        { action: 'limit.reset', project_id: key.projectId, key_id: key.id, actor_name: 'all', details: { policies: ['each', 'export'] } }
      ])

      const alone = await newKey(app)
      await decide(plain(alone), 20, 'listSubmissions')
      t.match(await store.decide({ cost: 1, limits: limitsOf(plain(alone)) }), { outcome: 'limited' })
      await call('DELETE', alone.limit)
      t.strictSame(await parts.redis.client.keys(`kg:{${alone.projectId}}:*`), [`kg:{${alone.projectId}}:versions`])
      t.match(await store.decide({ cost: 1, limits: limitsOf(plain(alone)) }), { outcome: 'admitted', remaining: 19 })
    })

    await t.test('who may, and what is not there', async t => {
      const key = await newKey(app)
      t.match(await call('GET', key.limit, undefined, tokens.reader), { status: 200 })
      t.match(await call('DELETE', key.limit, undefined, tokens.reader), { status: 403, body: { code: 'forbidden' } })
      await call('DELETE', key.at)
      for (const method of ['GET', 'DELETE']) t.match(await call(method, key.limit), { status: 404, body: { code: 'key_not_found' } })
      t.equal((await sql`SELECT id FROM audit_events WHERE action = 'limit.reset' AND key_id = ${key.id}`).length, 0)
    })
  })

  await t.test('without Redis the limits are unavailable, and nothing is written down as reset', async t => {
    const redis = await ownRedis(t)
    const url = await house.database()
    const app = await startApp(t, configFor(t, url, redis.url))
    await redisIsReady(app)
    const key = await newKey(app)
    await redis.stop()
    for (const method of ['GET', 'DELETE']) {
      t.match(await app.call(method, key.limit), { status: 503, headers: { 'retry-after': '1' }, body: { code: 'limits_unavailable' } }, method)
    }
    const sql = postgres(url, { max: 1, onnotice: () => {} })
    t.teardown(async () => { await sql.end({ timeout: 1 }) })
    t.equal((await sql`SELECT id FROM audit_events WHERE action = 'limit.reset'`).length, 0)
  })

  await t.test('health: what is there, and how many share the limits', async t => {
    const redis = await ownRedis(t)
    const app = await startApp(t, configFor(t, await house.database(), redis.url))
    const health = async () => (await app.call('GET', '/health')).body
    /** Asks until it is as wanted: a stalled machine may cut the connection. The test's own time-out ends it. */
    const until = async (wanted: (body: Awaited<ReturnType<typeof health>>) => boolean, prepare = async () => {}) => {
      for (;;) {
        await redisIsReady(app)
        await prepare().catch(() => {})
        const body = await health()
        if (wanted(body)) return body
        await new Promise(resolve => setImmediate(resolve))
      }
    }

    t.strictSame(await until(body => body.redis.reachable), {
      redis: { reachable: true }, gateways: { count: 0, seenWithinSeconds: 60 }, outbox: { undelivered: 0, oldestSeconds: 0 }, share: { replicas: 1 }
    }, 'asking is no heartbeat')
    const beats = async () => { for (const gateway of ['a', 'b', 'c']) await beat(app.parts.redis, gateway) }
    t.match(await until(body => body.gateways.count !== null, beats), { gateways: { count: 3 }, share: { replicas: 3 } })
    // It looks by itself every few seconds, and at every connect; then, without any beat left, it shows what it has seen.
    t.match(await until(body => body.share.replicas === 3, async () => {
      await beats()
      app.parts.redis.emit('ready')
      for (let i = 0; i < 3; i++) { // two round trips, and what comes after theirs
        await app.parts.redis.client.ping()
        await new Promise(resolve => setImmediate(resolve))
      }
      await app.parts.redis.client.del('kg:gateways')
    }), { gateways: { count: 0 } })

    await redis.stop()
    const key = await newKey(app)
    t.equal(key.effective, 'pending')
    t.match(await health(), {
      redis: { reachable: false }, gateways: { count: null, seenWithinSeconds: 60 }, outbox: { undelivered: 2, oldestSeconds: Number }, share: { replicas: 3 }
    }, 'and by how many they divide now')
    t.match(await app.call('GET', '/health', undefined, tokens.reader), { status: 403 })
  })

  await t.test('requests per address', async t => {
    const pair = async (overrides: object = {}) => {
      const config = configFor(t, await house.database(), house.redis.url, { requestsLimit: 20, ...overrides })
      const apps = [await startApp(t, config), await startApp(t, config)] as const
      await Promise.all(apps.map(redisIsReady))
      return apps
    }
    const forget = async ({ parts }: TestApp) => { for (const log of await parts.redis.client.keys('kg:{a:*')) await parts.redis.client.del(log) }
    /** Asks so often at once, with nothing counted before; again if a stalled machine has kept Redis from answering some. */
    const together = async (one: TestApp, times: number, ask: (i: number) => ReturnType<typeof from>) => {
      for (;;) {
        await redisIsReady(one)
        await forget(one)
        const answers = await Promise.all(Array.from({ length: times }, async (_, i) => await ask(i)))
        if (answers.every(({ headers }) => 'ratelimit' in headers)) return answers
      }
    }
    const from = async ({ app }: TestApp, address: string, url = '/v1/projects', authorization = `Bearer ${tokens.all}`) =>
      await app.inject({ url, remoteAddress: address, headers: { authorization } })

    await t.test('exactly as many as the limit over two replicas, and the headers say so', async t => {
      const [one, two] = await pair()
      await forget(one)
      t.match(await from(one, '192.0.2.1'), { statusCode: 200, headers: { 'ratelimit-policy': '20;w=60', ratelimit: /^limit=20, remaining=19, reset=(60|59)$/ } })
      const answers = await together(one, 40, async i => await from(i % 2 === 0 ? one : two, '192.0.2.1'))
      t.equal(answers.filter(answer => answer.statusCode === 200).length, 20)
      const refused = answers.filter(answer => answer.statusCode === 429)
      t.equal(refused.length, 20)
      for (const answer of refused) {
        t.match(answer.headers, { ratelimit: /^limit=20, remaining=0, reset=\d+$/, 'retry-after': /^[1-9]\d?$/, 'content-type': 'application/problem+json' })
        t.match(answer.json(), { status: 429, code: 'too_many_requests', 'violated-policies': ['requests'] })
      }
      t.notMatch(refused[0]?.headers, { 'x-ratelimit-limit': /./ })
      t.match(await from(one, '192.0.2.2'), { statusCode: 200 }, 'another address has its own')
    })

    await t.test('GX-11 it is counted before anybody is authenticated: guesses end in 429, not in look-ups', async t => {
      const [one, two] = await pair()
      const answers = await together(one, 30, async i => await from(i % 2 === 0 ? one : two, '192.0.2.3', '/v1/projects', `Bearer kgs_${'x'.repeat(40)}${i}`))
      t.equal(answers.filter(answer => answer.statusCode === 401).length, 20)
      t.equal(answers.filter(answer => answer.statusCode === 429).length, 10)
    })

    await t.test('an IPv6 customer is one address; what gateways ask is not counted; nor are probes', async t => {
      const [one] = await pair({ requestsLimit: 2 })
      await forget(one)
      for (const address of ['2001:db8::1', '2001:db8::2']) t.equal((await from(one, address)).statusCode, 200)
      t.equal((await from(one, '2001:db8::ffff')).statusCode, 429)
      t.equal((await from(one, '2001:db8:0:1::1')).statusCode, 200)
      for (let i = 0; i < 5; i++) {
        const polled = await from(one, '192.0.2.4', '/v1/changes')
        t.equal(polled.statusCode, 200)
        t.notHas(polled.headers, 'ratelimit')
        const asked = await one.app.inject({ method: 'POST', url: '/v1/verifications', remoteAddress: '192.0.2.4', headers: { authorization: `Bearer ${tokens.verify}` }, payload: { digest: 'x'.repeat(43) } })
        t.notHas(asked.headers, 'ratelimit')
        t.not(asked.statusCode, 429)
        t.equal((await from(one, '192.0.2.4', '/livez')).statusCode, 200)
      }
    })

    await t.test('the address is the one that a believed proxy names', async t => {
      const [one] = await pair({ requestsLimit: 1, trustProxy: ['192.0.2.9'] })
      await forget(one)
      const via = async (proxy: string, client: string) =>
        (await one.app.inject({ url: '/v1/projects', remoteAddress: proxy, headers: { authorization: `Bearer ${tokens.all}`, 'x-forwarded-for': client } })).statusCode
      t.strictSame([await via('192.0.2.9', '198.51.100.1'), await via('192.0.2.9', '198.51.100.2'), await via('192.0.2.9', '198.51.100.1')], [200, 200, 429])
      t.strictSame([await via('192.0.2.8', '198.51.100.3'), await via('192.0.2.8', '198.51.100.4')], [200, 429], 'anybody else may say what they want')
    })

    await t.test('P5 without Redis each process counts alone, on from what it had seen, and no header claims more', async t => {
      const redis = await ownRedis(t)
      const app = await startApp(t, configFor(t, await house.database(), redis.url, { requestsLimit: 10, serviceTokensFile: tokensFile(t) }))
      await redisIsReady(app)
      for (let i = 0; i < 4; i++) t.match((await from(app, '192.0.2.1')).headers, { ratelimit: `limit=10, remaining=${9 - i}` })
      await redis.stop()
      const answers = []
      for (let i = 0; i < 12; i++) answers.push(await from(app, '192.0.2.1'))
      t.strictSame(answers.map(answer => answer.statusCode), [...Array(6).fill(200), ...Array(6).fill(429)])
      for (const { headers } of answers) t.notOk('ratelimit' in headers || 'ratelimit-policy' in headers)
      t.match(answers.at(-1)?.headers, { 'retry-after': /^[1-9]\d?$/ })
    })
  })
})
