import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { digestSecret } from '@keygate/api-key'
import { startPostgres } from '@keygate/local'
import { sql as statement } from 'drizzle-orm'
import postgres from 'postgres'
import { test, type Test } from 'tap'
import { codeOf } from '../src/db/failures.ts'
import { readLog } from './fuzz/log-lines.ts'
import { configFor, redisIsReady, startApp, startHouse, type Answer, type Sql, type TestApp } from './helper.ts'

/** All that a client reads while PostgreSQL cannot work, beside the ids of its request. */
const said = { type: 'urn:keygate:problem:unavailable', title: 'Service Unavailable', status: 503, detail: 'A part of the service is away. Try again.', code: 'unavailable' }

/** `done`, `not now` when it is told as it must be, or the whole answer. */
function outcomeOf ({ status, headers, body, text }: Answer): string {
  if (status >= 200 && status < 300) return 'done'
  const { instance, requestId, ...rest } = body
  return status === 503 && headers['retry-after'] === '1' && isDeepStrictEqual(rest, said) ? 'not now' : `${status} ${text}`
}

/** Asks again as long as it is told to; then it must be `done`. */
async function untilDone (ask: () => Promise<Answer>): Promise<string> {
  for (;;) {
    const outcome = outcomeOf(await ask())
    if (outcome !== 'not now') return outcome
  }
}

/** One of each way to the database. */
const requests = [['GET', '/projects'], ['POST', '/projects', { name: 'x' }], ['GET', '/changes'], ['POST', '/verifications', { digest: digestSecret('x') }]] as const
const askAll = async ({ call }: TestApp): Promise<string[]> => await Promise.all(requests.map(async ([method, path, body]) => outcomeOf(await call(method, path, body))))
const all = (outcome: string): string[] => requests.map(() => outcome)

/** Ends the service's sessions and waits until they are gone: what it does next needs a new one. */
async function endSessions (superuser: Sql): Promise<void> {
  await superuser`SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'keygate-key-service' AND datname = current_database()`
}

/** The SQLSTATE that a new session of the service meets; the end of the old ones may not have been heard of yet. */
async function stateMet ({ parts: { database } }: TestApp): Promise<string> {
  for (;;) {
    const state = await database.run(async db => await db.execute(statement`SELECT 1`)).then(() => 'none', codeOf)
    if (state !== '57P01' && !state.startsWith('CONNECTION_') && !state.startsWith('E')) return state
  }
}

/** The keys that there are; beside them must be as many notes of their making, and as many rows that tell the gateways. */
async function wholeKeys (t: Test, superuser: Sql): Promise<string[]> {
  const [found] = await superuser<Array<Record<'keys' | 'audited' | 'told', string[]>>>`SELECT
    ARRAY(SELECT id FROM keys ORDER BY id) AS keys,
    ARRAY(SELECT key_id FROM audit_events WHERE action = 'key.create' ORDER BY key_id) AS audited,
    ARRAY(SELECT key_id FROM outbox WHERE key_id <> '*' ORDER BY key_id) AS told`
  t.same(found?.audited, found?.keys, 'one entry in the audit trail for each key')
  t.same(found?.told, found?.keys, 'one row in the outbox for each key')
  return found?.keys ?? []
}

/** Until a session waits for a lock of this kind. */
async function untilWaiting (superuser: Sql, application: string, event: string): Promise<void> {
  while ((await superuser`SELECT 1 FROM pg_stat_activity WHERE application_name = ${application} AND datname = current_database() AND wait_event_type = 'Lock' AND wait_event = ${event}`).length === 0);
}

test('B2-04, B2-05 what PostgreSQL refuses for the moment: 503 or success, never 500 or a word of the database, and it works again by itself', async t => {
  const house = await startHouse(t)

  function connect (t: Test, url: string, name = 'test'): Sql {
    const client = postgres(url, { max: 1, onnotice: () => {}, connection: { application_name: name } })
    t.teardown(async () => { await client.end({ timeout: 1 }) })
    return client
  }

  /** A service with a key, on a database in the house. */
  async function start (t: Test, overrides: object = {}) {
    const url = await house.database()
    const asSuperuser = url.replace('keygate@', 'postgres@')
    const config = configFor(t, url, house.redis.url, overrides)
    const app = await startApp(t, config)
    await redisIsReady(app)
    const { body: project } = await app.call('POST', '/projects', { name: 'P' })
    const newKey = async (): Promise<string> => (await app.call('POST', `/projects/${project.id}/keys`, { name: 'K' })).body.id
    return { app, url, project: `/projects/${project.id}`, projectId: project.id as string, newKey, sql: connect(t, asSuperuser), rival: connect(t, asSuperuser, 'rival'), name: new URL(url).pathname.slice(1) }
  }

  /** A service on a server of its own that may be ended. */
  async function startOnOwnServer (t: Test, connections = 100) {
    const dir = mkdtempSync(join(tmpdir(), 'keygate-trouble-'))
    t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
    const data = join(dir, 'postgres')
    const first = await startPostgres(data)
    const admin = postgres(first.url, { max: 1 })
    await admin.unsafe(`ALTER SYSTEM SET max_connections = ${connections}`)
    await admin`ALTER SYSTEM SET superuser_reserved_connections = 1`
    await admin`CREATE ROLE keygate LOGIN`
    await admin`CREATE DATABASE keygate OWNER keygate`
    await admin.end()
    await first.stop()
    const again = async () => {
      const server = await startPostgres(data, { port: first.port })
      t.teardown(server.stop)
      return server
    }
    const server = await again()
    const url = `postgres://keygate@127.0.0.1:${first.port}/keygate`
    const app = await startApp(t, configFor(t, url, house.redis.url))
    return { app, url, server, again, superuser: connect(t, url.replace('keygate@', 'postgres@')) }
  }

  await t.test('B2-04 53300: more requests than PostgreSQL has connections, then none left for the service', async t => {
    const { app, url, superuser } = await startOnOwnServer(t, 6)
    const many = await Promise.all(Array.from({ length: 40 }, async (_, i) => i % 2 === 0 ? await app.call('GET', '/projects') : await app.call('POST', '/projects', { name: 'x' })))
    t.same([...new Set(many.map(outcomeOf))].sort(), ['done', 'not now'])

    await endSessions(superuser)
    const others: Sql[] = []
    for (let state = ''; state !== '53300';) {
      const other = connect(t, url)
      state = await other`SELECT 1`.then(() => '', codeOf)
      if (state === '') others.push(other)
    }
    t.ok(others.length > 0)
    t.equal(await stateMet(app), '53300')
    t.same(await askAll(app), all('not now'))
    t.match([await app.app.inject('/readyz'), await app.app.inject('/livez')], [{ statusCode: 503 }, { statusCode: 200 }])

    await Promise.all(others.map(async other => { await other.end() }))
    t.equal(await untilDone(async () => await app.call('POST', '/projects', { name: 'x' })), 'done')
  })

  await t.test('B2-04 57P03: a server that shuts down takes no new session, and one whose session was killed recovers', async t => {
    const { app, url, server, again, superuser } = await startOnOwnServer(t)
    await superuser`SELECT 1` // a session from before
    process.kill(server.pid, 'SIGTERM') // pg_ctl stop -m smart: it waits for the sessions that there are, ours among them
    const stateOfNew = async (): Promise<string> => {
      const fresh = postgres(url, { max: 1 })
      const state = await fresh`SELECT 1`.then(() => 'none', codeOf)
      await fresh.end({ timeout: 1 })
      return state
    }
    for (let state = 'none'; state !== '57P03'; state = await stateOfNew()) t.equal(state, 'none')
    t.equal(outcomeOf(await app.call('GET', '/projects')), 'done', 'the sessions that there are go on')
    await endSessions(superuser)
    t.equal(await stateMet(app), '57P03')
    t.same(await askAll(app), all('not now'))
    t.match([await app.app.inject('/readyz'), await app.app.inject('/livez')], [{ statusCode: 503 }, { statusCode: 200 }])
    await superuser.end()
    await server.ended
    t.same(await askAll(app), all('not now'))
    await again()
    t.equal(await untilDone(async () => await app.call('POST', '/projects', { name: 'x' })), 'done')

    const observer = connect(t, url.replace('keygate@', 'postgres@'))
    const [session] = await observer<Array<{ pid: number }>>`SELECT pid FROM pg_stat_activity WHERE application_name = 'keygate-key-service'`
    process.kill(session?.pid ?? NaN, 'SIGKILL') // PostgreSQL ends all sessions and recovers
    const meanwhile = await Promise.all(Array.from({ length: 20 }, async () => await askAll(app)))
    t.same([...new Set(meanwhile.flat())].filter(outcome => outcome !== 'done' && outcome !== 'not now'), [])
    t.equal(await untilDone(async () => await app.call('POST', '/projects', { name: 'x' })), 'done')
  })

  await t.test('B2-01 PostgreSQL is killed under load: 503 only while it is away, and on the same data nothing is lost or half done', async t => {
    const { app, server, again, superuser } = await startOnOwnServer(t)
    await redisIsReady(app)
    const { body: project } = await app.call('POST', '/projects', { name: 'P' })
    const create = async (): Promise<Answer> => await app.call('POST', `/projects/${project.id}/keys`, { name: 'K' })
    const created: string[] = []
    /** One after the other; returns how they ended, each in its turn. */
    const createUntil = async (isEnough: (outcomes: string[]) => boolean): Promise<string[]> => {
      const outcomes: string[] = []
      while (!isEnough(outcomes)) {
        const answer = await create()
        const outcome = outcomeOf(answer)
        if (outcome === 'done') created.push(answer.body.id)
        outcomes.push(outcome)
      }
      return outcomes
    }
    const state = { dead: false }
    const loops = Array.from({ length: 6 }, async () => await createUntil(outcomes => state.dead && outcomes.at(-1) === 'not now'))
    while (created.length < 30) await new Promise(resolve => setImmediate(resolve))
    await server.kill()
    state.dead = true
    const outcomes = await Promise.all(loops)
    t.match(outcomes.map(of => of.join()), outcomes.map(() => /^(done,)*(not now,)*not now$/), 'done until it was killed, then 503')
    t.same(await askAll(app), all('not now'))
    t.match([await app.app.inject('/readyz'), await app.app.inject('/livez')], [{ statusCode: 503, body: /\[-\]postgres failed/ }, { statusCode: 200 }])

    await again()
    t.same(new Set((await Promise.all(Array.from({ length: 6 }, async () => await createUntil(outcomes => outcomes.length === 3)))).flat()), new Set(['done']), 'at once, without a restart')
    t.match(await app.app.inject('/readyz'), { statusCode: 200 })
    const keys = await wholeKeys(t, superuser)
    t.same(created.filter(id => !keys.includes(id)), [], 'what was answered is there')
  })

  await t.test('B2-02 the process of a session is killed in the middle of a create: 503, nothing of it is left, and the next one works', async t => {
    const { app, url, superuser } = await startOnOwnServer(t)
    await redisIsReady(app)
    const rival = connect(t, url.replace('keygate@', 'postgres@'), 'rival')
    const { body: project } = await app.call('POST', '/projects', { name: 'P' })
    const create = async (): Promise<Answer> => await app.call('POST', `/projects/${project.id}/keys`, { name: 'K' })
    t.equal(outcomeOf(await create()), 'done')
    await rival`BEGIN`
    await rival`LOCK TABLE outbox IN SHARE MODE` // the last that a create writes
    const cut = create()
    await untilWaiting(superuser, 'keygate-key-service', 'relation')
    const [session] = await superuser<Array<{ pid: number }>>`SELECT pid FROM pg_stat_activity WHERE application_name = 'keygate-key-service' AND wait_event_type = 'Lock'`
    process.kill(session?.pid ?? NaN, 'SIGKILL') // PostgreSQL ends all sessions, the rival's too, and recovers
    t.equal(outcomeOf(await cut), 'not now')
    t.match(await app.app.inject('/livez'), { statusCode: 200 })
    t.equal(await untilDone(create), 'done')
    t.equal((await wholeKeys(t, superuser)).length, 2, 'the one before and the one after')
    t.match(await app.app.inject('/readyz'), { statusCode: 200 })
  })

  await t.test('B2-04 25006: a server that only reads', async t => {
    const { app, sql, name, project, newKey } = await start(t)
    const disable = `${project}/keys/${await newKey()}/disable`
    await sql`ALTER DATABASE ${sql(name)} SET default_transaction_read_only = on`
    await endSessions(sql)
    t.equal(await untilDone(async () => await app.call('GET', '/projects')), 'done', 'what only reads goes on')
    t.equal(await app.parts.database.transaction(async tx => await tx.execute(statement`CREATE TABLE x ()`)).then(() => 'none', codeOf), '25006')
    t.equal(outcomeOf(await app.call('POST', disable)), 'not now')
    await sql`ALTER DATABASE ${sql(name)} RESET default_transaction_read_only`
    await endSessions(sql)
    t.equal(await untilDone(async () => await app.call('POST', disable)), 'done')
  })

  await t.test('B2-04 40001: a change that met another one is made again, three times at most', async t => {
    const { app, sql, rival, name, project, newKey } = await start(t)
    const counted = async (work: () => Promise<Answer>): Promise<[string, number]> => {
      await sql`ALTER SEQUENCE tries RESTART`
      const outcome = outcomeOf(await work())
      const [row] = await sql<Array<{ tries: string }>>`SELECT nextval('tries') - 1 AS tries`
      return [outcome, Number(row?.tries)]
    }
    await sql`CREATE SEQUENCE tries`
    await sql`GRANT USAGE ON SEQUENCE tries TO keygate`

    await t.test('two sessions at REPEATABLE READ', async t => {
      const [one, two] = [await newKey(), await newKey()]
      await sql`CREATE FUNCTION count_try() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('tries'); RETURN NULL; END $$`
      await sql`CREATE TRIGGER count_try BEFORE UPDATE ON keys FOR EACH STATEMENT EXECUTE FUNCTION count_try()`
      await sql`ALTER DATABASE ${sql(name)} SET default_transaction_isolation = 'repeatable read'`
      await endSessions(sql)
      t.equal(await untilDone(async () => await app.call('GET', '/projects')), 'done')
      const undisturbed = await counted(async () => await app.call('POST', `${project}/keys/${one}/rotate`))
      const disturbed = await counted(async () => {
        await rival`BEGIN`
        await rival`SELECT 1 FROM keys WHERE id = ${two} FOR UPDATE`
        const rotated = app.call('POST', `${project}/keys/${two}/rotate`)
        await untilWaiting(sql, 'keygate-key-service', 'transactionid')
        await rival`UPDATE keys SET description = 'theirs' WHERE id = ${two}`
        await rival`COMMIT`
        return await rotated
      })
      t.equal(undisturbed[0], 'done')
      t.same(disturbed, ['done', undisturbed[1] + 2], 'the rival\'s statement, and the one that failed')
      t.match((await app.call('GET', `${project}/keys/${two}`)).body, { version: 2, description: 'theirs' }, 'both are in it, each once')
      await sql`DROP TRIGGER count_try ON keys`
      await sql`ALTER DATABASE ${sql(name)} RESET default_transaction_isolation`
      await endSessions(sql)
    })

    await t.test('as often as a trigger says', async t => {
      const failing = async (times: number) => {
        // A number that was drawn stays drawn, so it counts what is rolled back too.
        await sql.unsafe(`CREATE OR REPLACE FUNCTION fail_at_first() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN IF nextval('tries') <= ${times} THEN RAISE 'could not serialize access' USING ERRCODE = 'serialization_failure'; END IF; RETURN NEW; END $$`)
        const key = `${project}/keys/${await newKey()}`
        await sql`CREATE TRIGGER fail_at_first BEFORE UPDATE ON keys FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION fail_at_first()`
        const found = await counted(async () => await app.call('POST', `${key}/disable`))
        await sql`DROP TRIGGER fail_at_first ON keys`
        return { found, key }
      }
      t.equal(await untilDone(async () => await app.call('GET', '/projects')), 'done')
      t.same((await failing(1)).found, ['done', 2])
      t.same((await failing(2)).found, ['done', 3])
      const { found, key } = await failing(1000)
      t.same(found, ['not now', 3])
      t.match((await app.call('GET', key)).body, { status: 'active', version: 1 }, 'nothing is left of it')
      t.match((await app.call('POST', `${key}/disable`)).body, { status: 'disabled', version: 2 })
    })
  })

  await t.test('B2-04 40P01: of two sessions that wait for each other the service\'s is undone, and its change made again', async t => {
    const { app, url, sql, rival, project, projectId, newKey } = await start(t)
    const gate = connect(t, url.replace('keygate@', 'postgres@'), 'gate')
    const keyId = await newKey()
    await sql`CREATE SEQUENCE tries`
    await sql`GRANT USAGE ON SEQUENCE tries TO keygate`
    await sql`CREATE FUNCTION pass_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('tries'); PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$`
    await sql`CREATE TRIGGER pass_gate AFTER UPDATE ON projects FOR EACH ROW WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION pass_gate()`
    await gate`SELECT pg_advisory_lock(1)`
    await rival`SET deadlock_timeout = '1h'` // it never looks: whoever begins to wait last finds the circle, and that is the service
    await rival`BEGIN`
    await rival`SELECT 1 FROM keys WHERE id = ${keyId} FOR UPDATE`
    const deleted = app.call('DELETE', project)
    await untilWaiting(sql, 'keygate-key-service', 'advisory') // it holds the project
    const theirs = rival`UPDATE projects SET name = 'theirs' WHERE id = ${projectId}`.execute()
    await untilWaiting(sql, 'rival', 'transactionid')
    await gate`SELECT pg_advisory_unlock(1)` // now it wants the key
    t.equal((await theirs).count, 1)
    await rival`COMMIT`
    t.equal(outcomeOf(await deleted), 'done')
    t.same(await sql`SELECT last_value::int AS tries, (SELECT name FROM projects WHERE id = ${projectId}) AS name FROM tries`, [{ tries: 2, name: 'theirs' }])
    t.equal((await app.call('GET', project)).status, 404)
  })

  await t.test('B2-05 a row that somebody else holds: 503 while it is still held, because every session of the service has its limits', async t => {
    const { url, sql, rival, project, projectId, newKey } = await start(t)
    const keys = [await newKey(), await newKey(), await newKey(), await newKey()]
    const app = await startApp(t, configFor(t, url, house.redis.url, { databaseTimeoutMs: 4000, logLevel: 'warn' }))
    const log = readLog(app.app)
    const limits = statement`SELECT name, setting::int AS ms FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout') ORDER BY name`
    const wanted = [{ name: 'idle_in_transaction_session_timeout', ms: 5000 }, { name: 'lock_timeout', ms: 3000 }, { name: 'statement_timeout', ms: 4000 }]
    t.same([...await app.parts.database.run(async db => await db.execute(limits))], wanted)
    t.same([...await app.parts.database.transaction(async tx => await tx.execute(limits))], wanted)

    const holder = async () => await sql`SELECT state FROM pg_stat_activity WHERE application_name = 'rival' AND datname = current_database()`
    await rival`BEGIN`
    await rival`SELECT 1 FROM keys WHERE project_id = ${projectId} FOR UPDATE`
    const changes = [['POST', '/rotate'], ['POST', '/disable'], ['PATCH', '', { name: 'x' }], ['DELETE', '']] as const
    const outcomes = await Promise.all(changes.map(async ([method, path, body], i) => outcomeOf(await app.call(method, `${project}/keys/${keys[i]}${path}`, body))))
    t.same(await holder(), [{ state: 'idle in transaction' }], 'the rows are still held')
    t.same(outcomes, changes.map(() => 'not now'))
    t.same(log.map(line => JSON.parse(line).err.code), changes.map(() => '55P03'), 'it was the wait for the lock that ended')
    t.same(await sql`SELECT 1 FROM pg_stat_activity WHERE application_name = 'keygate-key-service' AND datname = current_database() AND (wait_event_type = 'Lock' OR state LIKE 'idle in transaction%')`, [], 'and nobody waits on')
    t.equal(outcomeOf(await app.call('GET', `${project}/keys/${keys[0]}`)), 'done', 'who reads does not wait')
    await rival`ROLLBACK`
    t.equal(outcomeOf(await app.call('POST', `${project}/keys/${keys[0]}/rotate`)), 'done')
  })
})
