import { fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { digestSecret, generateSecret } from '@keygate/api-key'
import { startTcpProxy } from '@keygate/local'
import { drizzle } from 'drizzle-orm/postgres-js'
import Fastify from 'fastify'
import postgres from 'postgres'
import { test, type Test } from 'tap'
import { describeScan, scansOf, type PlanNode } from '../bench/plans.ts'
import type { Config } from '../src/config.ts'
import { clientOptions, openDatabase, type Database } from '../src/db/database.ts'
import { createErasure } from '../src/projects/erasure.ts'
import { batchSizes, countKeys, eraseBatch, findUnerased } from '../src/projects/repository.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens, type Sql, type TestApp } from './helper.ts'
import type { Order } from './idempotency-worker.ts'
import { deadlocksOf, waiting as waitingIn } from './lock-watch.ts'
import { newPerson, tablesOf } from './people-helper.ts'

const reason = 'the new server needs it'
/** More than one transaction erases. */
const many = 20_000
/** Ids of keys that are put into the tables by SQL, in this order; an id that the service draws comes after them. */
const idOf = (project: number, key: number) => `key_${String(project).padStart(8, '0')}${String(key).padStart(14, '0')}`

/** Asks until it is so. Nothing is asserted about how long it takes; the test's own time-out ends it. */
async function until (holds: () => Promise<boolean>): Promise<void> {
  while (!await holds()) await new Promise(resolve => setImmediate(resolve))
}

test('the deletion of a project', async t => {
  const house = await startHouse(t)
  let projects = 0

  async function start (overrides: Partial<Config> = {}) {
    const config = configFor(t, await house.database(), house.redis.url, { importForms: ['uuid'], ...overrides })
    const app = await startApp(t, config)
    await redisIsReady(app)
    return { app, config, sql: tablesOf(t, config.databaseUrl) }
  }

  /** A project with keys that have one of everything; the secrets of `known`, counted from 1, are those given there. */
  async function fill (sql: Sql, { call }: TestApp, config: Config, count: number, known: Record<number, string> = {}) {
    const projectId = (await call('POST', '/projects', { name: 'P', policies: [{ name: 'own', limit: 9, windowSeconds: 60 }] })).body.id as string
    const roleId = (await call('POST', `/projects/${projectId}/roles`, { name: 'R', scopes: ['exports'] })).body.id as string
    const project = ++projects
    const [id, number] = [sql`'key_' || lpad(${project}::text, 8, '0') || lpad(n::text, 14, '0')`, sql`generate_series(1, ${count}::int) n`]
    await sql`INSERT INTO keys (project_id, id, name, status, allowed_for_all, role_id, logged_for_all, created_by) SELECT ${projectId}, ${id}, 'K', 'active', false, ${roleId}, true, 'test' FROM ${number}`
    await sql`INSERT INTO secrets (project_id, key_id, id, digest, hint, state) SELECT ${projectId}, ${id}, 'sec' || ${id}, ${id}, 'h', 'current' FROM ${number}`
    await sql`INSERT INTO key_scopes (project_id, key_id, scope) SELECT ${projectId}, ${id}, 'submissions' FROM ${number}`
    await sql`INSERT INTO key_logging (project_id, key_id, scope) SELECT ${projectId}, ${id}, 'submissions' FROM ${number}`
    await sql`INSERT INTO allowed_hosts (project_id, key_id, position, host) SELECT ${projectId}, ${id}, 0, '192.0.2.1' FROM ${number}`
    await sql`INSERT INTO policies (project_id, key_id, position, name, "limit", window_seconds, algorithm, partition) SELECT ${projectId}, ${id}, 0, 'own', 5, 60, 'sliding', 'key' FROM ${number}`
    const peppers = createPeppers(config.peppers)
    for (const [key, secret] of Object.entries(known)) await sql`UPDATE secrets SET digest = ${peppers.current(digestSecret(secret)).digest} WHERE key_id = ${idOf(project, Number(key))}`
    return { projectId, at: `/projects/${projectId}`, key: (n: number) => idOf(project, n) }
  }

  const tables = ['secrets', 'key_scopes', 'key_logging', 'allowed_hosts', 'policies', 'roles', 'role_scopes', 'members']
  /** What is there of a project, tombstones apart. */
  async function left (sql: Sql, projectId: string): Promise<Record<string, number>> {
    const [row] = await sql`SELECT count(*)::int AS keys FROM keys WHERE project_id = ${projectId} AND (status <> 'deleted' OR role_id IS NOT NULL OR logged_for_all)`
    const rows: Record<string, number> = { keys: row?.['keys'] }
    for (const table of tables) rows[table] = (await sql`SELECT count(*)::int FROM ${sql(table)} WHERE project_id = ${projectId}`)[0]?.['count']
    return rows
  }
  const nothing = Object.fromEntries(['keys', ...tables].map(name => [name, 0]))
  const isErased = async (sql: Sql, projectId: string) => Object.values(await left(sql, projectId)).every(count => count === 0)
  /** Keys of `fill` that are neither as they were nor erased. */
  const halves = async (sql: Sql, projectId: string) => (await sql`
    SELECT k.id FROM keys k WHERE k.project_id = ${projectId} AND (
      (SELECT count(*) FROM secrets s WHERE s.project_id = k.project_id AND s.key_id = k.id) + (SELECT count(*) FROM key_scopes s WHERE s.project_id = k.project_id AND s.key_id = k.id)
      + (SELECT count(*) FROM key_logging s WHERE s.project_id = k.project_id AND s.key_id = k.id) + (SELECT count(*) FROM allowed_hosts s WHERE s.project_id = k.project_id AND s.key_id = k.id)
      + (SELECT count(*) FROM policies s WHERE s.project_id = k.project_id AND s.key_id = k.id) + (k.role_id IS NOT NULL)::int + k.logged_for_all::int
    ) <> CASE WHEN k.status = 'deleted' THEN 0 ELSE 7 END`).map(({ id }) => id)

  /** A transaction that holds rows; `release` ends it. */
  async function hold (config: Config, work: (sql: Sql) => Promise<unknown>) {
    const sql = tablesOf(t, config.databaseUrl)
    await sql`BEGIN`
    await work(sql)
    return { release: async () => { await sql`ROLLBACK` } }
  }
  const waiting = async (config: Config) => await waitingIn(house.admin, config)
  const isNotedErased = async (sql: Sql, projectId: string) => (await sql`SELECT 1 FROM projects WHERE id = ${projectId} AND erased_at IS NOT NULL`).length === 1
  const outcome = async ({ call }: TestApp, secret: string) => (await call('POST', '/verifications', { digest: digestSecret(secret) })).body.outcome
  const chain = async (sql: Sql, projectId: string) => (await sql`SELECT action, details FROM audit_events WHERE chain = ${projectId} ORDER BY seq`).map(({ action, details }) => ({ action, details }))
  /** Makes the service look for what is left to erase, as every deletion does. */
  const wake = async ({ call }: TestApp) => { await call('DELETE', `/projects/${(await call('POST', '/projects', { name: 'Q' })).body.id}`) }

  await t.test('a small one is wholly erased when it is answered', async t => {
    const { app, config, sql } = await start()
    const { projectId, at } = await fill(sql, app, config, 30)
    t.equal((await app.call('DELETE', at)).status, 204)
    t.strictSame(await left(sql, projectId), nothing)
    await until(async () => await isNotedErased(sql, projectId))
    t.match((await chain(sql, projectId)).at(-1), { action: 'project.delete', details: { keys: 30 } })
    t.strictSame([...await sql`SELECT key_id, version::int FROM outbox WHERE project_id = ${projectId} ORDER BY id DESC LIMIT 1`], [{ key_id: '*', version: 3 }])
    t.equal(await app.parts.redis.client.hget(`kg:{${projectId}}:versions`, '*'), '3', 'every record of its keys is stale')
  })

  await t.test('of a large one every key is gone at once, also where it is not erased yet', async t => {
    const { app, config, sql } = await start()
    const { call } = app
    const [first, last, imported] = [generateSecret('kg'), generateSecret('kg'), randomUUID()]
    const { projectId, at, key } = await fill(sql, app, config, many, { 1: first, [many]: last, [many - 1]: imported })
    const create = async () => await call('POST', `${at}/keys`, { name: 'Once' }, tokens.all, { 'idempotency-key': 'once' })
    const { body: { secret, ...made } } = await create()
    for (const known of [first, last, imported, secret]) t.equal(await outcome(app, known), 'found')

    // What somebody else is writing is left for later: so these stay as they are.
    const kept = [key(many - 1), key(many), made.id as string]
    const { release } = await hold(config, async sql => await sql`SELECT 1 FROM keys WHERE id = ANY(${kept}) FOR UPDATE`)
    t.match(await call('DELETE', at), { status: 204 })
    t.match((await chain(sql, projectId)).at(-1), { action: 'project.delete', details: { keys: many + 1 } })
    for (const known of [first, last, imported, secret]) t.equal(await outcome(app, known), 'unknown')

    for (const id of [key(1), ...kept]) {
      const keyAt = `${at}/keys/${id}`
      for (const [method, path, body] of [
        ['GET', ''], ['PATCH', '', { name: 'x' }], ['POST', '/rotate'], ['PATCH', '/rotate', { gracePeriodSeconds: 60 }], ['POST', '/rotate/finish'], ['POST', '/disable'], ['POST', '/enable'],
        ['POST', '/revoke'], ['POST', '/reveal', { reason }], ['GET', '/limit'], ['DELETE', '/limit'], ['DELETE', '']
      ] as const) t.match(await call(method, `${keyAt}${path}`, body), { status: 404, body: { code: 'key_not_found' } }, `${method} ${path} ${id}`)
    }
    for (const [method, path, body] of [['GET', '/keys'], ['GET', '/keys?search=K'], ['POST', '/keys', { name: 'x' }], ['GET', '/roles'], ['GET', ''], ['DELETE', '']] as const) {
      t.match(await call(method, `${at}${path}`, body), { status: 404, body: { code: 'project_not_found' } }, `${method} ${path}`)
    }
    t.strictSame((await create()).body, { ...made, secretOmitted: true }, 'a repeated request gets no secret')
    t.strictSame((await left(sql, projectId))['members'], 0)

    const other = (await call('POST', '/projects', { name: 'Other' })).body.id as string
    t.match(await call('POST', `/projects/${other}/keys`, { name: 'I', import: { secret: imported } }), { status: 201 }, 'its secret can be imported elsewhere, as when it is erased')
    t.match(await call('POST', `/projects/${other}/keys`, { name: 'I', import: { secret: imported } }), { status: 409, body: { code: 'secret_already_used' } }, 'once')

    await until(async () => (await left(sql, projectId))['keys'] === kept.length)
    t.match(await left(sql, projectId), { roles: 1, secrets: kept.length - 1 }, 'the role stays as long as a key is bound to it')
    t.notOk(await isNotedErased(sql, projectId))
    await release()
    await wake(app)
    await until(async () => await isNotedErased(sql, projectId))
    t.ok(await isErased(sql, projectId))
    t.strictSame((await chain(sql, projectId)).slice(-1).map(({ action }) => action), ['project.delete'], 'nothing was changed after the deletion')
    t.strictSame([...await sql`SELECT secret_ciphertext FROM idempotency_keys WHERE project_id = ${projectId}`], [{ secret_ciphertext: null }])
    t.equal(await outcome(app, imported), 'found')
  })

  await t.test('P6 a process that is killed in between leaves no half key, and the next one goes on at its start', async t => {
    const { app, config, sql } = await start()
    const { projectId, at, key } = await fill(sql, app, config, 3500)
    await app.app.close()
    const worker = fork(new URL('idempotency-worker.ts', import.meta.url)) // with the loader of this process
    t.teardown(() => { worker.kill('SIGKILL') })
    const order: Order = { config: { ...config, encryptionKeys: undefined }, encryptionKey: config.encryptionKeys?.current.value.toString('base64') ?? '' }
    worker.send(order)
    const [port] = await once(worker, 'message') as [number]

    const { release } = await hold(config, async sql => await sql`SELECT 1 FROM secrets WHERE key_id = ${key(2500)} FOR UPDATE`)
    const deleted = await fetch(`http://127.0.0.1:${port}/v1${at}`, { method: 'DELETE', headers: { authorization: `Bearer ${tokens.all}` } })
    t.equal(deleted.status, 204)
    await until(async () => await waiting(config) > 0) // in the middle of a batch
    worker.kill('SIGKILL')
    await once(worker, 'exit')
    await release()
    const name = new URL(config.databaseUrl).pathname.slice(1)
    await until(async () => (await house.admin`SELECT 1 FROM pg_stat_activity WHERE datname = ${name} AND application_name = 'keygate-key-service'`).length === 0)

    const { keys = 0, secrets = 0 } = await left(sql, projectId)
    t.ok(keys > 1000 && keys < 3500, `${keys} are left`)
    t.equal(secrets, keys)
    t.strictSame(await halves(sql, projectId), [])
    await startApp(t, config)
    await until(async () => await isErased(sql, projectId))
    t.equal((await sql`SELECT 1 FROM keys WHERE project_id = ${projectId}`).length, 3500, 'as tombstones')
  })

  await t.test('a batch that fails leaves no half key and harms nobody', async t => {
    const { app, config, sql } = await start()
    const { projectId, at, key } = await fill(sql, app, config, 2500)
    await sql`CREATE SEQUENCE refusals` // goes on although the transaction is undone
    await sql.unsafe(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('refusals'); RAISE EXCEPTION 'not this one'; END $$;
      CREATE TRIGGER refuse BEFORE DELETE ON secrets FOR EACH ROW WHEN (OLD.key_id = '${key(1500)}') EXECUTE FUNCTION refuse()`)
    t.equal((await app.call('DELETE', at)).status, 204)
    await until(async () => (await sql`SELECT is_called FROM refusals`)[0]?.['is_called'])
    t.strictSame(await halves(sql, projectId), [])
    t.equal((await left(sql, projectId))['keys'], (await left(sql, projectId))['secrets'])
    t.match(await app.call('GET', `${at}/keys/${key(1500)}`), { status: 404 })
    t.match(await app.call('GET', '/projects'), { status: 200 })
    await sql`DROP TRIGGER refuse ON secrets`
    await wake(app)
    await until(async () => await isErased(sql, projectId))
  })

  await t.test('B2-01 a database that is away postpones the erasure, which says so once; several processes share it', async t => {
    const { app, config, sql } = await start()
    const { projectId } = await fill(sql, app, config, 3000)
    await app.app.close()
    await sql`DELETE FROM policies WHERE project_id = ${projectId} AND key_id = '*'`
    await sql`UPDATE projects SET deleted_at = now() WHERE id = ${projectId}`
    const proxy = await startTcpProxy(house.postgres.port)
    await proxy.stop()
    const url = config.databaseUrl.replace(`:${house.postgres.port}/`, `:${proxy.port}/`)

    let attempts = 0
    const erasures = [1, 2].map(() => {
      const lines: string[] = []
      const { log } = Fastify({ logger: { stream: { write: (line: string) => { lines.push(line) } } } })
      const real = openDatabase(url)
      const database: Database = { ...real, run: async work => { attempts++; return await real.run(work) } }
      const erasure = createErasure({ database, log, intervalMs: 5 })
      t.teardown(async () => { await erasure.stop(); await real.close() })
      return { erasure, lines }
    })
    for (const { erasure } of erasures) erasure.start()
    await until(async () => attempts > 20)
    for (const { lines } of erasures) t.match(lines, [/cannot be erased; it is tried again/])
    const back = await startTcpProxy(house.postgres.port, { port: proxy.port })
    await until(async () => await isErased(sql, projectId))
    await until(async () => erasures.every(({ lines }) => lines.length === 2))
    for (const { erasure, lines } of erasures) {
      await erasure.stop()
      t.match(lines[1], /are erased again/)
    }
    await back.stop()
  })

  await t.test('a change of a key comes before the deletion, or is refused', async t => {
    const { app, config, sql } = await start()
    const { call } = app
    const before = await fill(sql, app, config, 2)
    const key = await hold(config, async sql => await sql`SELECT 1 FROM keys WHERE id = ${before.key(2)} FOR UPDATE`)
    const rotating = call('POST', `${before.at}/keys/${before.key(2)}/rotate`) // holds the project, waits for the key
    await until(async () => await waiting(config) === 1)
    const deleting = call('DELETE', before.at)
    await until(async () => await waiting(config) === 2)
    await key.release()
    const rotated = await rotating
    t.equal(rotated.status, 200)
    t.equal((await deleting).status, 204)
    t.strictSame((await chain(sql, before.projectId)).slice(-2).map(({ action }) => action), ['key.rotate', 'project.delete'])
    t.equal(await outcome(app, rotated.body.secret), 'unknown')
    t.strictSame(await left(sql, before.projectId), nothing)

    const after = await fill(sql, app, config, 2)
    const first = await hold(config, async sql => await sql`SELECT 1 FROM keys WHERE id = ${after.key(1)} FOR UPDATE`)
    const deletingFirst = call('DELETE', after.at) // holds the project, waits for the key
    await until(async () => await waiting(config) === 1)
    const late = Promise.all([
      call('POST', `${after.at}/keys/${after.key(2)}/rotate`), call('POST', `${after.at}/keys/${after.key(2)}/reveal`, { reason }), call('DELETE', `${after.at}/keys/${after.key(2)}/limit`),
      call('POST', `${after.at}/keys`, { name: 'late' }), call('POST', `${after.at}/roles`, { name: 'late' })
    ])
    await until(async () => await waiting(config) === 6)
    await first.release()
    t.equal((await deletingFirst).status, 204)
    for (const answer of await late) t.equal(answer.status, 404, answer.text)
    t.strictSame((await chain(sql, after.projectId)).at(-1)?.action, 'project.delete')
    t.strictSame(await left(sql, after.projectId), nothing)
  })

  await t.test('changes, endings of rights and two deletions at once do not wait for each other in a circle', async t => {
    const { app, config, sql } = await start()
    // Where the first deletion stops while all others come: before it has all memberships, and when it has the project too.
    for (const [where, stop] of [
      ['memberships', (projectId: string, userId: string) => async (sql: Sql) => await sql`SELECT 1 FROM members WHERE project_id = ${projectId} AND user_id = ${userId} FOR SHARE`],
      ['the project', (projectId: string) => async (sql: Sql) => await sql`SELECT 1 FROM policies WHERE project_id = ${projectId} AND key_id = '*' FOR SHARE`]
    ] as const) {
      const { projectId, at, key } = await fill(sql, app, config, 40)
      const people = await Promise.all(['ada', 'eve', 'joe'].map(async name => {
        const person = await newPerson(app, config, { email: `${name}${projects}@x.org` })
        await app.call('POST', `${at}/members`, { email: person.email, role: 'owner' })
        return person
      }))
      // The memberships are locked in the order of these ids.
      const [joe, ada, eve] = people.sort((one, other) => one.id < other.id ? -1 : 1)
      if (ada === undefined || eve === undefined || joe === undefined) throw new Error('three persons were asked for')
      const [token, other] = await Promise.all(['T', 'U'].map(async name => (await app.call('POST', '/service-tokens', { name, projectId, permissions: ['keys:update', 'tokens:write'] })).body))
      const stopped = await hold(config, stop(projectId, joe.id))
      const first = ada.call('DELETE', at)
      await until(async () => await waiting(config) === 1)
      const rest = [
        eve.call('DELETE', at), eve.call('POST', `${at}/keys/${key(1)}/rotate`), app.call('POST', `${at}/keys/${key(2)}/disable`, undefined, token.token),
        app.call('DELETE', `/service-tokens/${other.id}`, undefined, token.token), app.call('DELETE', `/service-tokens/${token.id}`, undefined, other.token),
        joe.call('PATCH', `${at}/members/${ada.id}`, { role: 'manager' }), joe.call('POST', '/service-tokens', { name: 'V', projectId, permissions: ['keys:read'] })
      ]
      await until(async () => await waiting(config) === 1 + rest.length)
      await stopped.release()
      t.match(await first, { status: 204 }, where)
      for (const { status, text } of await Promise.all(rest)) t.ok([401, 404].includes(status), `${where}: ${text}`)
      t.strictSame(await left(sql, projectId), nothing)
      t.equal((await chain(sql, projectId)).filter(({ action }) => action !== 'permission.refused').at(-1)?.action, 'project.delete')
      t.strictSame([...await sql`SELECT id FROM service_tokens WHERE project_id = ${projectId}`], [])
    }
    t.equal(await deadlocksOf(house.admin, app, config), 0)
  })

  await t.test('who comes after a deletion waits behind it, whatever is changed', async t => {
    const { app, config, sql } = await start()
    const { projectId, at, key } = await fill(sql, app, config, 2)
    const person = await newPerson(app, config, { email: 'owner@x.org' })
    await app.call('POST', `${at}/members`, { email: person.email, role: 'owner' })
    const made = (await person.call('POST', '/service-tokens', { name: 'T', projectId, permissions: ['keys:create', 'keys:update'] })).body
    const trail = await hold(config, async sql => await sql`SELECT 1 FROM audit_chains WHERE chain = ${projectId} FOR UPDATE`)
    const changing = person.call('POST', `${at}/keys/${key(1)}/disable`) // has everything but its place in the trail
    await until(async () => await waiting(config) === 1)
    const deleting = app.call('DELETE', at)
    await until(async () => await waiting(config) === 2)
    const late = [
      person.call('POST', `${at}/keys/${key(2)}/disable`), person.call('POST', `${at}/keys`, { name: 'late' }), app.call('POST', `${at}/keys`, { name: 'late' }, made.token),
      app.call('POST', `${at}/keys/${key(2)}/disable`), app.call('POST', `${at}/roles`, { name: 'late' }), app.call('POST', `${at}/members`, { email: 'late@x.org', role: 'viewer' })
    ]
    await until(async () => await waiting(config) === 2 + late.length)
    await trail.release()
    t.match(await changing, { status: 200 })
    t.match(await deleting, { status: 204 })
    for (const { status, text } of await Promise.all(late)) t.ok([401, 404].includes(status), text)
    t.strictSame(await left(sql, projectId), nothing)
    t.equal(await deadlocksOf(house.admin, app, config), 0)
  })

  await t.test('a deletion that waits keeps nobody waiting in other projects', async t => {
    const { app, config, sql } = await start()
    const { at, key } = await fill(sql, app, config, 2)
    const [other, ending] = [await fill(sql, app, config, 2), (await app.call('POST', '/service-tokens', { name: 'T', permissions: ['keys:read'] })).body]
    const person = await newPerson(app, config, { email: 'owner@x.org' })
    for (const project of [at, other.at]) await app.call('POST', `${project}/members`, { email: person.email, role: 'owner' })
    await newPerson(app, config, { email: 'stays@x.org' })
    await app.call('POST', `${other.at}/members`, { email: 'stays@x.org', role: 'owner' })
    const own = (await person.call('POST', '/service-tokens', { name: 'T', projectId: other.projectId, permissions: ['keys:update'] })).body
    const row = await hold(config, async sql => await sql`SELECT 1 FROM keys WHERE id = ${key(1)} FOR UPDATE`)
    const deleting = app.call('DELETE', at) // has the project and its memberships
    await until(async () => await waiting(config) === 1)
    t.match(await app.call('DELETE', `/service-tokens/${ending.id}`), { status: 204 })
    t.match(await app.call('POST', `${other.at}/keys/${other.key(1)}/disable`, undefined, own.token), { status: 200 }, 'by a token of a member of both')
    t.match(await person.call('DELETE', `/service-tokens/${own.id}`), { status: 204 }, 'by a member of both')
    t.match(await person.call('DELETE', other.at), { status: 204 }, 'another deletion')
    t.equal(await waiting(config), 1)
    await row.release()
    t.match(await deleting, { status: 204 })
  })

  await t.test('clients that change keys without a pause do not keep a deletion from happening', async t => {
    const { app, config, sql } = await start({ databaseTimeoutMs: 2000 })
    const second = await startApp(t, config)
    await redisIsReady(second)
    const { projectId, at, key } = await fill(sql, app, config, 8)
    const person = await newPerson(app, config, { email: 'owner@x.org' })
    await app.call('POST', `${at}/members`, { email: person.email, role: 'owner' })
    const rounds = 400 // more than there is time for, when nobody waits behind the deletion
    let done = 0
    const clients = Array.from({ length: 8 }, async (_, i) => {
      const { call } = i % 2 === 0 ? app : second
      for (let round = 0; round < rounds; round++) {
        const by = i % 4 === 1 ? person.call : call
        const { status } = i < 4 ? await by('POST', `${at}/keys`, { name: 'K' }) : await by('POST', `${at}/keys/${key(i)}/disable`)
        if (status === 404) return
        if (status < 300) done++
      }
    })
    await until(async () => done > 16)
    const token = (await second.call('POST', '/service-tokens', { name: 'T', permissions: ['keys:read'] })).body
    const other = (await second.call('POST', '/projects', { name: 'Q' })).body.id as string
    const [deleted, ended, alsoDeleted] = await Promise.all([second.call('DELETE', at), app.call('DELETE', `/service-tokens/${token.id}`), app.call('DELETE', `/projects/${other}`)])
    for (const { status, text } of [deleted, ended, alsoDeleted]) t.equal(status, 204, text)
    await Promise.all(clients)
    await until(async () => await isNotedErased(sql, projectId))
    t.strictSame(await left(sql, projectId), nothing)
  })

  /** A loop of erasing over a database, and what it logs. */
  function erasureOver (t: Test, url: string) {
    const lines: string[] = []
    const { log } = Fastify({ logger: { stream: { write: (line: string) => { lines.push(line) } } } })
    const database = openDatabase(url)
    const erasure = createErasure({ database, log, intervalMs: 5 })
    t.teardown(async () => { await erasure.stop(); await database.close() })
    return { erasure, lines }
  }

  await t.test('a project that cannot be erased does not stop the others, and is told of once', async t => {
    const { app, config, sql } = await start()
    const filled = []
    for (let i = 0; i < 3; i++) filled.push(await fill(sql, app, config, 300))
    await app.app.close()
    const [refused, ...others] = filled.sort((one, other) => one.projectId < other.projectId ? -1 : 1)
    if (refused === undefined) throw new Error('three projects were asked for')
    await sql`CREATE SEQUENCE refusals`
    await sql.unsafe(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('refusals'); RAISE EXCEPTION 'not this one'; END $$;
      CREATE TRIGGER refuse BEFORE DELETE ON secrets FOR EACH ROW WHEN (OLD.key_id = '${refused.key(100)}') EXECUTE FUNCTION refuse()`)
    await sql`UPDATE projects SET deleted_at = now()`
    const { erasure, lines } = erasureOver(t, config.databaseUrl)
    erasure.start()
    await until(async () => (await Promise.all(others.map(async ({ projectId }) => await isNotedErased(sql, projectId)))).every(is => is))
    await until(async () => Number((await sql`SELECT last_value FROM refusals`)[0]?.['last_value']) > 3)
    t.match(lines.map(line => JSON.parse(line)), [{ projectId: refused.projectId, msg: /cannot be erased; it is tried again/ }])
    await sql`DROP TRIGGER refuse ON secrets`
    await until(async () => await isNotedErased(sql, refused.projectId))
    await until(async () => lines.length === 2)
    t.match(lines[1], /are erased again/)
  })

  await t.test('keys that take too long together are erased a few at a time, and by the deletion itself hardly any', async t => {
    const { app, config, sql } = await start()
    const { projectId, at } = await fill(sql, app, config, 2000)
    // What the server says of a statement that takes too long, here of one that does too much.
    await sql.unsafe(`CREATE FUNCTION too_many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF (SELECT count(*) FROM gone) > 200 THEN RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = '57014'; END IF; RETURN NULL; END $$;
      CREATE TRIGGER too_many AFTER DELETE ON secrets REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION too_many()`)
    t.match(await app.call('DELETE', at), { status: 204 })
    await until(async () => await isNotedErased(sql, projectId))
    t.strictSame(await left(sql, projectId), nothing)
  })

  await t.test('every statement of it finds its rows by an index', async t => {
    const { app, config, sql } = await start()
    const { projectId, key } = await fill(sql, app, config, 5000)
    await fill(sql, app, config, many)
    await sql`INSERT INTO idempotency_keys (digest, fingerprint, project_id, key_id, status, body, secret_ciphertext) SELECT id, 'f', project_id, id, 201, '{}', 'c' FROM keys`
    await sql`UPDATE projects SET deleted_at = now() WHERE id = ${projectId}`
    await sql`INSERT INTO projects (name, created_by, deleted_at, erased_at) SELECT 'T', 'test', now(), now() FROM generate_series(1, 20000)`
    await sql`VACUUM ANALYZE`
    const statements: Array<{ query: string, params: unknown[] }> = []
    const client = postgres(config.databaseUrl, { ...clientOptions, max: 1 })
    t.teardown(async () => { await client.end({ timeout: 1 }) })
    const db = drizzle(client, { logger: { logQuery: (query, params) => { statements.push({ query, params }) } } })
    await db.transaction(async tx => { await eraseBatch(tx, projectId, { after: key(2500), size: batchSizes.afterwards, locked: 'skip' }) })
    await countKeys(db, projectId)
    t.strictSame(await findUnerased(db), [projectId])
    const asked = statements.splice(0).filter(({ query }) => /^\s*(select|update|delete)/i.test(query))
    t.equal(asked.length, 10)
    const [{ query, params } = { query: '', params: [] }] = asked.slice(-1)
    const [row] = await client.unsafe<Array<{ 'QUERY PLAN': Array<{ Plan: PlanNode }> }>>(`EXPLAIN (FORMAT JSON) ${query}`, params as string[])
    t.match((row?.['QUERY PLAN'] ?? []).flatMap(({ Plan: plan }) => scansOf(plan)), [{ index: 'projects_unerased' }], 'projects that are erased are not looked at')
    // A batch is a noticeable part of these tables, and reading them as a whole hardly costs more: the question is whether there is an index.
    await client`SET enable_seqscan = off`
    t.match(asked, [/select "id" from "keys" .* for update skip locked/].map(query => ({ query })))
    for (const { query, params } of asked) {
      const [row] = await client.unsafe<Array<{ 'QUERY PLAN': Array<{ Plan: PlanNode }> }>>(`EXPLAIN (FORMAT JSON) ${query}`, params as string[])
      const scans = (row?.['QUERY PLAN'] ?? []).flatMap(({ Plan: plan }) => scansOf(plan))
      t.same(scans.filter(({ node, table }) => node === 'Seq Scan' && ['keys', 'idempotency_keys', 'projects', ...tables.slice(0, 5)].includes(table)).map(describeScan), [], query)
      t.ok(scans.some(({ index }) => index !== undefined), scans.map(describeScan).join(', '))
    }
  })
})
