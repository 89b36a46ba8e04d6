import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startService, type Service } from '@keygate/local'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate as migrateByDrizzle } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'
import { test, type Test } from 'tap'
import { migrate } from '../src/db/migrate.ts'
import { patiently } from '../src/db/wait.ts'
import { startHouse, tokensFile, type Sql } from './helper.ts'

const migrationsFolder = fileURLToPath(new URL('../migrations', import.meta.url))

/** Of `migrate.ts`. */
const advisoryLock = 5394283

test('PostgreSQL ends the session of a start that makes the schema', async t => {
  const house = await startHouse(t)

  function connect (t: Test, url: string): Sql {
    const client = postgres(url.replace('keygate@', 'postgres@'), { max: 1, onnotice: () => {} })
    t.teardown(async () => { await client.end({ timeout: 1 }) })
    return client
  }

  /** A database, somebody who watches it, and somebody who is in the way. */
  async function prepare (t: Test) {
    const url = await house.database()
    const [watcher, rival] = [connect(t, url), connect(t, url)]
    const env = {
      DATABASE_URL: url,
      REDIS_URL: house.redis.url,
      KEYGATE_APIS: fileURLToPath(new URL('fixtures/apis.yaml', import.meta.url)),
      KEYGATE_PEPPER: 'a pepper for tests of 32 characters or more',
      KEYGATE_SERVICE_TOKENS_FILE: tokensFile(t),
      KEYGATE_DATABASE_TIMEOUT_MS: '20000',
      LOG_LEVEL: 'warn'
    }

    /** As drizzle's own migrator would, up to a migration, or all. */
    async function migrateAsBefore (count = Infinity): Promise<void> {
      const folder = join(t.testdir(), 'migrations')
      cpSync(migrationsFolder, folder, { recursive: true })
      const path = join(folder, 'meta/_journal.json')
      const journal = JSON.parse(readFileSync(path, 'utf8'))
      writeFileSync(path, JSON.stringify({ ...journal, entries: journal.entries.slice(0, count) }))
      const client = postgres(url, { max: 1, onnotice: () => {} })
      await migrateByDrizzle(drizzle(client), { migrationsFolder: folder })
      await client.end()
    }

    /** Ends the migration's session once it waits for a lock, or for its next statement (`Client`), and waits for its end. */
    async function killOne (waitsFor: 'Lock' | 'Client'): Promise<void> {
      for (;;) {
        const ended = await watcher`SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
          WHERE application_name = 'keygate-migration' AND datname = current_database() AND wait_event_type = ${waitsFor} AND query <> ''`
        if (ended.length > 0) return
      }
    }

    /** A start that goes on by itself: its failure is there for whoever asks, later. */
    function begin (): Promise<Service> {
      const ready = startService('key-service', env)
      ready.catch(() => {})
      t.teardown(async () => { await ready.then(async service => { await service.stop() }, () => {}) })
      return ready
    }

    return { url, watcher, rival, migrateAsBefore, killOne, begin }
  }

  const wanted = await (async () => {
    const { watcher, migrateAsBefore } = await prepare(t)
    await migrateAsBefore()
    return await schemaOf(watcher)
  })()

  /** Ready after all, with a whole schema, no word of a stack, and as it should be at the next start. */
  async function isWhole (t: Test, { watcher, begin }: Awaited<ReturnType<typeof prepare>>, ready: Promise<Service>): Promise<void> {
    const service = await ready
    t.equal((await fetch(`${service.url}/readyz`)).status, 200)
    t.notMatch(service.output(), stack)
    t.match(service.output(), /"reason":"the connection (to 127\.0\.0\.1:\d+ )?was lost".*waiting for PostgreSQL/, 'the log says what it waited for')
    await service.stop()
    t.same(await schemaOf(watcher), wanted)
    t.equal((await watcher`SELECT FROM service_tokens`).length, 4)
    const next = await begin()
    t.equal((await fetch(`${next.url}/readyz`)).status, 200)
    await next.stop()
    t.same(await schemaOf(watcher), wanted)
  }

  await t.test('in the middle of the migrations of an empty database: nothing of them is left, and they are made again', async t => {
    const prepared = await prepare(t)
    const { watcher, rival, killOne, begin } = prepared
    await rival`BEGIN`
    await rival`CREATE TABLE users ()` // of a later migration; who wants to make it too waits until we have decided
    const ready = begin()
    for (let i = 0; i < 3; i++) {
      await killOne('Lock')
      t.same(await watcher`SELECT to_regclass('keys') AS keys, to_regclass('drizzle.__drizzle_migrations') AS books`, [{ keys: null, books: null }])
    }
    await rival`ROLLBACK`
    await isWhole(t, prepared, ready)
  })

  await t.test('in the middle of the migrations of a database that drizzle\'s migrator has made in part', async t => {
    const prepared = await prepare(t)
    const { watcher, rival, migrateAsBefore, killOne, begin } = prepared
    await migrateAsBefore(3)
    const before = await schemaOf(watcher)
    await rival`BEGIN`
    await rival`LOCK TABLE keys IN ACCESS SHARE MODE`
    const ready = begin()
    for (let i = 0; i < 3; i++) {
      await killOne('Lock')
      t.same(await schemaOf(watcher), before)
    }
    await rival`ROLLBACK`
    await isWhole(t, prepared, ready)
  })

  await t.test('while it waits for another process that makes the schema', async t => {
    const prepared = await prepare(t)
    const { rival, killOne, begin } = prepared
    await rival`SELECT pg_advisory_lock(${advisoryLock})`
    const ready = begin()
    for (let i = 0; i < 3; i++) await killOne('Lock')
    await rival`SELECT pg_advisory_unlock(${advisoryLock})`
    await isWhole(t, prepared, ready)
  })

  await t.test('when there is nothing to migrate', async t => {
    await t.test('while it reads what there is', async t => {
      const prepared = await prepare(t)
      const { rival, migrateAsBefore, killOne, begin } = prepared
      await migrateAsBefore()
      await rival`BEGIN`
      await rival`LOCK TABLE drizzle.__drizzle_migrations`
      const ready = begin()
      for (let i = 0; i < 3; i++) await killOne('Lock')
      await rival`ROLLBACK`
      await isWhole(t, prepared, ready)
    })

    await t.test('wherever it is, in many starts', async t => {
      const { watcher, migrateAsBefore, begin } = await prepare(t)
      await migrateAsBefore()
      let killed = 0
      while (killed < 8) {
        const state = { starting: true }
        const ready = begin().finally(() => { state.starting = false })
        for (let left = 4; left > 0 && state.starting;) {
          // From its very first moment on: while it logs in, too.
          const ended = await watcher`SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'keygate-migration' AND datname = current_database()`
          left -= ended.length
          killed += ended.length
        }
        const service = await ready
        t.notMatch(service.output(), stack)
        await service.stop()
      }
      t.same(await schemaOf(watcher), wanted)
    })

    await t.test('while the work after the migrations is done: that goes on without it', async t => {
      const { watcher, rival, migrateAsBefore, killOne, begin } = await prepare(t)
      await migrateAsBefore()
      await rival`BEGIN`
      await rival`LOCK TABLE service_tokens`
      const ready = begin()
      await untilWaiting(watcher, 'keygate-key-service')
      await killOne('Client') // it holds the lock, and has nothing to do
      await rival`ROLLBACK`
      const service = await ready
      t.notMatch(service.output(), stack)
      await service.stop()
      t.equal((await watcher`SELECT FROM service_tokens`).length, 4)
    })
  })

  await t.test('a start that is refused when it tries again ends with a sentence, and the next one succeeds', async t => {
    const { watcher, rival, killOne, begin } = await prepare(t)
    await rival`BEGIN`
    await rival`CREATE TABLE users ()`
    const ready = begin()
    await untilWaiting(watcher, 'keygate-migration')
    await watcher`ALTER ROLE keygate NOLOGIN`
    await killOne('Lock')
    const failure = await ready.then(() => 'it started', (error: Error) => error.message)
    await watcher`ALTER ROLE keygate LOGIN`
    await rival`ROLLBACK`
    t.match(failure, /ended with code 1 .*\n[^]*\n *PostgreSQL refuses us: role "keygate" is not permitted to log in\. Check user, password and database in DATABASE_URL\.$/)
    t.notMatch(failure, stack)
    await (await begin()).stop()
    t.same(await schemaOf(watcher), wanted)
  })

  await t.test('who has no patience hears of it, and nothing else breaks', async t => {
    const { url, rival, killOne } = await prepare(t)
    await rival`SELECT pg_advisory_lock(${advisoryLock})`
    const waits: string[] = []
    const ended = patiently(async () => { await migrate(url) }, { patienceMs: 0, onWait: reason => { waits.push(reason) } }).then(() => undefined, (error: Error & { code?: string }) => error.code)
    await killOne('Lock')
    t.equal(await ended, 'CONNECTION_CLOSED')
    t.same(waits, [])
  })
})

/** What Node or a driver prints of an exception that nobody caught, or whose message was not meant for people. */
const stack = /\n\s+at |TypeError|PostgresError|CONNECTION_|uncaught/

/** Until a session waits for a lock. */
async function untilWaiting (watcher: Sql, application: string): Promise<void> {
  while ((await watcher`SELECT FROM pg_stat_activity WHERE application_name = ${application} AND datname = current_database() AND wait_event_type = 'Lock'`).length === 0);
}

/** Everything that migrations make, and drizzle's books of them. */
async function schemaOf (sql: Sql): Promise<Record<string, unknown[]>> {
  // Partitions are made by a service that runs, whenever it comes to it: they are no part of what migrations make.
  const ours = sql`relnamespace IN ('public'::regnamespace, 'drizzle'::regnamespace) AND NOT relispartition`
  const partitions = sql`SELECT oid FROM pg_class WHERE relispartition`
  return {
    columns: [...await sql`SELECT table_schema, table_name, column_name, data_type, is_nullable, column_default, generation_expression, is_identity FROM information_schema.columns WHERE table_schema IN ('public', 'drizzle') AND format('%I.%I', table_schema, table_name)::regclass NOT IN (${partitions}) ORDER BY 1, 2, ordinal_position`],
    constraints: [...await sql`SELECT conname, conrelid::regclass::text AS table, pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE connamespace IN ('public'::regnamespace, 'drizzle'::regnamespace) AND conrelid NOT IN (${partitions}) ORDER BY 2, 1, 3`],
    indexes: [...await sql`SELECT pg_get_indexdef(oid) AS definition FROM pg_class WHERE relkind = 'i' AND ${ours} ORDER BY 1`],
    triggers: [...await sql`SELECT pg_get_triggerdef(t.oid) AS definition FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal AND ${ours} ORDER BY 1`],
    functions: [...await sql`SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1, 2`],
    books: [...await sql`SELECT hash, created_at FROM drizzle.__drizzle_migrations ORDER BY created_at`]
  }
}
