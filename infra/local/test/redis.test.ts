import { fork } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { Redis as Client } from 'ioredis'
import t from 'tap'
import { findRedisServer, startRedis } from '../src/index.ts'
import { isRunning, until } from './helper.ts'

async function using<T> (url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client(url)
  client.on('error', () => {})
  try {
    return await work(client)
  } finally {
    client.disconnect()
  }
}

t.test('starts, answers as itself, stops, and takes its temporary folder with it', async t => {
  const redis = await startRedis()
  t.teardown(redis.stop)
  await using(redis.url, async client => {
    t.match(await client.info('server'), `process_id:${redis.pid}`)
    t.strictSame(await client.config('GET', 'save'), ['save', ''], 'saves nothing by itself')
  })
  await redis.stop()
  t.equal(isRunning(redis.pid), false)
  t.equal(existsSync(redis.dir), false)
})

t.test('restarts on its port: empty, from an older dump, from an append-only file', async t => {
  const dir = t.testdir({})
  const first = await startRedis({ dir })
  t.teardown(first.stop)
  await using(first.url, async client => {
    await client.set('n', 'old')
    await client.save()
    copyFileSync(join(dir, 'dump.rdb'), join(dir, 'older.rdb'))
    await client.set('n', 'new')
  })
  await first.kill()
  t.equal(isRunning(first.pid), false)

  const empty = await startRedis({ port: first.port })
  t.teardown(empty.stop)
  t.equal(empty.port, first.port)
  t.equal(await using(empty.url, async client => await client.dbsize()), 0)
  await empty.stop()

  const older = await startRedis({ port: first.port, dir, dump: join(dir, 'older.rdb'), args: ['--appendonly', 'no'] })
  t.teardown(older.stop)
  t.equal(await using(older.url, async client => await client.get('n')), 'old')
  await older.stop()

  const lasting = { dir: join(dir, 'lasting'), args: ['--appendonly', 'yes', '--appendfsync', 'always'] }
  const before = await startRedis(lasting)
  t.teardown(before.stop)
  await using(before.url, async client => await client.set('n', 'kept'))
  await before.kill()
  const after = await startRedis(lasting)
  t.teardown(after.stop)
  t.equal(await using(after.url, async client => await client.get('n')), 'kept')
})

t.test('ends when the process that started it is SIGKILLed', async t => {
  const dir = t.testdir({})
  const parent = fork(join(import.meta.dirname, 'orphan.ts'), ['redis', dir])
  const [message] = await once(parent, 'message') as [{ pid: number }]
  t.equal(isRunning(message.pid), true)
  parent.kill('SIGKILL')
  await until('Redis has ended', () => !isRunning(message.pid))
})

t.test('a port with another Redis on it is refused; its answers are not taken for ours', async t => {
  const other = await startRedis()
  t.teardown(other.stop)
  await t.rejects(startRedis({ port: other.port }), { name: 'LocalError', message: `Port ${other.port} for Redis is taken.` })
  await using(other.url, async client => t.equal(await client.ping(), 'PONG'))
})

t.test('a setting that Redis does not know is shown in its own words', async t => {
  await t.rejects(startRedis({ args: ['--no-such-setting', '1'] }), { message: /no-such-setting/ })
})

// PATH without any Redis, as on a machine that has only Node, npm and apt.
const bare = (process.env['PATH'] ?? '').split(delimiter)
  .filter(dir => !existsSync(join(dir, 'redis-server')) && !existsSync(join(dir, 'valkey-server'))).join(delimiter)

t.test('unpacked out of the distribution\'s packages, by two at once', { skip: !existsSync('/etc/debian_version') && 'no Debian here' }, async t => {
  const cacheDir = join(t.testdir({}), 'cache')
  const said: string[] = []
  const find = async () => await findRedisServer({ env: { PATH: bare }, cacheDir, log: line => said.push(line) })
  const [one, two] = await Promise.all([find(), find()])
  t.strictSame(one, two)
  t.ok(one.command.startsWith(cacheDir))
  t.match(one.version, /v=\d+\./)
  t.equal(said.length, 2, 'says that it takes a while')
  t.equal(readdirSync(cacheDir).length, 1, 'leaves only the server behind')

  const redis = await startRedis({ server: one })
  t.teardown(redis.stop)
  t.equal(await using(redis.url, async client => await client.eval('return cjson.decode("[7]")[1]', 0)), 7, 'with its Lua libraries')

  await find()
  t.equal(said.length, 2, 'the second time it is there already')

  rmSync(one.command)
  writeFileSync(one.command, '#!/bin/sh\nexit 1\n', { mode: 0o755 })
  t.match((await find()).version, /v=\d+\./, 'an unpacked server that does not run is fetched again')
})

t.test('the order: REDIS_SERVER, PATH; what was tried when nothing is found', async t => {
  const dir = t.testdir({ on: { path: {} }, empty: {} })
  const fake = (file: string, version: string) => writeFileSync(file, `#!/bin/sh\necho "Redis server v=${version} sha=0"\n`, { mode: 0o755 })
  fake(join(dir, 'chosen'), '7.4.1')
  fake(join(dir, 'on/path/valkey-server'), '8.0.0')
  const PATH = join(dir, 'on/path')

  t.equal((await findRedisServer({ env: { PATH, REDIS_SERVER: join(dir, 'chosen') } })).version, 'Redis server v=7.4.1')
  t.equal((await findRedisServer({ env: { PATH } })).command, join(PATH, 'valkey-server'))
  fake(join(dir, 'on/path/redis-server'), '6.0.16')
  t.equal((await findRedisServer({ env: { PATH } })).command, join(PATH, 'valkey-server'), 'a Redis too old for our script is passed over')

  await t.rejects(findRedisServer({ env: { PATH, REDIS_SERVER: join(dir, 'nowhere') } }), { name: 'LocalError', message: /REDIS_SERVER names .*nowhere/ })
  const nothing = findRedisServer({ env: { PATH: join(dir, 'empty') }, cacheDir: join(dir, 'cache') })
  await t.rejects(nothing, { name: 'LocalError', message: /not on PATH[^]*apt-get install -y redis-server[^]*brew install redis/ })
  t.notMatch(await nothing.catch(error => String(error)), /\n\s+at /)
})
