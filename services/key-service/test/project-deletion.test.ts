import { fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { digestSecret, generateSecret } from '@keygate/api-key'
import { startTcpProxy } from '@keygate/local'
import { drizzle } from 'drizzle-orm/postgres-js'
import Fastify from 'fastify'
import postgres from 'postgres'
import { test } from 'tap'
import { describeScan, scansOf, type PlanNode } from '../bench/plans.ts'
import type { Config } from '../src/config.ts'
import { clientOptions, openDatabase, type Database } from '../src/db/database.ts'
import { createErasure } from '../src/projects/erasure.ts'
import { countKeys, eraseBatch, findUnerased } from '../src/projects/repository.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens, type Sql, type TestApp } from './helper.ts'
import type { Order } from './idempotency-worker.ts'
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
  const waiting = async (config: Config) => (await house.admin`SELECT 1 FROM pg_stat_activity WHERE datname = ${new URL(config.databaseUrl).pathname.slice(1)} AND wait_event_type = 'Lock'`).length
  const outcome = async ({ call }: TestApp, secret: string) => (await call('POST', '/verifications', { digest: digestSecret(secret) })).body.outcome
  const chain = async (sql: Sql, projectId: string) => (await sql`SELECT action, details FROM audit_events WHERE chain = ${projectId} ORDER BY seq`).map(({ action, details }) => ({ action, details }))
  /** Makes the service look for what is left to erase, as every deletion does. */
  const wake = async ({ call }: TestApp) => { await call('DELETE', `/projects/${(await call('POST', '/projects', { name: 'Q' })).body.id}`) }

  await t.test('a small one is wholly erased when it is answered', async t => {
    const { app, config, sql } = await start()
    const { projectId, at } = await fill(sql, app, config, 30)
    t.equal((await app.call('DELETE', at)).status, 204)
    t.strictSame(await left(sql, projectId), nothing)
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
    await release()
    await wake(app)
    await until(async () => await isErased(sql, projectId))
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
    const { projectId, at, key } = await fill(sql, app, config, 40)
    const [ada, eve, joe] = await Promise.all(['ada', 'eve', 'joe'].map(async name => {
      const person = await newPerson(app, config, { email: `${name}@x.org` })
      await app.call('POST', `${at}/members`, { email: person.email, role: 'owner' })
      return person
    }))
    if (ada === undefined || eve === undefined || joe === undefined) throw new Error('three persons were asked for')
    const token = (await app.call('POST', '/service-tokens', { name: 'T', projectId, permissions: ['keys:update', 'keys:read'] })).body
    const edits = Array.from({ length: 12 }, async (_, i) => i % 3 === 0
      ? await app.call('POST', `${at}/keys/${key(i + 1)}/disable`, undefined, token.token)
      : await (i % 3 === 1 ? ada : eve).call('POST', `${at}/keys/${key(i + 1)}/rotate`))
    const [one, two, ...others] = await Promise.all([
      ada.call('DELETE', at), eve.call('DELETE', at), app.call('DELETE', `/service-tokens/${token.id}`), joe.call('PATCH', `${at}/members/${ada.id}`, { role: 'manager' }),
      joe.call('POST', '/service-tokens', { name: 'U', projectId, permissions: ['keys:read'] }), ...edits
    ])
    t.ok([one.status, two.status].includes(204), `${one.text} ${two.text}`)
    for (const { status, text } of [one, two, ...others]) t.ok([200, 201, 204, 401, 403, 404].includes(status), text)
    t.strictSame(await left(sql, projectId), nothing)
    t.equal((await chain(sql, projectId)).filter(({ action }) => action !== 'permission.refused').at(-1)?.action, 'project.delete')
    t.strictSame([...await sql`SELECT id FROM service_tokens WHERE project_id = ${projectId}`], [])
    const [{ deadlocks } = {}] = await sql`SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()`
    t.equal(deadlocks, 0)
  })

  await t.test('every statement of it finds its rows by an index', async t => {
    const { app, config, sql } = await start()
    const { projectId, key } = await fill(sql, app, config, 5000)
    await fill(sql, app, config, many)
    await sql`INSERT INTO idempotency_keys (digest, fingerprint, project_id, key_id, status, body, secret_ciphertext) SELECT id, 'f', project_id, id, 201, '{}', 'c' FROM keys`
    await sql`UPDATE projects SET deleted_at = now() WHERE id = ${projectId}`
    await sql`VACUUM ANALYZE`
    const statements: Array<{ query: string, params: unknown[] }> = []
    const client = postgres(config.databaseUrl, { ...clientOptions, max: 1 })
    t.teardown(async () => { await client.end({ timeout: 1 }) })
    const db = drizzle(client, { logger: { logQuery: (query, params) => { statements.push({ query, params }) } } })
    await db.transaction(async tx => { await eraseBatch(tx, projectId, { after: key(2500), locked: 'skip' }) })
    await countKeys(db, projectId)
    await findUnerased(db)
    const asked = statements.splice(0).filter(({ query }) => /^\s*(select|update|delete)/i.test(query))
    t.equal(asked.length, 10)
    // A batch is a noticeable part of these tables, and reading them as a whole hardly costs more: the question is whether there is an index.
    await client`SET enable_seqscan = off`
    t.match(asked, [/select "id" from "keys" .* for update skip locked/].map(query => ({ query })))
    for (const { query, params } of asked) {
      const [row] = await client.unsafe<Array<{ 'QUERY PLAN': Array<{ Plan: PlanNode }> }>>(`EXPLAIN (FORMAT JSON) ${query}`, params as string[])
      const scans = (row?.['QUERY PLAN'] ?? []).flatMap(({ Plan: plan }) => scansOf(plan))
      t.same(scans.filter(({ node, table }) => node === 'Seq Scan' && ['keys', 'idempotency_keys', ...tables.slice(0, 5)].includes(table)).map(describeScan), [], query)
      t.ok(scans.some(({ index }) => index !== undefined), scans.map(describeScan).join(', '))
    }
  })
})
