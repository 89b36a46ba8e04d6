import { digestSecret } from '@keygate/api-key'
import { startRedis, startTcpProxy } from '@keygate/local'
import postgres from 'postgres'
import { test } from 'tap'
import { configFor, redisIsReady, startApp, startHouse, type TestApp } from './helper.ts'

interface Change { projectId: string, keyId: string, version: number }

test('from a commit to Redis', async t => {
  const house = await startHouse(t)

  /** An app on a database of its own, and a connection to it. */
  async function start (redisUrl = house.redis.url) {
    const url = await house.database()
    const sql = postgres(url, { max: 1, onnotice: () => {} })
    t.teardown(async () => { await sql.end({ timeout: 1 }) })
    const config = configFor(t, url, redisUrl)
    return { url, sql, config, app: await startApp(t, config) }
  }

  async function newKey ({ call }: TestApp) {
    const project = await call('POST', '/projects', { name: 'P' })
    const { body } = await call('POST', `/projects/${project.body.id}/keys`, { name: 'K' })
    return { ...body, at: `/projects/${body.projectId}/keys/${body.id}` }
  }

  const versions = async ({ parts }: TestApp, projectId: string): Promise<Record<string, string>> => {
    const { '#': incarnation, ...fields } = await parts.redis.client.hgetall(`kg:{${projectId}}:versions`)
    return fields
  }

  /** Asks until the answer is as wanted. Nothing is asserted about how long it takes; the test's own time-out ends it. */
  const until = async <T>(ask: () => Promise<T>, wanted: (answer: T) => boolean): Promise<T> => {
    for (;;) {
      const answer = await ask()
      if (wanted(answer)) return answer
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  await t.test('P2, P6 without Redis a change is pending; when Redis is back it is delivered, and so is everything of the last hour', async t => {
    const redis = await startRedis()
    const { app, sql } = await start(redis.url)
    await redisIsReady(app)
    const key = await newKey(app)
    t.same(await versions(app, key.projectId), { '*': '1', [key.id]: '1' })

    await redis.kill()
    const away = await app.call('POST', `${key.at}/disable`)
    t.match(away, { status: 200, body: { status: 'disabled', version: 2, effective: 'pending', effectiveAt: null } }, 'committed, and says so')
    t.match((await app.call('GET', key.at)).body, { effective: 'pending', effectiveAt: null })
    t.match(await app.metrics(), /key_service_outbox_undelivered\{service="key-service"\} 1/)
    t.match(await app.app.inject('/readyz'), { statusCode: 200 }, 'key-service works without Redis')

    const again = await startRedis({ port: redis.port }) // another one, empty: its memory is gone
    const { body } = await until(async () => await app.call('GET', key.at), answer => answer.body.effective === 'everywhere')
    t.match(body, { version: 2, effectiveAt: String })
    t.same(await versions(app, key.projectId), { '*': '1', [key.id]: '2' }, 'also what had been delivered to the lost memory')
    t.same(await sql`SELECT id FROM outbox WHERE delivered_at IS NULL`, [])
    t.match((await app.call('POST', `${key.at}/enable`)).body, { version: 3, effective: 'everywhere' })
    await again.stop()
  })

  await t.test('P6 a Redis that swallows the write: pending, then delivered by the next process', async t => {
    const proxy = await startTcpProxy(house.redis.port)
    const { app, config, sql } = await start(`redis://127.0.0.1:${proxy.port}`)
    await redisIsReady(app)
    const key = await newKey(app)
    const swallowed = proxy.swallow('up')
    const answer = await app.call('POST', `${key.at}/revoke`)
    await swallowed
    t.match(answer.body, { status: 'revoked', version: 2, effective: 'pending' })
    t.equal((await sql`SELECT id FROM outbox WHERE delivered_at IS NULL`).length, 1)
    await app.app.close() // the process ends before anything was delivered
    await proxy.stop()

    const next = await startApp(t, { ...config, redisUrl: house.redis.url })
    await until(async () => await next.call('GET', key.at), answer => answer.body.effective === 'everywhere')
    t.same(await versions(next, key.projectId), { '*': '1', [key.id]: '2' })
  })

  await t.test('two relays carry the same rows, and versions only ever rise', async t => {
    const { app, config, sql } = await start()
    const second = await startApp(t, config)
    await Promise.all([redisIsReady(app), redisIsReady(second)])
    const key = await newKey(app)
    const answers = await Promise.all(Array.from({ length: 30 }, async (_, i) => await (i % 2 === 0 ? app : second).call('PATCH', key.at, { description: `edit ${i}` })))
    t.same(answers.map(answer => answer.body.version).sort((a, b) => a - b), Array.from({ length: 30 }, (_, i) => i + 2), 'version monotony: one step per change')
    t.ok(answers.every(answer => answer.body.effective === 'everywhere'))
    t.same(await versions(app, key.projectId), { '*': '1', [key.id]: '31' })

    // as after a crash of both: delivered long ago, or never, the same rows in two hands at once
    await sql`UPDATE outbox SET delivered_at = NULL`
    await sql`UPDATE keys SET effective_version = 0, effective_at = NULL`
    await Promise.all([app, second].flatMap(({ parts }) => [parts.redis.emit('ready'), parts.redis.emit('ready')]))
    await until(async () => await sql`SELECT id FROM outbox WHERE delivered_at IS NULL`, rows => rows.length === 0)
    t.same(await versions(app, key.projectId), { '*': '1', [key.id]: '31' })
    t.match((await app.call('GET', key.at)).body, { version: 31, effective: 'everywhere' })
  })

  await t.test('two changes that commit in the reverse order of their ids are both polled', async t => {
    const { app, url, sql } = await start()
    await redisIsReady(app)
    const [slow, fast] = [await newKey(app), await newKey(app)]
    const start0 = (await app.call('GET', '/changes')).body
    t.same(start0.data, [], 'without a cursor: only where to start')

    // The slow change has taken its transaction id and its row's id, and has not committed.
    const held = postgres(url, { max: 1, onnotice: () => {} })
    t.teardown(async () => { await held.end({ timeout: 1 }) })
    await held`BEGIN`
    await held`UPDATE keys SET version = version + 1 WHERE project_id = ${slow.projectId} AND id = ${slow.id}`
    const [row] = await held`INSERT INTO outbox (project_id, key_id, version) VALUES (${slow.projectId}, ${slow.id}, 2) RETURNING id, xid`
    await app.call('POST', `${fast.at}/disable`)
    const [later] = await sql`SELECT id, xid FROM outbox WHERE key_id = ${fast.id} AND version = 2`
    t.ok(Number(later?.['xid']) > Number(row?.['xid']) && Number(later?.['id']) > Number(row?.['id']), 'the later one committed first')

    const seen: string[] = []
    const poll = async (after: string) => {
      const { body } = await app.call('GET', `/changes?after=${after}`)
      seen.push(...body.data.map((change: Change) => `${change.keyId}@${change.version}`))
      return body.cursor as string
    }
    const between = await poll(start0.cursor)
    t.same(seen, [`${fast.id}@2`])
    t.equal(between, row?.['xid'], 'the cursor waits for the transaction that is still open')
    const { body: verified } = await app.call('POST', '/verifications', { digest: digestSecret(slow.secret) })
    t.match(verified, { record: { keyVersion: 1 }, cursor: between }, 'a verification\'s cursor does too')
    await held`COMMIT`
    const end = await poll(between)
    t.ok(seen.includes(`${slow.id}@2`), 'none is missed')
    t.same((await app.call('GET', `/changes?after=${end}`)).body.data, [])
  })

  await t.test('rows are pruned an hour after delivery, never undelivered; a cursor at or before them is 410', async t => {
    const { app, config, sql } = await start()
    await redisIsReady(app)
    const key = await newKey(app)
    await app.call('POST', `${key.at}/disable`)
    await app.call('POST', `${key.at}/enable`)
    const rows = await sql`SELECT id, xid FROM outbox ORDER BY id`
    const [, , third, fourth] = rows
    const { cursor } = (await app.call('GET', '/changes')).body
    await sql`UPDATE outbox SET delivered_at = now() - interval '61 minutes', created_at = now() - interval '2 hours' WHERE id <= ${third?.['id']}`
    await sql`UPDATE outbox SET delivered_at = NULL, created_at = now() - interval '2 hours' WHERE id = ${rows[1]?.['id']}`
    await app.app.close()

    const next = await startApp(t, { ...config, redisUrl: 'redis://127.0.0.1:1' })
    await until(async () => await sql`SELECT id FROM outbox`, left => left.length === 2)
    t.same((await sql`SELECT id FROM outbox ORDER BY id`).map(row => row['id']), [rows[1]?.['id'], fourth?.['id']], 'the old but undelivered one stays')
    for (const after of ['1', third?.['xid']]) t.match(await next.call('GET', `/changes?after=${after}`), { status: 410, body: { code: 'cursor_too_old' } })
    t.match(await next.call('GET', `/changes?after=${fourth?.['xid']}`), { status: 200, body: { data: [{ keyId: key.id, version: 3 }] } })
    t.match(await next.call('GET', `/changes?after=${cursor}`), { status: 200, body: { data: [] } })
    for (const after of ['18446744073709551615', '99999999999999999999']) t.match(await next.call('GET', `/changes?after=${after}`), { status: 410 }, 'a cursor of another database')
    for (const after of ['-1', '1.5', '', '123456789012345678901']) t.match(await next.call('GET', `/changes?after=${after}`), { status: 422 })
  })
})
