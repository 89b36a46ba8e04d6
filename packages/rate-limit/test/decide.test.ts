import { startRedis, startTcpProxy } from '@keygate/local'
import t from 'tap'
import { RedisStore, raiseVersions, type Decision, type LimitedBy, type VersionsSeen } from '../src/index.ts'
import { connected, decided, epoch, freshKey, limitedBy, second, sliding } from './harness.ts'

// What only the store in Redis does; what both stores do is in store-contract.ts.
const redis = await startRedis()
const connection = await connected(redis.url)
t.teardown(async () => {
  await connection.close()
  await redis.stop()
})

let time = epoch
const store = new RedisStore(connection, { nowMicros: () => time })
const decide = async (limits: LimitedBy[], cost = 1): Promise<Decision> => decided(await store.decide({ cost, limits }))

const versions = (keyId: string, keyVersion: number, projectVersion: number, fence?: string): VersionsSeen =>
  ({ projectId: 'p', keyId, keyVersion, projectVersion, fence, bootId: 'boot', generation: connection.generation })

t.test('protocol: an unknown version is stale and names the incarnation; with that fence it is raised and admitted', async t => {
  const keyId = freshKey()
  const request = { cost: 1, limits: [limitedBy(sliding(5), keyId)] }
  const first = await store.decide({ ...request, versions: versions(keyId, 1, 1) })
  if (first.outcome !== 'stale') throw new Error(first.outcome)
  t.match(first, { keyVersion: null })
  t.equal(first.incarnation.length, 22)
  const wrongFence = await store.decide({ ...request, versions: versions(keyId, 1, 1, 'another-memory-entirely') })
  t.equal(wrongFence.outcome, 'stale', 'a fence of another incarnation raises nothing')
  const second = await store.decide({ ...request, versions: versions(keyId, 1, 1, first.incarnation) })
  t.match(second, { outcome: 'admitted', remaining: 4 }, 'and the stale calls were not charged')
  t.match(await store.decide({ ...request, versions: versions(keyId, 1, 1) }), { outcome: 'admitted', remaining: 3 })
})

t.test('protocol: a raised version makes the older record stale, a fence never lowers it', async t => {
  const keyId = freshKey()
  const request = { cost: 1, limits: [limitedBy(sliding(5), keyId)] }
  await raiseVersions(connection, 'p', { [keyId]: 7, '*': 3 })
  const stale = await store.decide({ ...request, versions: versions(keyId, 6, 3) })
  if (stale.outcome !== 'stale') throw new Error(stale.outcome)
  t.match(stale, { keyVersion: 7, projectVersion: 3 })
  t.equal((await store.decide({ ...request, versions: versions(keyId, 6, 3, stale.incarnation) })).outcome, 'stale')
  t.equal((await store.decide({ ...request, versions: versions(keyId, 7, 2) })).outcome, 'stale', 'the project counts too')
  t.equal((await store.decide({ ...request, versions: versions(keyId, 7, 2, stale.incarnation) })).outcome, 'stale', 'and a fence does not lower it either')
  await raiseVersions(connection, 'p', { [keyId]: 5, '*': 1 })
  t.equal((await store.decide({ ...request, versions: versions(keyId, 7, 3) })).outcome, 'admitted', 'a late delivery lowers nothing')
})

t.test('protocol: a raise tells its moment, by Redis\'s clock', async t => {
  const now = async () => {
    const [seconds, micros] = (await connection.client.time()).map(Number) as [number, number]
    return seconds * 1000 + Math.floor(micros / 1000)
  }
  const before = await now()
  const at = await raiseVersions(connection, 'p', { [freshKey()]: 1 })
  t.ok(Number.isInteger(at) && before <= at && at <= await now(), `${before} ${at}`)
})

t.test('protocol: the versions have no expiry and every incarnation is another one', async t => {
  t.equal(await connection.client.ttl('kg:{p}:versions'), -1)
  const before = await connection.client.hget('kg:{p}:versions', '#')
  await connection.client.del('kg:{p}:versions')
  await raiseVersions(connection, 'p', { '*': 1 })
  const after = await connection.client.hget('kg:{p}:versions', '#')
  t.ok(after)
  t.not(after, before)
})

t.test('protocol: a record of an older generation is not even sent', async t => {
  const keyId = freshKey()
  const outcome = await store.decide({ cost: 1, limits: [limitedBy(sliding(5), keyId)], versions: { ...versions(keyId, 1, 1), generation: connection.generation - 1 } })
  t.equal(outcome.outcome, 'reconnected')
})

t.test('admissions are counted by minute and gateway, for the balance', async t => {
  const keyId = freshKey()
  await raiseVersions(connection, 'q', { [keyId]: 1, '*': 1 })
  const of = { ...versions(keyId, 1, 1), projectId: 'q' }
  const limits = [limitedBy(sliding(2), keyId)]
  for (let i = 0; i < 4; i++) await store.decide({ cost: 1, limits, versions: of })
  await store.decide({ cost: 0, limits, versions: of })
  const counter = `kg:{q}:admitted:${Math.floor(time / 60_000_000)}`
  t.strictSame(await connection.client.hgetall(counter), { boot: '2' }, 'two admitted, two denied, one look')
  t.ok(await connection.client.ttl(counter) > 86_400)
})

t.test('at maxmemory a decision is an error and not growth', async t => {
  const limits = [limitedBy(sliding(50))]
  await connection.client.config('SET', 'maxmemory', '1mb')
  await t.rejects(decide(limits), { name: 'StoreUnavailableError', message: /OOM/ })
  await connection.client.config('SET', 'maxmemory', '0')
  t.equal((await decide(limits)).outcome, 'admitted')
})

t.test('protocol: whoever finds an empty memory names it, and never twice alike', async t => {
  const incarnations = new Set<string>()
  for (let i = 0; i < 5; i++) {
    await connection.client.del('kg:{p}:versions')
    const outcome = await store.decide({ cost: 1, limits: [limitedBy(sliding(5))], versions: versions('k', 1, 1) })
    if (outcome.outcome !== 'stale') throw new Error(outcome.outcome)
    t.equal(await connection.client.hget('kg:{p}:versions', '#'), outcome.incarnation)
    incarnations.add(outcome.incarnation)
    await connection.client.del('kg:{p}:versions')
    await raiseVersions(connection, 'p', { k: 1 })
    incarnations.add(await connection.client.hget('kg:{p}:versions', '#') ?? '')
  }
  t.equal(incarnations.size, 10, 'neither by decisions nor by raised versions')
})

t.test('protocol: an expired record is judged after its versions and neither counted nor balanced', async t => {
  const keyId = freshKey()
  await raiseVersions(connection, 'r', { [keyId]: 1, '*': 1 })
  const request = { cost: 1, limits: [limitedBy(sliding(5), keyId)], notAfterMs: epoch / 1000 - 1 }
  t.equal((await store.decide({ ...request, versions: { ...versions(keyId, 2, 1), projectId: 'r' } })).outcome, 'stale')
  t.equal((await store.decide({ ...request, versions: { ...versions(keyId, 1, 1), projectId: 'r' } })).outcome, 'expired')
  t.strictSame(await connection.client.keys('kg:{r}:*'), ['kg:{r}:versions'])
})

t.test('what has left the window is removed with the next admission, and nothing else', async t => {
  const limits = [limitedBy(sliding(10))]
  const stamps = async (): Promise<number[]> => (await connection.client.lrange(limits[0]?.log ?? '', 0, -1)).map(stamp => (Number(stamp) - epoch) / second)
  for (const [seconds, left] of [[0, [0]], [1, [0, 1]], [2, [0, 1, 2]], [3, [0, 1, 2, 3]], [60, [1, 2, 3, 60]], [62.5, [3, 60, 62.5]], [200, [200]]] as const) {
    time = epoch + seconds * second
    t.equal((await decide(limits)).outcome, 'admitted')
    t.strictSame(await stamps(), left)
  }
})

t.test('reset is one call in one slot and leaves the versions alone', async t => {
  const keyId = freshKey()
  await raiseVersions(connection, 'p', { [keyId]: 1, '*': 1 })
  const limits = [limitedBy(sliding(1), keyId), limitedBy(sliding(1, 3600), keyId)]
  t.equal((await store.decide({ cost: 1, limits, versions: versions(keyId, 1, 1) })).outcome, 'admitted')
  await store.reset(limits)
  t.equal((await store.decide({ cost: 1, limits, versions: versions(keyId, 1, 1) })).outcome, 'admitted')
})

t.test('a call without an answer is an error and is not sent again, because it may have been executed', async t => {
  const proxy = await startTcpProxy(redis.port)
  const behind = await connected(`redis://127.0.0.1:${proxy.port}`, 100)
  t.teardown(async () => { await behind.close(); await proxy.stop() })
  const limit = limitedBy(sliding(50))
  const distant = new RedisStore(behind)
  await distant.peek([limit])
  proxy.pause('down')
  await t.rejects(distant.decide({ cost: 1, limits: [limit] }), { name: 'StoreUnavailableError', message: /no reply/ })
  proxy.resume()
  await behind.call(async client => await client.ping()) // whatever was sent before has been executed
  t.equal(await connection.client.llen(limit.log), 1)
})

t.test('scenario 10: a log that is gone, or never expires, is no fault; one of a wrong type is a failure of the store', async t => {
  const limit = limitedBy(sliding(2))
  await decide([limit])
  await connection.client.del(limit.log)
  t.equal((await decide([limit])).remaining, 1, 'deleted: a fresh log')
  await connection.client.persist(limit.log)
  t.equal((await decide([limit])).remaining, 0)
  t.ok(await connection.client.pttl(limit.log) > 0, 'persisted: the next admission gives it its end again')
  await connection.client.persist(limit.log)
  time += 60 * second
  t.equal((await decide([limit])).remaining, 1, 'and its entries age without one')
  const other = limitedBy(sliding(5))
  for (const wrong of ['wrong', '1 2 3', '']) {
    await connection.client.set(limit.log, wrong)
    await t.rejects(decide([other, limit]), { name: 'StoreUnavailableError', message: /WRONGTYPE/ })
  }
  t.equal((await decide([other])).remaining, 4, 'and nothing was charged elsewhere')
})

t.test('scenario 9: SCRIPT FLUSH under load loses nothing and charges nothing twice', async t => {
  const limits = [limitedBy(sliding(1000))]
  const flushes = Array.from({ length: 20 }, async () => await connection.client.script('FLUSH'))
  const batches = Array.from({ length: 20 }, async () => {
    const flush = connection.client.script('FLUSH')
    const remaining = await Promise.all(Array.from({ length: 20 }, async () => (await decide(limits)).remaining))
    await flush
    return remaining
  })
  const remaining = (await Promise.all(batches)).flat().sort((a, b) => b - a)
  await Promise.all(flushes)
  t.strictSame(remaining, Array.from({ length: 400 }, (_, i) => 999 - i))
})
