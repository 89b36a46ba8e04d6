import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { startRedis, startTcpProxy } from '@keygate/local'
import rateLimit from '@fastify/rate-limit'
import Fastify from 'fastify'
import t from 'tap'
import { Limiter, MemoryStore, RedisStore, connectRedis, createFastifyStore, sharedLimit, type Policy, type RedisConnection } from '../src/index.ts'

const ready = async (connection: RedisConnection): Promise<void> => { if (!connection.isReady) await once(connection, 'ready') }

t.test('the generation rises with every connect, loss and reply of a node that is not in charge', async t => {
  const redis = await startRedis()
  const connection = connectRedis(redis.url)
  t.teardown(async () => { await connection.close(); await redis.stop() })
  await ready(connection)
  const atStart = connection.generation

  await connection.client.call('REPLICAOF', '127.0.0.1', '1')
  await t.rejects(connection.call(async client => await client.set('a', '1')), { name: 'StoreUnavailableError' })
  t.ok(connection.generation > atStart, 'READONLY')
  await connection.client.call('REPLICAOF', 'NO', 'ONE')

  const beforeLoss = connection.generation
  const again = once(connection, 'ready')
  await connection.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'no').catch(() => {})
  await again
  t.ok(connection.generation > beforeLoss, 'lost and connected again')
})

t.test('a Redis that is away fails a call at once, and one that is silent within the deadline', async t => {
  const redis = await startRedis()
  const proxy = await startTcpProxy(redis.port)
  const connection = connectRedis(`redis://127.0.0.1:${proxy.port}`)
  t.teardown(async () => { await connection.close(); await proxy.stop(); await redis.stop() })
  await t.rejects(connection.call(async client => await client.ping()), { name: 'StoreUnavailableError', message: /the connection is/ })
  await ready(connection)
  proxy.pause('down')
  await t.rejects(connection.call(async client => await client.ping()), { message: /no reply in 100 ms/ })
  proxy.resume()
})

t.test('a blocked event loop is not a slow Redis: a reply that has arrived counts', async t => {
  const redis = await startRedis()
  const connection = connectRedis(redis.url)
  t.teardown(async () => { await connection.close(); await redis.stop() })
  await ready(connection)
  const { generation } = connection
  for (const blockedMs of [250, 1500]) { // longer than the deadline, and than a connection may be silent
    const reply = connection.call(async client => await client.ping())
    await new Promise(resolve => { setImmediate(resolve) }) // the command is on its way
    const until = performance.now() + blockedMs
    while (performance.now() < until);
    t.equal(await reply, 'PONG', `${blockedMs} ms`)
  }
  t.equal(connection.generation, generation, 'and the connection is the same')
})

t.test('a connection that only looks open is dropped: in the handshake, and when nothing comes', async t => {
  const silent = createServer(() => {})
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const toNobody = connectRedis(`redis://127.0.0.1:${(silent.address() as AddressInfo).port}`)
  t.teardown(async () => { await toNobody.close(); silent.close() })
  const [first] = await once(silent, 'connection') as [Socket]
  await once(first.resume().on('error', () => {}), 'close')
  t.pass('the first attempt')
  const [second] = await once(silent, 'connection') as [Socket]
  await once(second.resume().on('error', () => {}), 'close')
  t.pass('and the second')

  const redis = await startRedis()
  const proxy = await startTcpProxy(redis.port)
  const connection = connectRedis(`redis://127.0.0.1:${proxy.port}`)
  t.teardown(async () => { await connection.close(); await proxy.stop(); await redis.stop() })
  await ready(connection)
  t.equal(await connection.call(async client => await client.ping()), 'PONG')
  const { generation } = connection
  proxy.pause('down')
  const again = once(connection, 'ready')
  while (connection.generation === generation) await connection.call(async client => await client.ping()).catch(() => {})
  proxy.resume()
  await again
  t.equal(await connection.call(async client => await client.ping()), 'PONG')
})

t.test('any Fastify app shares the window through @fastify/rate-limit and our store', async t => {
  const redis = await startRedis()
  const connection = connectRedis(redis.url)
  t.teardown(async () => { await connection.close(); await redis.stop() })
  await ready(connection)
  const store = new RedisStore(connection)
  const build = async () => {
    const app = Fastify()
    await app.register(rateLimit, { max: 3, timeWindow: 60_000, store: createFastifyStore(store, 'demo') })
    app.get('/', async () => 'ok')
    app.get('/other', { config: { rateLimit: { max: 1 } } }, async () => 'ok')
    t.teardown(async () => { await app.close() })
    return app
  }
  const apps = [await build(), await build()]
  const statuses = []
  for (let i = 0; i < 5; i++) statuses.push((await apps[i % 2]?.inject('/'))?.statusCode)
  t.strictSame(statuses, [200, 200, 200, 429, 429], 'three in all, not three each')
  t.equal((await apps[0]?.inject('/other'))?.statusCode, 200, 'a route with a limit of its own counts apart')
  t.equal((await apps[1]?.inject('/other'))?.statusCode, 429)
})

t.test('any Fastify app shares the window through our own plugin; without Redis it counts its share and claims nothing', async t => {
  const redis = await startRedis()
  const connections: RedisConnection[] = []
  t.teardown(async () => { await Promise.all(connections.map(async connection => { await connection.close() })); await redis.stop() })
  const policies: Policy[] = [{ name: 'hour', limit: 4, windowSeconds: 3600, algorithm: 'sliding', partition: 'address' }]
  const build = async () => {
    const connection = connectRedis(redis.url)
    connections.push(connection)
    await ready(connection)
    const app = Fastify()
    const limiter = new Limiter({ store: new RedisStore(connection), memory: new MemoryStore(), replicas: () => 2 })
    await app.register(sharedLimit, { limiter, name: 'demo', policies, subject: request => String(request.headers['x-user']) })
    app.get('/', async () => 'ok')
    t.teardown(async () => { await app.close() })
    return async (user: string) => await app.inject({ url: '/', headers: { 'x-user': user } })
  }
  const apps = [await build(), await build()]
  const answers = []
  for (let i = 0; i < 6; i++) answers.push(await apps[i % 2]?.('ada'))
  t.strictSame(answers.map(answer => answer?.statusCode), [200, 200, 200, 200, 429, 429], 'four in all')
  t.match(answers[3]?.headers, { 'ratelimit-policy': '4;w=3600', ratelimit: /^limit=4, remaining=0, reset=\d+$/ })
  t.match(answers[4]?.headers, { 'content-type': 'application/problem+json', 'retry-after': /^\d+$/ })
  t.match(answers[4]?.json(), { status: 429, 'violated-policies': ['hour'] })
  t.equal((await apps[0]?.('bob'))?.statusCode, 200, 'another subject has its own')
  t.notMatch((await connections[0]?.client.keys('*'))?.join(' '), /ada/, 'and stands in Redis only as a hash')

  const away = Promise.all(connections.map(async connection => { await once(connection, 'state') }))
  await redis.kill()
  await away
  const alone = []
  for (let i = 0; i < 4; i++) alone.push(await apps[0]?.('eve'))
  t.strictSame(alone.map(answer => answer?.statusCode), [200, 200, 429, 429], 'half of four')
  for (const answer of alone) t.notOk('ratelimit' in (answer?.headers ?? {}))
})
