import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { digestSecret, lookupDigest } from '@keygate/api-key'
import { startTcpProxy } from '@keygate/local'
import Fastify from 'fastify'
import postgres from 'postgres'
import { test } from 'tap'
import type { Config } from '../src/config.ts'
import { openDatabase } from '../src/db/database.ts'
import { waitForDatabase } from '../src/db/wait.ts'
import { openParts } from '../src/parts.ts'
import { authentication } from '../src/plugins/authentication.ts'
import { permissions } from '../src/access/permissions.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens, tokensFile, type Answer, type House } from './helper.ts'

/** tap's type for an expected error knows none of our members. */
const like = (wanted: object): Error => wanted as Error

test('key-service and PostgreSQL', async t => {
  const house = await startHouse(t)

  async function start (overrides: Partial<Config> = {}) {
    const url = await house.database()
    const sql = postgres(url.replace('keygate@', 'postgres@'), { max: 1, onnotice: () => {} })
    t.teardown(async () => { await sql.end({ timeout: 1 }) })
    const config = configFor(t, url, house.redis.url, overrides)
    const app = await startApp(t, config)
    await redisIsReady(app)
    return { sql, config, app, call: app.call, url }
  }

  await t.test('B2-06 three processes that start at once on an empty database make the schema once', async t => {
    const url = await house.database()
    const config = configFor(t, url, house.redis.url)
    const apps = await Promise.all([1, 2, 3].map(async () => await startApp(t, config)))
    for (const app of apps) t.equal((await app.call('GET', '/projects')).status, 200)
    const sql = postgres(url, { max: 1 })
    t.equal((await sql`SELECT id FROM drizzle.__drizzle_migrations`).length, readdirSync(new URL('../migrations', import.meta.url)).filter(name => name.endsWith('.sql')).length)
    t.equal((await sql`SELECT * FROM outbox_pruned`).length, 1)
    t.equal((await sql`SELECT id FROM service_tokens`).length, 4)
    await sql.end()
  })

  await t.test('every change leaves its audit row: who, what, in which request; and the trail cannot be rewritten', async t => {
    const { sql, app, call } = await start()
    const { body: project } = await call('POST', '/projects', { name: 'P' })
    const { body: key } = await call('POST', `/projects/${project.id}/keys`, { name: 'K', scopes: ['exports'] })
    const at = `/projects/${project.id}/keys/${key.id}`
    await call('PATCH', `/projects/${project.id}`, { name: 'Q' })
    await call('PATCH', at, { description: 'd' })
    for (const action of ['disable', 'enable', 'rotate']) await call('POST', `${at}/${action}`)
    await call('POST', `${at}/rotate`, { gracePeriodSeconds: 60 })
    await call('POST', `${at}/rotate/finish`)
    await app.app.inject({ method: 'POST', url: `/v1${at}/revoke`, headers: { authorization: `Bearer ${tokens.all}`, 'x-request-id': 'req-7' }, payload: { reason: 'leaked' } })
    await call('POST', `${at}/revoke`)
    await call('DELETE', at)
    await call('DELETE', `/projects/${project.id}`)
    const rows = await sql`SELECT * FROM audit_events WHERE project_id IS NOT NULL ORDER BY id`
    t.same(rows.map(row => row['action']), ['project.create', 'key.create', 'project.edit', 'key.edit', 'key.disable', 'key.enable', 'key.rotate', 'key.rotate', 'key.finishRotation', 'key.revoke', 'key.delete', 'project.delete'], 'a refused change leaves none')
    t.ok(rows.every(row => row['project_id'] === project.id && row['actor_name'] === 'all' && /^tok_/.test(row['actor_id']) && row['request_id'] !== ''))
    t.match(rows[1], { key_id: key.id, details: { name: 'K', scopes: ['exports'], status: 'active' } })
    t.match(rows[3], { details: { description: 'd' } })
    t.match(rows[9], { request_id: 'req-7', details: { reason: 'leaked' } })
    await t.rejects(sql`UPDATE audit_events SET actor_name = 'nobody'`, { message: /append-only/ })
    await t.rejects(sql`DELETE FROM audit_events`, { message: /append-only/ })
    await t.rejects(sql`TRUNCATE audit_events`, { message: /append-only/ })
  })

  await t.test('P4, GX-02 no secret and no token stands in any table, plain or encoded', async t => {
    const { sql, config, call } = await start()
    const { body: project } = await call('POST', '/projects', { name: 'P' })
    const secrets: string[] = []
    for (let i = 0; i < 5; i++) {
      const { body: key } = await call('POST', `/projects/${project.id}/keys`, { name: `K${i}` })
      const { body: rotated } = await call('POST', `/projects/${project.id}/keys/${key.id}/rotate`, { gracePeriodSeconds: 60 })
      secrets.push(key.secret, rotated.secret)
      if (i === 4) await call('DELETE', `/projects/${project.id}/keys/${key.id}`)
    }
    const text = JSON.stringify(await dump(sql))
    t.ok(text.includes(lookupDigest(config.peppers.current.value, digestSecret(secrets[0] as string))), 'the search itself works')
    for (const secret of [...secrets, ...Object.values(tokens), config.peppers.current.value]) {
      const bytes = Buffer.from(secret)
      const forms = [secret, bytes.toString('hex'), ...alignedBase64(bytes), ...secret.startsWith('kg_') ? [digestSecret(secret)] : []]
      for (const form of forms) t.notOk(text.toLowerCase().includes(form.toLowerCase()), `${secret.slice(0, 6)} as ${form.slice(0, 6)}`)
    }
  })

  await t.test('a record is of one snapshot: all of a change or nothing of it', async t => {
    const { call } = await start()
    const { body: project } = await call('POST', '/projects', { name: 'P' })
    const { body: key } = await call('POST', `/projects/${project.id}/keys`, { name: 'K', scopes: ['exports'] })
    const at = `/projects/${project.id}/keys/${key.id}`
    const state = { changing: true }
    const changes = (async () => {
      // odd versions: exports from one host; even versions: submissions from anywhere
      for (let version = 2; version <= 40; version++) await call('PATCH', at, version % 2 === 0 ? { scopes: ['submissions'], allowedHosts: null } : { scopes: ['exports'], allowedHosts: ['192.0.2.1'] })
      state.changing = false
    })()
    let torn = 0
    while (state.changing) {
      const { body: { record } } = await call('POST', '/verifications', { digest: digestSecret(key.secret) })
      const expected = record.keyVersion === 1 ? ['exports', null] : record.keyVersion % 2 === 0 ? ['submissions', null] : ['exports', '192.0.2.1']
      if (record.scopes.join() !== expected[0] || (record.allowedHosts?.join() ?? null) !== expected[1]) torn++
    }
    await changes
    t.equal(torn, 0)
  })

  await t.test('hardening 0.7, B2-02 backends killed in the middle of changes: 503 or success, one consistent key, the process lives', async t => {
    const { sql, call } = await start()
    const { body: project } = await call('POST', '/projects', { name: 'P' })
    const keys = await Promise.all([1, 2, 3, 4].map(async () => (await call('POST', `/projects/${project.id}/keys`, { name: 'K' })).body))
    let killed = 0
    const state = { working: true }
    const killer = (async () => {
      while (state.working) killed += (await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keygate' AND datname = current_database() AND state IN ('active', 'idle in transaction')`).length
    })()
    const answers = (await Promise.all(keys.map(async key => {
      const mine: Answer[] = []
      for (let i = 0; i < 25; i++) mine.push(await call('POST', `/projects/${project.id}/keys/${key.id}/rotate`))
      return mine
    }))).flat()
    state.working = false
    await killer
    t.ok(killed > 0, `${killed} backends were killed`)
    const statuses = new Set(answers.map(answer => answer.status))
    statuses.delete(200)
    statuses.delete(503)
    t.same([...statuses], [])
    t.ok(answers.filter(answer => answer.status === 503).every(answer => answer.headers['retry-after'] === '1' && answer.body.code === 'unavailable'))
    let answer = await call('POST', `/projects/${project.id}/keys/${keys[0].id}/rotate`)
    while (answer.status === 503) answer = await call('POST', `/projects/${project.id}/keys/${keys[0].id}/rotate`)
    t.equal(answer.status, 200, 'works again')
    t.same(await sql`SELECT key_id FROM secrets GROUP BY key_id HAVING count(*) <> 1`, [], 'every key has its one secret')
    t.same(await sql`SELECT k.id FROM keys k WHERE k.version - 1 <> (SELECT count(*) FROM audit_events a WHERE a.key_id = k.id AND a.action = 'key.rotate')`, [], 'one audit row for each version')
  })

  await t.test('B2-01 the database goes away: 503, /readyz 503, /livez 200; and works again when it is back', async t => {
    const proxy = await startTcpProxy(house.postgres.port)
    const url = (await house.database()).replace(`:${house.postgres.port}/`, `:${proxy.port}/`)
    const app = await startApp(t, configFor(t, url, house.redis.url))
    t.equal((await app.call('GET', '/projects')).status, 200)
    await proxy.stop()
    for (const [method, path, body] of [['GET', '/projects'], ['POST', '/projects', { name: 'x' }], ['GET', '/changes'], ['POST', '/verifications', { digest: digestSecret('x') }]] as const) {
      t.match(await app.call(method, path, body), { status: 503, headers: { 'retry-after': '1' }, body: { code: 'unavailable' } }, `${method} ${path}`)
    }
    t.match(await app.app.inject('/readyz'), { statusCode: 503, body: /\[-\]postgres failed/ })
    t.match(await app.app.inject('/livez'), { statusCode: 200 })
    t.match(await app.metrics(), /key_service_outbox_undelivered\{service="key-service"\} Nan/i)
    const back = await startTcpProxy(house.postgres.port, { port: proxy.port })
    let answer = await app.call('POST', '/projects', { name: 'x' })
    while (answer.status === 503) answer = await app.call('POST', '/projects', { name: 'x' })
    t.equal(answer.status, 201)
    await app.app.close()
    await back.stop()
  })

  await t.test('B2-03 the database is frozen: 503, /readyz 503, /livez 200, and nothing hangs; when it goes on it is used again, and nothing is left over', async t => {
    const url = await house.database()
    const app = await startApp(t, configFor(t, url, house.redis.url, { databaseTimeoutMs: 500 }))
    const name = new URL(url).pathname.slice(1)
    const sessions = async () => await house.admin<Array<{ pid: number, state: string }>>`SELECT pid, state FROM pg_stat_activity WHERE application_name = 'keygate-key-service' AND datname = ${name}`
    const sockets = () => process.getActiveResourcesInfo().filter(resource => resource === 'TCPSocketWrap').length
    await Promise.all(Array.from({ length: 20 }, async () => await app.call('GET', '/projects')))
    const before = { pids: (await sessions()).map(({ pid }) => pid), sockets: sockets() }

    const thaw = await freeze(house)
    try {
      // All of this ends while it is frozen.
      const asked = [
        ...Array.from({ length: 25 }, async () => await app.call('GET', '/projects')), // more than there are connections: these wait for their turn
        app.call('POST', '/projects', { name: 'x' }), app.call('GET', '/changes'), app.call('POST', '/verifications', { digest: digestSecret('x') })
      ]
      for (const answer of await Promise.all(asked)) t.match(answer, { status: 503, headers: { 'retry-after': '1' }, body: { code: 'unavailable' } })
      await t.rejects(app.parts.database.transaction(async () => {}), like({ code: /NO_ANSWER|CONNECT_TIMEOUT/ }))
      t.match(await app.app.inject('/readyz'), { statusCode: 503, body: /\[-\]postgres failed/ })
      t.match(await app.app.inject('/livez'), { statusCode: 200 })
    } finally {
      thaw()
    }

    let answer = await app.call('POST', '/projects', { name: 'x' })
    while (answer.status === 503) answer = await app.call('POST', '/projects', { name: 'x' })
    t.equal(answer.status, 201)
    while ((await app.app.inject('/readyz')).statusCode !== 200);
    const settled = (rows: Array<{ pid: number, state: string }>) => rows.length <= 4 && rows.every(({ pid, state }) => state === 'idle' && !before.pids.includes(pid))
    // One connection for transactions, and those for the statements that the service's own chores may make at once: the others are gone, on both sides.
    while (!settled(await sessions()));
    while (sockets() > before.sockets) await new Promise(resolve => setImmediate(resolve))
    await Promise.all(Array.from({ length: 40 }, async () => await app.call('GET', '/projects')))
    t.ok((await sessions()).length <= 11, 'ten for statements, one for transactions')
  })

  await t.test('a transaction whose server falls silent in the middle, or has no connection for it, ends and is undone', async t => {
    const url = await house.database()
    const { call, parts: { database } } = await startApp(t, configFor(t, url, house.redis.url, { databaseTimeoutMs: 500 }))
    const insert = 'INSERT INTO projects (id, name, created_by) VALUES (gen_random_uuid(), \'half\', \'test\')'
    let thaw = () => {}
    try {
      await t.rejects(database.transaction(async tx => {
        await tx.execute(insert)
        thaw = await freeze(house)
        await t.rejects(tx.execute(insert), 'the statement itself is rejected')
        await tx.execute(insert)
      }), like({ code: 'NO_ANSWER' }))
    } finally {
      thaw()
    }
    const leave: Array<() => void> = []
    const holders = Array.from({ length: 10 }, async () => { await database.transaction(async tx => { await tx.execute('SELECT 1'); await new Promise<void>(resolve => { leave.push(resolve) }) }).catch(() => {}) })
    await t.rejects(database.transaction(async tx => await tx.execute(insert)), like({ code: 'NO_ANSWER' }), 'no connection is free')
    for (const go of leave) go()
    await Promise.all(holders)
    t.equal((await database.transaction(async tx => await tx.execute('SELECT 1'))).length, 1)
    t.same((await call('GET', '/projects')).body.data, [])
  })

  await t.test('a start that cannot succeed says why in a sentence', async t => {
    const log = Fastify({ logger: false }).log
    const url = await house.database()
    const config = configFor(t, url, house.redis.url)
    const startOf = async (overrides: object) => { await openParts({ ...config, ...overrides }, log) }
    await t.rejects(startOf({ databaseUrl: url.replace('keygate@', 'nobody:hunter2@') }), like({ name: 'StartError', message: /^(?!.*hunter2).*refuses us.*DATABASE_URL/ }))
    await t.rejects(startOf({ databaseUrl: url.replace(/[^/]+$/, 'nowhere') }), like({ name: 'StartError', message: /"nowhere" does not exist.*DATABASE_URL/ }))
    await t.rejects(startOf({ databaseUrl: `postgres://reader@127.0.0.1:${house.postgres.port}/${new URL(url).pathname.slice(1)}` }), like({ name: 'StartError' }))
    const waited: string[] = []
    const absent = openDatabase('postgres://keygate@127.0.0.1:1/x')
    await t.rejects(waitForDatabase(absent, { patienceMs: 0, onWait: reason => { waited.push(reason) } }), like({ name: 'StartError', message: /cannot be reached: .*ECONNREFUSED.*DATABASE_URL/ }))
    await absent.close()
    const broken = join(t.testdir(), 'apis.yaml')
    writeFileSync(broken, 'apis: [{ name: forms }]\n')
    await t.rejects(startOf({ apisFile: broken }), like({ name: 'CatalogueError', faults: Array }))
    writeFileSync(broken, '[]')
    await t.rejects(startOf({ serviceTokensFile: `${broken}.absent` }), like({ faults: [/KEYGATE_SERVICE_TOKENS_FILE.*ENOENT/] }))
  })

  await t.test('tokens of the file: replaced by name, ended when they are gone from it', async t => {
    const url = await house.database()
    const [a, b, c] = ['kgs_0123456789aaaaaaaaaa', 'kgs_0123456789bbbbbbbbbb', 'kgs_0123456789cccccccccc']
    const entry = (name: string, token: string) => ({ name, token, permissions })
    const works = async (entries: object[]) => {
      const app = await startApp(t, configFor(t, url, house.redis.url, { serviceTokensFile: tokensFile(t, entries) }))
      const statuses = []
      for (const token of [a, b, c]) statuses.push((await app.call('GET', '/projects', undefined, token)).status)
      await app.app.close()
      return statuses
    }
    t.same(await works([entry('one', a), entry('two', b)]), [200, 200, 401])
    t.same(await works([entry('one', b), entry('two', a)]), [200, 200, 401], 'two may exchange their tokens')
    t.same(await works([entry('one', c)]), [401, 401, 200])
    t.same(await works([]), [401, 401, 401])
  })

  await t.test('a route without a permission does not boot', async t => {
    const database = openDatabase(await house.database())
    const app = Fastify()
    await app.register(authentication, { database, sessionLimits: { idleMs: 1, absoluteMs: 1 }, isSameSite: () => true })
    t.throws(() => app.get('/open', async () => 'everything'), like({ message: 'GET /open declares no permission' }))
    await app.close()
    await database.close()
  })

  await t.test('at LOG_LEVEL=trace no secret, token or keyed digest reaches the log, not even with a failing statement', async t => {
    const url = await house.database()
    const config = configFor(t, url, house.redis.url, { logLevel: 'trace' })
    const lines: string[] = []
    const app = await startApp(t, config)
    captureLog(app.app.log, lines)
    const sql = postgres(url.replace('keygate@', 'postgres@'), { max: 1, onnotice: () => {} })
    const { body: project } = await app.call('POST', '/projects', { name: 'P' })
    const { body: key } = await app.call('POST', `/projects/${project.id}/keys`, { name: 'a\\n{"level":60}' })
    await app.call('POST', '/verifications', { digest: digestSecret(key.secret) })
    await sql`ALTER TABLE secrets RENAME TO moved`
    const failed = await app.call('POST', '/verifications', { digest: digestSecret(key.secret) })
    await app.call('POST', `/projects/${project.id}/keys`, { name: 'x' })
    await sql.end()
    t.match(failed, { status: 500, body: { code: 'internal_error' } })
    t.notMatch(failed.text, /secrets|SELECT/)
    const text = lines.join('')
    t.match(text, /unexpected error/)
    for (const secret of [key.secret, tokens.all, config.peppers.current.value, lookupDigest(config.peppers.current.value, digestSecret(key.secret)), digestSecret(tokens.all)]) t.notOk(text.includes(secret), secret.slice(0, 8))
  })
})

/** Stops every process of PostgreSQL where it stands; its sockets stay open, and nobody answers. What is returned lets them go on. */
async function freeze ({ postgres: { pid: postmaster }, admin }: House): Promise<() => void> {
  const stopped = [postmaster]
  const thaw = () => { for (const pid of stopped) try { process.kill(pid, 'SIGCONT') } catch {} }
  try {
    process.kill(postmaster, 'SIGSTOP') // first: from now on it starts no more
    for (const { pid } of await admin<Array<{ pid: number }>>`SELECT pid FROM pg_stat_activity`) stopped.push(pid)
    for (const pid of stopped) process.kill(pid, 'SIGSTOP')
  } catch (error) {
    thaw()
    throw error
  }
  return thaw
}

/** Takes the lines that pino would write; its children share the stream. */
function captureLog (log: object, lines: string[]): void {
  const symbol = Object.getOwnPropertySymbols(log).find(({ description }) => description === 'pino.stream')
  if (symbol === undefined) throw new Error('pino has no stream')
  const { [symbol]: stream } = log as Record<symbol, { write: (line: string) => void }>
  if (stream !== undefined) stream.write = line => { lines.push(line) }
}

/** Every row of every table, as text. */
async function dump (sql: postgres.Sql): Promise<string[]> {
  const tables = await sql`SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema IN ('public', 'drizzle') AND table_type = 'BASE TABLE' ORDER BY 1, 2`
  const rows: string[] = []
  for (const { table_schema: schema, table_name: name } of tables) {
    rows.push(...(await sql`SELECT t::text AS row FROM ${sql(schema)}.${sql(name)} t ORDER BY 1`).map(({ row }) => `${name} ${row}`))
  }
  return rows
}

/** What of some bytes shows in base64, wherever they stand in a longer text. */
function alignedBase64 (bytes: Buffer): string[] {
  return [0, 1, 2].map(offset => Buffer.concat([Buffer.alloc(offset), bytes]).toString('base64').slice(offset === 0 ? 0 : 4, -4))
}
