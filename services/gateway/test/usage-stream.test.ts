import { startRedis } from '@keygate/local'
import { RedisStore, StoreUnavailableError, connectRedis, type LimitedBy } from '@keygate/rate-limit'
import { usageBoots, usageField, usageStream } from '@keygate/contracts'
import { Redis } from 'ioredis'
import t from 'tap'
import { createUsageStream } from '../src/usage/stream.ts'

const MiB = 1024 * 1024
const server = await startRedis({ args: ['--maxmemory', '0'] })
const redis = new Redis(server.url)
const connections = await Promise.all([1, 2, 3].map(async () => {
  const connection = connectRedis(server.url, { timeoutMs: 10_000 })
  await connection.opened
  return connection
}))
const [connection] = connections as [typeof connections[0] & object]
t.teardown(async () => {
  await Promise.all(connections.map(async connection => { await connection.close() }))
  redis.disconnect()
  await server.stop()
})
t.beforeEach(async () => {
  await redis.flushall()
  await redis.config('SET', 'maxmemory', '0')
})

const memory = async (): Promise<number> => await redis.memory('USAGE', usageStream, 'SAMPLES', 0) ?? 0
const batchOf = (bytes: number): string => 'x'.repeat(bytes)
const log = (): LimitedBy => ({ log: 'kg:{a:test}:rl:x', policy: { name: 'p', limit: 100_000, windowSeconds: 60, algorithm: 'sliding', partition: 'address' } } as unknown as LimitedBy)

t.test('the stream: what is appended is there, in its order, as one field', async t => {
  const stream = createUsageStream(connection, 64 * MiB, 'boot')
  for (let i = 0; i < 5; i++) await stream.append(`{"seq":${i}}`)
  t.strictSame((await redis.xrange(usageStream, '-', '+')).map(([, fields]) => fields), [0, 1, 2, 3, 4].map(i => [usageField, `{"seq":${i}}`]))
})

t.test('B2-14 the stream: a boot is written down beside it, before its first batch and in each Redis that it meets', async t => {
  const stream = createUsageStream(connection, MiB, 'boot')
  await redis.set('x', 1)
  await redis.rename('x', usageStream)
  await t.rejects(stream.append('{}'), StoreUnavailableError)
  t.strictSame(await redis.smembers(usageBoots), ['boot'], 'before')
  await redis.flushall()
  await stream.append('{}')
  t.strictSame(await redis.smembers(usageBoots), [], 'once')
  const ready = Promise.all(connections.map(async connection => { await new Promise<void>(resolve => { connection.once('ready', resolve) }) }))
  await redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await ready
  await stream.append('{}')
  t.strictSame(await redis.smembers(usageBoots), ['boot'], 'again')
})

t.test('the stream is capped by its memory: of large and of small entries, the small ones first, and with three gateways', async t => {
  for (const [name, sizes] of Object.entries({ large: [256 * 1024], small: [300], 'the small first': [200, 256 * 1024], mixed: [100, 20_000, 3000] })) {
    await redis.flushall()
    const cap = MiB
    const streams = connections.map(connection => createUsageStream(connection, cap, 'boot'))
    const each = sizes.map(size => Array.from({ length: Math.ceil((name === 'small' ? 2 : 10) * cap / sizes.length / size / (size === 200 ? 20 : 1)) }, () => batchOf(size)))
    const all = name === 'mixed' ? each.flat().sort((a, b) => (a.length * 7919) % 13 - (b.length * 7919) % 13) : each.flat()
    let most = 0
    let next = 0
    await Promise.all(streams.map(async stream => {
      for (let batch = all[next++]; batch !== undefined; batch = all[next++]) {
        await stream.append(batch)
        if (next % 50 === 0 || batch.length > 100_000) most = Math.max(most, await memory())
      }
    }))
    const left = await redis.xlen(usageStream)
    t.ok(left > 0 && left < all.length, `${name}: ${left} of ${all.length} entries are left`)
    const [[, newest]] = await redis.xrevrange(usageStream, '+', '-', 'COUNT', 1) as [[string, string[]]]
    t.ok(all.slice(-3).some(({ length }) => length === newest[1]?.length), 'the oldest go')
    // Beyond the cap there may be what each of the three has appended since it measured, and one entry of each.
    const beyond = 3 * (cap / 64 + Math.max(...sizes) * 1.3)
    t.ok(most <= cap + beyond, `${name}: never more than ${(most / MiB).toFixed(2)} MiB with a cap of ${cap / MiB}`)
    t.ok(most > cap / 2)
  }
})

t.test('usage can never starve the limiter: an eighth of maxmemory at most, however much comes, and decisions go on', async t => {
  const used = Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1])
  const limit = used + 16 * MiB
  await redis.config('SET', 'maxmemory', String(limit))
  connection.client.disconnect(true) // the limit is read at each connect
  await new Promise<void>(resolve => { connection.once('ready', resolve) })
  const stream = createUsageStream(connection, 64 * MiB, 'boot')
  const store = new RedisStore(connection)
  let admitted = 0
  for (let i = 0; i < 400; i++) { // 100 MiB
    await stream.append(batchOf(256 * 1024))
    if ((await store.decide({ cost: 1, limits: [log()] })).outcome === 'admitted') admitted++
  }
  t.equal(admitted, 400)
  t.ok(await memory() <= limit / 8 * 1.2, `${(await memory() / MiB).toFixed(2)} MiB of ${(limit / MiB).toFixed(1)}`)
  t.ok(Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]) < limit)
  t.equal(/evicted_keys:(\d+)/.exec(await redis.info('stats'))?.[1], '0')
})

t.test('a Redis that is full because of the stream, since its limit was lowered, is made room in', async t => {
  const stream = createUsageStream(connection, 8 * MiB, 'boot')
  for (let i = 0; i < 28; i++) await stream.append(batchOf(256 * 1024))
  const used = Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1])
  await redis.config('SET', 'maxmemory', String(used - 2 * MiB))
  await t.rejects(stream.append('{}'), StoreUnavailableError)
  await stream.append('{}')
  t.ok(await memory() < 3 * MiB, `${(await memory() / MiB).toFixed(2)} MiB`)
})

t.test('what cannot be measured is appended all the same; what is refused is told', async t => {
  await redis.acl('SETUSER', 'plain', 'on', '>secret', '~*', '+@all', '-memory', '-xtrim')
  t.teardown(async () => { await redis.acl('DELUSER', 'plain') })
  const limited = connectRedis(server.url.replace('redis://', 'redis://plain:secret@'), { timeoutMs: 10_000 })
  await limited.opened
  await createUsageStream(limited, MiB, 'boot').append('{}')
  t.equal(await redis.xlen(usageStream), 1)
  await limited.close()
  await t.rejects(createUsageStream(limited, MiB, 'boot').append('{}'), StoreUnavailableError)
  await redis.set('x', 1)
  await redis.rename('x', usageStream)
  await t.rejects(createUsageStream(connection, MiB, 'boot').append('{}'), StoreUnavailableError, 'something else has its name')
})
