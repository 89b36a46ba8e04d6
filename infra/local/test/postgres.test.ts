import { fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import t from 'tap'
import { startPostgres } from '../src/index.ts'
import { postgresBinaries, runAs } from '../src/postgres-binaries.ts'
import { repoRoot } from '../src/root.ts'
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
  // Before tap does it, which takes a file that is still written for a failure: a killed server's last process may be ending.
  t.teardown(() => { rmSync(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }) })
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

// Nobody must be able to reach the clone for the second half: not so when it lies in root's home.
const nobody = 65_534
const reachable = spawnSync('test', ['-r', repoRoot], { uid: nobody, gid: nobody }).status === 0

t.test('root without a user namespace', { skip: process.getuid?.() !== 0 && 'not root' }, async t => {
  const bin = postgresBinaries()
  const dir = t.testdir({ bin: {}, open: {} })
  for (const name of ['chown', 'test']) { // a PATH with these two, and without unshare
    writeFileSync(join(dir, 'bin', name), `#!/bin/sh\nPATH=/usr/bin:/bin exec ${name} "$@"\n`, { mode: 0o755 })
  }
  const env = { PATH: join(dir, 'bin') }

  const locked = join(dir, 'locked')
  mkdirSync(join(locked, 'data'), { recursive: true })
  chmodSync(locked, 0o700)
  t.throws(() => runAs(bin, join(locked, 'data'), env), { name: 'LocalError', message: /as an ordinary user/ })
  if (!reachable) return

  t.strictSame(runAs(bin, join(dir, 'open'), env), { prefix: [], uid: nobody, gid: nobody })
  mkdirSync(join(dir, 'data'), { mode: 0o700 })
  await (await startPostgres(join(dir, 'data'))).stop()
  spawnSync('chown', ['-R', `${nobody}:${nobody}`, join(dir, 'data')])
  const server = await startPostgres(join(dir, 'data'))
  t.teardown(server.stop)
  t.strictSame(await ask(server.url, 'select 1 as one'), [{ one: 1 }], 'data of user nobody are used as that user')
  t.equal(statSync(join(dir, 'data/postmaster.pid')).uid, nobody)
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
