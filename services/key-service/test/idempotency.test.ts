import { fork } from 'node:child_process'
import { once } from 'node:events'
import { generateSecret } from '@keygate/api-key'
import { startTcpProxy } from '@keygate/local'
import postgres from 'postgres'
import { test } from 'tap'
import { permissions } from '../src/access/permissions.ts'
import { canonicalJson } from '../src/idempotency/fingerprint.ts'
import { parseIdempotencyKey } from '../src/idempotency/header.ts'
import { createUpkeep } from '../src/idempotency/upkeep.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens, tokensFile, type Answer, type Sql, type TestApp } from './helper.ts'
import type { Order } from './idempotency-worker.ts'

test('the two forms of an Idempotency-Key', async t => {
  for (const [header, key] of [
    ['a', 'a'], ['"a"', 'a'], ['8e03978e-40d5-43e8-bc93-6894a57f9324', '8e03978e-40d5-43e8-bc93-6894a57f9324'], ['x'.repeat(255), 'x'.repeat(255)],
    [`"${'x'.repeat(255)}"`, 'x'.repeat(255)], ['!~', '!~'], ['a"b', 'a"b'], ['"a\\"b"', 'a"b'], ['"a\\\\b"', 'a\\b'], ['a\\b', 'a\\b'], ['a,b', 'a,b']
  ] as const) t.strictSame(parseIdempotencyKey(header), { key }, header)
  for (const header of ['', '""', '"', '"a', 'a b', '"a b"', 'a, a', 'x'.repeat(256), `"${'x'.repeat(256)}"`, 'ä', '"ä"', 'a\tb', '"a"; p=1', '"a\\b"', '"a"b"', '"a","a"']) {
    t.match(parseIdempotencyKey(header), { fault: /1 to 255 visible ASCII/ }, JSON.stringify(header))
  }
})

test('the order of members does not make another request, anything else does', async t => {
  t.equal(canonicalJson({ b: [{ d: 1, c: null }], a: 'x' }), canonicalJson({ a: 'x', b: [{ c: null, d: 1 }] }))
  for (const other of [{ a: [1, 2] }, { a: [2, 1] }, { a: { 0: 1, 1: 2 } }, { a: '1,2' }, {}, { a: null }, [], null]) {
    for (const another of [{ a: [1, 2], b: 0 }, [null], '{}', 0]) t.not(canonicalJson(other), canonicalJson(another))
  }
})

test('requests that are sent again', async t => {
  const house = await startHouse(t)

  const somebodyElse = generateSecret('kgs')
  const serviceTokensFile = tokensFile(t, [
    { name: 'all', token: tokens.all, permissions },
    { name: 'other', token: somebodyElse, permissions },
    { name: 'reader', token: tokens.reader, permissions: ['keys:read'] }
  ])

  async function start (overrides: object = {}) {
    const url = await house.database()
    const sql = postgres(url, { max: 1, onnotice: () => {} })
    t.teardown(async () => { await sql.end({ timeout: 1 }) })
    const config = configFor(t, url, house.redis.url, { serviceTokensFile, ...overrides })
    const app = await startApp(t, config)
    await redisIsReady(app)
    const { body: project } = await app.call('POST', '/projects', { name: 'P' })
    return { app, sql, config, keys: `/projects/${project.id as string}/keys`, projectId: project.id as string }
  }

  /** POST with an Idempotency-Key. */
  async function post ({ app }: Pick<TestApp, 'app'>, path: string, key: string, body: object | undefined, token = tokens.all): Promise<Answer> {
    const response = await app.inject({ method: 'POST', url: `/v1${path}`, headers: { authorization: `Bearer ${token}`, 'idempotency-key': key }, ...body === undefined ? {} : { payload: body } })
    return { status: response.statusCode, headers: response.headers, text: response.body, body: response.json() }
  }

  /** A request again and again until it is no longer told to wait. */
  async function postUntilDone (...request: Parameters<typeof post>): Promise<Answer> {
    for (;;) {
      const answer = await post(...request)
      if (answer.status !== 409) return answer
    }
  }

  const count = async (sql: Sql, projectId: string, action = 'key.create') => ({
    keys: (await sql`SELECT id FROM keys WHERE project_id = ${projectId}`).length,
    secrets: (await sql`SELECT id FROM secrets WHERE project_id = ${projectId}`).length,
    events: (await sql`SELECT id FROM audit_events WHERE project_id = ${projectId} AND action = ${action}`).length
  })
  const one = { keys: 1, secrets: 1, events: 1 }

  const { app, sql, keys, projectId, config } = await start()
  const { call } = app
  /** A project of its own for each test that counts. */
  const another = async () => {
    const { body } = await call('POST', '/projects', { name: 'P' })
    return { projectId: body.id as string, keys: `/projects/${body.id as string}/keys` }
  }

  await t.test('GX-20 the same request twice makes one key, and gets the same answer with its secret', async t => {
    const { projectId, keys } = await another()
    const first = await post(app, keys, 'form-1', { name: 'K', scopes: ['submissions'] })
    t.match(first, { status: 201, headers: { 'cache-control': 'no-store' }, body: { name: 'K', secret: /^kg_/, effective: 'everywhere' } })
    t.notHas(first.headers, 'idempotency-replayed')
    const again = await post(app, keys, '"form-1"', { scopes: ['submissions'], name: 'K' })
    t.match(again, { status: 201, headers: { 'idempotency-replayed': 'true', 'cache-control': 'no-store', location: first.headers['location'] as string } })
    t.equal(again.text, first.text, 'to the byte')
    t.strictSame(await count(sql, projectId), one)
    t.match(await post(app, keys.toUpperCase().replace('/PROJECTS', '/projects').replace('/KEYS', '/keys'), 'form-1', { name: 'K', scopes: ['submissions'] }), { status: 201, text: first.text }, 'the project spelt otherwise')
  })

  await t.test('K5 twenty at once make one key; each gets its answer, or is told to wait', async t => {
    const { projectId, keys } = await another()
    const second = await startApp(t, config)
    await redisIsReady(second)
    const answers = await Promise.all(Array.from({ length: 20 }, async (_, i) => await post(i % 2 === 0 ? app : second, keys, 'double-click', { name: 'K' })))
    t.strictSame(await count(sql, projectId), one)
    const [first] = answers.filter(answer => answer.status === 201)
    for (const answer of answers) {
      if (answer.status === 409) t.match(answer, { headers: { 'retry-after': '1' }, body: { code: 'request_in_flight' } })
      else t.equal(answer.text, first?.text)
    }
    t.equal(answers.filter(answer => answer.status === 201 && answer.headers['idempotency-replayed'] === undefined).length, 1, 'one was the first')
    t.equal((await post(second, keys, 'double-click', { name: 'K' })).text, first?.text)
  })

  await t.test('a rotation is made once, too', async t => {
    const { projectId, keys } = await another()
    const { body: { id, secret } } = await call('POST', keys, { name: 'K' })
    const answers = await Promise.all(Array.from({ length: 8 }, async () => await postUntilDone(app, `${keys}/${id as string}/rotate`, 'rotate-1', { gracePeriodSeconds: 3600 })))
    for (const answer of answers) t.match(answer, { status: 200, text: answers[0]?.text as string, body: { id, version: 2 } })
    t.not(answers[0]?.body.secret, secret)
    t.strictSame(await count(sql, projectId, 'key.rotate'), { keys: 1, secrets: 2, events: 1 }, 'the old secret has its grace')
    const plain = await post(app, `${keys}/${id as string}/rotate`, 'rotate-2', undefined)
    t.match(await post(app, `${keys}/${id as string}/rotate`, 'rotate-2', { gracePeriodSeconds: 0 }), { status: 200, text: plain.text }, 'no body is the default')
  })

  await t.test('another request under the same key is refused, whatever differs', async t => {
    const { projectId, keys } = await another()
    const { body: { id } } = await post(app, keys, 'once', { name: 'K' })
    const { body: other } = await call('POST', keys, { name: 'other' })
    for (const body of [{ name: 'K2' }, { name: 'K', active: false }, { name: 'K', scopes: ['submissions'] }]) {
      t.match(await post(app, keys, 'once', body), { status: 422, body: { code: 'idempotency_key_reused', errors: [{ pointer: '/idempotency-key' }] } }, JSON.stringify(body))
    }
    await post(app, `${keys}/${id as string}/rotate`, 'turn', {})
    t.match(await post(app, `${keys}/${other.id as string}/rotate`, 'turn', {}), { status: 422, body: { code: 'idempotency_key_reused' } }, 'another key')
    t.match(await post(app, `${keys}/${id as string}/rotate`, 'turn', { gracePeriodSeconds: 1 }), { status: 422 })
    t.match(await call('GET', `${keys}/${other.id as string}`), { body: { version: 1 } })
    t.equal((await sql`SELECT id FROM keys WHERE project_id = ${projectId}`).length, 2)
  })

  await t.test('the same text of another caller, of another operation or in another project is another key', async t => {
    const [here, there] = [await another(), await another()]
    const mine = await post(app, here.keys, 'text', { name: 'K' })
    const theirs = await post(app, here.keys, 'text', { name: 'K' }, somebodyElse)
    const elsewhere = await post(app, there.keys, 'text', { name: 'K' })
    const rotated = await post(app, `${here.keys}/${mine.body.id as string}/rotate`, 'text', {})
    t.match([mine, theirs, elsewhere, rotated].map(answer => answer.status), [201, 201, 201, 200])
    for (const answer of [theirs, elsewhere, rotated]) t.notHas(answer.headers, 'idempotency-replayed')
    t.equal(new Set([mine, theirs, elsewhere, rotated].map(answer => answer.body.secret)).size, 4)
    t.equal((await post(app, here.keys, 'text', { name: 'K' }, somebodyElse)).text, theirs.text)
  })

  await t.test('a refused request is not kept: mended, it may use its key again', async t => {
    const { projectId, keys } = await another()
    for (const body of [{ name: ' ' }, { name: 'K', scopes: ['nothing'] }, { name: 'K', expiresAt: '2020-01-01' }]) t.match(await post(app, keys, 'try', body), { status: 422, body: { code: 'invalid_request' } })
    t.match(await post(app, keys, 'try', { nmae: 'K' }), { status: 400 })
    t.match(await post(app, keys, 'try', { name: 'K' }, tokens.reader), { status: 403 })
    t.match(await post(app, keys, 'try', { name: 'K' }), { status: 201 })
    t.match(await post(app, `${keys}/key_${'0'.repeat(22)}/rotate`, 'turn', {}), { status: 404 })
    t.strictSame(await count(sql, projectId), one)
    for (const wrong of ['', 'a b', 'x'.repeat(256), '"a']) {
      t.match(await post(app, keys, wrong, { name: 'K' }), { status: 400, body: { code: 'invalid_idempotency_key', errors: [{ pointer: '/idempotency-key', message: /1 to 255/ }] } }, JSON.stringify(wrong))
    }
    t.match(await post(app, keys, 'a, a', { name: 'K' }), { status: 400 }, 'sent twice')
    t.strictSame(await count(sql, projectId), one)
  })

  await t.test('nothing is made again when the key has changed or gone since', async t => {
    const { projectId, keys } = await another()
    const first = await post(app, keys, 'gone', { name: 'K' })
    const at = `${keys}/${first.body.id as string}`
    const turned = await post(app, `${at}/rotate`, 'turned', {})
    t.match(await app.app.inject({ method: 'PATCH', url: `/v1${at}`, headers: { authorization: `Bearer ${tokens.all}`, 'if-match': '*' }, payload: { name: 'renamed' } }), { statusCode: 200 })
    const without = ({ body: { secret, ...others } }: Answer) => ({ ...others, secretOmitted: true })
    t.strictSame((await post(app, keys, 'gone', { name: 'K' })).body, without(first), 'its secret is replaced')
    t.equal((await post(app, `${at}/rotate`, 'turned', {})).text, turned.text)
    await call('DELETE', at)
    t.strictSame((await post(app, keys, 'gone', { name: 'K' })).body, without(first))
    t.strictSame((await post(app, `${at}/rotate`, 'turned', {})).body, without(turned))
    t.match(await call('GET', keys), { body: { data: [] } })
    t.match(await count(sql, projectId), { keys: 1, secrets: 0, events: 1 })
  })

  await t.test('what is stored holds neither the secret nor the client\'s text', async t => {
    const { projectId, keys } = await another()
    const { body } = await post(app, keys, 'a-text-of-the-client', { name: 'K' })
    const [row] = await sql`SELECT row_to_json(k)::text AS row FROM idempotency_keys k WHERE project_id = ${projectId}`
    t.notMatch(row?.['row'], body.secret.slice(3, 25))
    t.notMatch(row?.['row'], 'a-text-of-the-client')
    t.match(await sql`SELECT secret_ciphertext, encryption_key_id FROM idempotency_keys WHERE project_id = ${projectId}`, [{ secret_ciphertext: /^v1:/, encryption_key_id: '1' }])
  })

  await t.test('a crash between the commit and the answer: who asks again gets the first answer', async t => {
    const proxy = await startTcpProxy(house.redis.port)
    t.teardown(async () => { await proxy.stop() })
    const order: Order = {
      config: { ...config, redisUrl: `redis://127.0.0.1:${proxy.port}`, redisTimeoutMs: 30_000, encryptionKeys: undefined },
      encryptionKey: config.encryptionKeys?.current.value.toString('base64') ?? ''
    }

    /** A process that is killed when it has committed and tells Redis. False: on a stalled machine it was faster than its end. */
    async function crash (projectId: string, keys: string): Promise<boolean> {
      const worker = fork(new URL('idempotency-worker.ts', import.meta.url)) // with the loader of this process
      t.teardown(() => { worker.kill('SIGKILL') })
      worker.send(order)
      const [port] = await once(worker, 'message') as [number]
      const delivery = proxy.swallow('up', chunk => chunk.includes(projectId) && chunk.includes('key_'))
      const lost = fetch(`http://127.0.0.1:${port}/v1${keys}`, {
        method: 'POST', headers: { authorization: `Bearer ${tokens.all}`, 'content-type': 'application/json', 'idempotency-key': 'crash' }, body: JSON.stringify({ name: 'K' })
      }).then(() => false, () => true)
      await Promise.race([delivery, lost])
      worker.kill('SIGKILL')
      return await lost
    }

    let { projectId, keys } = await another()
    while (!await crash(projectId, keys)) ({ projectId, keys } = await another())
    t.strictSame(await count(sql, projectId), one, 'it was committed')
    t.strictSame((await sql`SELECT body ? 'effective' AS settled FROM idempotency_keys WHERE project_id = ${projectId}`).map(row => row['settled']), [false])

    const again = await post(app, keys, 'crash', { name: 'K' })
    t.match(again, { status: 201, headers: { 'idempotency-replayed': 'true' }, body: { secret: /^kg_/, version: 1, effective: 'everywhere', effectiveAt: String } }, 'and this one has delivered it')
    t.equal(await app.parts.redis.client.hget(`kg:{${projectId}}:versions`, again.body.id), '1')
    t.equal((await post(app, keys, 'crash', { name: 'K' })).text, again.text)
    t.strictSame(await count(sql, projectId), one)
  })

  await t.test('the first answer was pending, and stays what was answered', async t => {
    const away = await startApp(t, { ...config, redisUrl: 'redis://127.0.0.1:1' })
    const { keys } = await another()
    const first = await post(away, keys, 'pending', { name: 'K' })
    t.match(first, { status: 201, body: { effective: 'pending', effectiveAt: null } })
    t.equal((await post(app, keys, 'pending', { name: 'K' })).text, first.text)
  })

  await t.test('the secret is kept for fifteen minutes and the answer for a day, by the database\'s clock', async t => {
    const { projectId, keys } = await another()
    const first = await post(app, keys, 'old', { name: 'K' })
    const age = async (interval: string) => await sql`UPDATE idempotency_keys SET created_at = now() - ${interval}::interval WHERE project_id = ${projectId}`
    const { secret, ...others } = first.body
    await age('14 minutes')
    t.equal((await post(app, keys, 'old', { name: 'K' })).text, first.text)
    await age('15 minutes')
    t.strictSame((await post(app, keys, 'old', { name: 'K' })).body, { ...others, secretOmitted: true })
    await age('23 hours 50 minutes')
    t.match(await post(app, keys, 'old', { name: 'K' }), { status: 201, headers: { 'idempotency-replayed': 'true' }, body: { ...others, secretOmitted: true } })
    await age('24 hours')
    const second = await post(app, keys, 'old', { name: 'K' })
    t.match(second, { status: 201, body: { secret: /^kg_/ } })
    t.not(second.body.id, first.body.id, 'after a day it is another request')
    t.equal((await post(app, keys, 'old', { name: 'K' })).text, second.text)
  })

  await t.test('upkeep erases the ciphertexts and then the rows, at its start already', async t => {
    const { projectId, keys } = await another()
    const [young, quarter, day] = await Promise.all(['young', 'quarter', 'day'].map(async key => (await post(app, keys, key, { name: 'K' })).body.id as string))
    await sql`UPDATE idempotency_keys SET created_at = now() - interval '15 minutes' WHERE key_id = ${quarter ?? ''}`
    await sql`UPDATE idempotency_keys SET created_at = now() - interval '24 hours' WHERE key_id = ${day ?? ''}`
    const upkeep = createUpkeep({ database: app.parts.database, log: app.app.log, intervalMs: 3_600_000 })
    upkeep.start()
    await upkeep.stop()
    const left = await sql`SELECT key_id, secret_ciphertext IS NOT NULL AS kept, encryption_key_id FROM idempotency_keys WHERE project_id = ${projectId}`
    t.strictSame(new Map(left.map(row => [row['key_id'], [row['kept'], row['encryption_key_id']]])), new Map([[young, [true, '1']], [quarter, [false, null]]]))
  })

  await t.test('a ciphertext that cannot be read, and an installation without an encryption key: the answer without its secret', async t => {
    const { projectId, keys } = await another()
    const first = await post(app, keys, 'damaged', { name: 'K' })
    const { secret, ...others } = first.body
    await sql`UPDATE idempotency_keys SET secret_ciphertext = overlay(secret_ciphertext PLACING 'AAAA' FROM 25) WHERE project_id = ${projectId}`
    t.strictSame((await post(app, keys, 'damaged', { name: 'K' })).body, { ...others, secretOmitted: true })

    const keyless = await start({ encryptionKeys: undefined })
    const made = await post(keyless.app, keyless.keys, 'keyless', { name: 'K' })
    t.match(made, { status: 201, body: { secret: /^kg_/ } })
    const { secret: told, ...rest } = made.body
    t.strictSame((await post(keyless.app, keyless.keys, 'keyless', { name: 'K' })).body, { ...rest, secretOmitted: true })
    t.strictSame(await count(keyless.sql, keyless.projectId), one)
    t.match(await keyless.sql`SELECT secret_ciphertext FROM idempotency_keys`, [{ secret_ciphertext: null }])
  })

  await t.test('without the header each request is one of its own', async t => {
    const [one, two] = [await call('POST', keys, { name: 'K' }), await call('POST', keys, { name: 'K' })]
    t.match([one.status, two.status], [201, 201])
    t.not(one.body.id, two.body.id)
    t.notHas(one.body, 'secretOmitted')
    t.strictSame(await sql`SELECT digest FROM idempotency_keys WHERE project_id = ${projectId}`.then(rows => rows.length), 0)
  })
})
