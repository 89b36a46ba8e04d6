import { fork } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import t from 'tap'
import { startPostgres } from '../src/index.ts'
import { postgresBinaries, runAs } from '../src/postgres-binaries.ts'
import { isRunning, until } from './helper.ts'

async function ask (url: string, query: string): Promise<unknown[]> {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  try {
    return [...await sql.unsafe(query)]
  } finally {
    await sql.end()
  }
}

t.test('a real server that keeps its data over a stop and a crash', async t => {
  const dir = join(t.testdir({}), 'data')
  const first = await startPostgres(dir)
  t.teardown(first.stop)
  t.strictSame(await ask(first.url, 'select 1 as one'), [{ one: 1 }])
  t.match(await ask(first.url, 'show server_version'), [{ server_version: /^18\./ }])
  t.strictSame(await ask(first.url, 'select lower(\'ÄÖ\') as text'), [{ text: 'äö' }], 'knows more letters than ASCII')
  await ask(first.url, 'create table kept (n int)')
  await ask(first.url, 'insert into kept values (1)')
  await first.stop()
  t.equal(isRunning(first.pid), false)

  const second = await startPostgres(dir, { port: first.port })
  t.teardown(second.stop)
  t.equal(second.port, first.port)
  await ask(second.url, 'insert into kept values (2)')
  await second.kill()
  t.ok(existsSync(join(dir, 'postmaster.pid')), 'a crash leaves its process file behind')

  const third = await startPostgres(dir)
  t.teardown(third.stop)
  t.strictSame(await ask(third.url, 'select n from kept order by n'), [{ n: 1 }, { n: 2 }])
})

t.test('a process file that names a stranger: the stranger lives, the server starts', async t => {
  const dir = join(t.testdir({}), 'data')
  await (await startPostgres(dir)).stop()
  // this very process: alive, and not a PostgreSQL
  writeFileSync(join(dir, 'postmaster.pid'), `${process.pid}\n${dir}\n0\n5432\n\n127.0.0.1\n`)
  const server = await startPostgres(dir)
  t.teardown(server.stop)
  t.strictSame(await ask(server.url, 'select 1 as one'), [{ one: 1 }])
})

t.test('ends when the process that started it is SIGKILLed, and its data is usable at once', async t => {
  const dir = join(t.testdir({}), 'data')
  const parent = fork(join(import.meta.dirname, 'orphan.ts'), ['postgres', dir])
  const [message] = await once(parent, 'message') as [{ pid: number }]
  t.equal(isRunning(message.pid), true)
  parent.kill('SIGKILL')
  await once(parent, 'exit')
  // no waiting for the old one here: that is startPostgres's own affair
  const next = await startPostgres(dir)
  t.teardown(next.stop)
  t.equal(isRunning(message.pid), false)
  t.strictSame(await ask(next.url, 'select 1 as one'), [{ one: 1 }])
})

t.test('ephemeral: stop removes the data; a log file is written', async t => {
  const dir = join(t.testdir({}), 'data')
  const logFile = join(t.testdirName, 'logs/postgres.log')
  const server = await startPostgres(dir, { ephemeral: true, logFile })
  t.strictSame(await ask(server.url, 'show fsync'), [{ fsync: 'off' }])
  await server.stop()
  t.equal(existsSync(dir), false)
  t.match(readFileSync(logFile, 'utf8'), /ready to accept connections/)
})

t.test('refusals say what is wrong', async t => {
  const dir = t.testdir({ strange: { 'notes.txt': 'not a database' } })
  await t.rejects(startPostgres(join(dir, 'strange')), { name: 'LocalError', message: /no PostgreSQL data/ })
  t.strictSame(readdirSync(join(dir, 'strange')), ['notes.txt'])

  const first = await startPostgres(join(dir, 'first'), { ephemeral: true })
  t.teardown(first.stop)
  await t.rejects(startPostgres(join(dir, 'second'), { ephemeral: true, port: first.port }), { name: 'LocalError', message: `Port ${first.port} for PostgreSQL is taken.` })
})

t.test('two at once, although the library links are missing', async t => {
  const lib = join(postgresBinaries(), '../lib')
  const links = readdirSync(lib).filter(name => lstatSync(join(lib, name)).isSymbolicLink())
  t.ok(links.length > 0)
  // one link only, and one that no server here uses: other tests run beside this one
  rmSync(join(lib, 'libpgtypes.so'))
  const dir = t.testdir({})
  const servers = await Promise.all(['a', 'b'].map(async name => await startPostgres(join(dir, name), { ephemeral: true })))
  await Promise.all(servers.map(async server => await server.stop()))
  t.strictSame(readdirSync(lib).filter(name => lstatSync(join(lib, name)).isSymbolicLink()), links)
})

t.test('root without a user namespace: user nobody, or a message', { skip: process.getuid?.() !== 0 && 'not root' }, async t => {
  const bin = postgresBinaries()
  const path = join(t.testdir({ bin: {}, open: {}, closed: { inner: {} } }), 'bin') // has no unshare
  writeFileSync(join(path, 'chown'), '#!/bin/sh\nPATH=/usr/bin:/bin exec chown "$@"\n', { mode: 0o755 })
  writeFileSync(join(path, 'test'), '#!/bin/sh\ntest "$@"\n', { mode: 0o755 })
  const env = { PATH: path }
  mkdirSync(join(t.testdirName, 'closed/locked/data'), { recursive: true, mode: 0o700 })
  t.throws(() => runAs(bin, join(t.testdirName, 'closed/locked/data'), env), { name: 'LocalError', message: /as an ordinary user/ })
  const found = runAs(bin, join(t.testdirName, 'open'), env)
  t.strictSame(found, { prefix: [], uid: 65534, gid: 65534 })
})

t.test('waits for a server that is still ending', async t => {
  const dir = join(t.testdir({}), 'data')
  const first = await startPostgres(dir)
  const sql = postgres(first.url, { max: 1 })
  await sql`select 1`
  const [second] = await Promise.all([
    startPostgres(dir), // begins while the first one still runs
    sql.end().then(first.stop)
  ])
  t.teardown(second.stop)
  t.not(second.pid, first.pid)
  await until('the first one is gone', () => !isRunning(first.pid))
  t.strictSame(await ask(second.url, 'select 1 as one'), [{ one: 1 }])
})
