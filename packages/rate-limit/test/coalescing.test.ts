import assert from 'node:assert/strict'
import { once } from 'node:events'
import { startRedis } from '@keygate/local'
import fc from 'fast-check'
import t from 'tap'
import { RedisStore, raiseVersions, type DecideOutcome, type LimitedBy, type Policy, type VersionsSeen } from '../src/index.ts'
import { connected, epoch, fixed, freshKey, limitedBy, second, sliding } from './harness.ts'

// Requests of one key that come in one turn of the event loop are one call of the script. What each is told must be what it would have been
// told alone.
const redis = await startRedis()
const connection = await connected(redis.url)
t.teardown(async () => {
  await connection.close()
  await redis.stop()
})

let time = epoch
const store = new RedisStore(connection, { nowMicros: () => time })

/** A key that Redis knows, and its limits. */
async function openKey (policies: Policy[]): Promise<{ limits: LimitedBy[], versions: VersionsSeen }> {
  const keyId = freshKey()
  await raiseVersions(connection, 'p', { [keyId]: 1, '*': 1 })
  return { limits: policies.map(policy => limitedBy(policy, keyId)), versions: { projectId: 'p', keyId, keyVersion: 1, projectVersion: 1, bootId: 'boot', generation: connection.generation } }
}

type Key = Awaited<ReturnType<typeof openKey>>
const atOnce = async (key: Key, count: number): Promise<DecideOutcome[]> => await Promise.all(Array.from({ length: count }, async () => await store.decide({ cost: 1, ...key })))
const inTurn = async (key: Key, count: number): Promise<DecideOutcome[]> => {
  const outcomes: DecideOutcome[] = []
  for (let i = 0; i < count; i++) outcomes.push(await store.decide({ cost: 1, ...key }))
  return outcomes
}
const calls = async (): Promise<number> => Number(/cmdstat_evalsha:calls=(\d+)/.exec(await connection.client.info('commandstats'))?.[1] ?? 0)

const policies = fc.array(fc.record({ isFixed: fc.boolean(), limit: fc.integer({ min: 1, max: 12 }), window: fc.constantFrom(60, 90, 300) }), { minLength: 1, maxLength: 3 })
  .map(list => list.map(({ isFixed, limit, window }, i) => (isFixed ? fixed : sliding)(limit, window, `p${i}`)))
const bursts = fc.array(fc.record({ afterMicros: fc.oneof(fc.constantFrom(0, 1, 60 * second - 1, 60 * second, 60 * second + 1, -second, -100 * second), fc.integer({ min: 0, max: 120 * second })), count: fc.integer({ min: 1, max: 9 }) }), { minLength: 1, maxLength: 12 })

t.test('bursts of one key in one turn are answered, request by request and number by number, as if each had come alone', async t => {
  let compared = 0
  await fc.assert(fc.asyncProperty(policies, bursts, async (policies, bursts) => {
    const [together, apart] = [await openKey(policies), await openKey(policies)]
    for (const { afterMicros, count } of bursts) {
      time = Math.max(epoch, time + afterMicros)
      const [one, other] = [await atOnce(together, count), await inTurn(apart, count)]
      assert.deepEqual(one, other)
      compared += count
    }
  }), { numRuns: 150 })
  t.ok(compared > 1000, `${compared} requests`)
})

t.test('a lowered limit: nobody of a burst is admitted, and all are told the same wait', async t => {
  const { limits: [wide], versions } = await openKey([sliding(5)])
  const key = { limits: [wide as LimitedBy], versions }
  await atOnce(key, 5)
  time += 10 * second
  const low = { limits: [{ ...wide as LimitedBy, policy: sliding(2) }], versions }
  const outcomes = await atOnce(low, 3)
  t.same(outcomes.map(({ outcome }) => outcome), ['limited', 'limited', 'limited'])
  t.same(outcomes.map(outcome => 'retryAfterMs' in outcome && outcome.retryAfterMs), [50_000, 50_000, 50_000])
})

t.test('a burst is one call, also of several keys, each by itself; what is asked with a fence or without versions goes alone', async t => {
  const keys = await Promise.all([1, 2, 3].map(async () => await openKey([sliding(100)])))
  await atOnce(keys[0] as Key, 1)
  let before = await calls()
  await Promise.all(keys.map(async key => await atOnce(key, 20)))
  t.equal(await calls() - before, 3)
  const [key] = keys as [Key]
  before = await calls()
  await Promise.all([1, 2].map(async () => await store.decide({ cost: 1, limits: key.limits, versions: { ...key.versions, fence: 'x' } })))
  await Promise.all([1, 2].map(async () => await store.decide({ cost: 1, limits: key.limits })))
  t.equal(await calls() - before, 4)
})

t.test('a burst by a record that is not current is stale for all, and is not counted', async t => {
  const key = await openKey([sliding(5)])
  await raiseVersions(connection, 'p', { [key.versions.keyId]: 2 })
  t.same(new Set((await atOnce(key, 4)).map(({ outcome }) => outcome)), new Set(['stale']))
  const current = { ...key, versions: { ...key.versions, keyVersion: 2 } }
  t.match((await atOnce(current, 1))[0], { outcome: 'admitted', remaining: 4 })
  // Both kinds in one turn: neither answers for the other.
  const mixed = await Promise.all([store.decide({ cost: 1, ...key }), store.decide({ cost: 1, ...current })])
  t.same(mixed.map(({ outcome }) => outcome), ['stale', 'admitted'])
})

/** As a reply of a node that is no longer in charge does, in this turn of the event loop: another memory may be behind the connection. */
const raiseGeneration = async (): Promise<void> => {
  const before = connection.generation
  await connection.call(async () => await Promise.reject(new Error('READONLY You can not write against a read only replica.'))).catch(() => {})
  if (connection.generation <= before) throw new Error('the generation is as before')
}

const kinds = (outcomes: DecideOutcome[]): string[] => outcomes.map(({ outcome }) => outcome)

t.test('records of two generations of the connection in one turn: neither answers for the other, whichever came first', async t => {
  for (const isOldFirst of [true, false]) {
    const old = await openKey([sliding(5)])
    await raiseGeneration()
    const current = { ...old, versions: { ...old.versions, generation: connection.generation } }
    const requests = isOldFirst ? [old, current, old, current] : [current, old, current, old]
    const outcomes = await Promise.all(requests.map(async key => await store.decide({ cost: 1, ...key })))
    t.same(kinds(outcomes), requests.map(key => key === old ? 'reconnected' : 'admitted'), `the old one ${isOldFirst ? 'first' : 'second'}`)
    t.match(await store.peek(current.limits), { remaining: 3 }, 'only the current ones were counted')
  }
})

t.test('a burst that the connection is exchanged under is asked of nobody, and each is told so', async t => {
  const key = await openKey([sliding(5)])
  await atOnce(key, 1)
  const before = await calls()
  const burst = atOnce(key, 3)
  await raiseGeneration() // the burst is not sent yet
  t.same(kinds(await burst), ['reconnected', 'reconnected', 'reconnected'])
  t.same(kinds(await atOnce(key, 3)), ['reconnected', 'reconnected', 'reconnected'], 'nor is what holds the old record later')
  t.equal(await calls(), before)
  t.match(await store.peek(key.limits), { remaining: 4 })
})

t.test('so is one whose script Redis has to be told again: by then the connection may be another', async t => {
  const key = await openKey([sliding(5)])
  await connection.client.script('FLUSH')
  const burst = atOnce(key, 3)
  await new Promise(resolve => { setImmediate(resolve) }) // sent; "no such script" is on its way
  await raiseGeneration()
  t.same(kinds(await burst), ['reconnected', 'reconnected', 'reconnected'])
  const current = { ...key, versions: { ...key.versions, generation: connection.generation } }
  t.match(await atOnce(current, 1), [{ outcome: 'admitted', remaining: 4 }], 'and nothing was counted')
})

t.test('a burst over a real reconnect: what was known before is asked again, what was learnt after it counts', async t => {
  const other = await connected(redis.url)
  t.teardown(async () => { await other.close() })
  const behind = new RedisStore(other)
  const { limits, versions } = await openKey([sliding(5)])
  const burst = async (generation: number): Promise<DecideOutcome[]> => await Promise.all([1, 2, 3].map(async () => await behind.decide({ cost: 1, limits, versions: { ...versions, generation } })))
  const { generation } = other
  const again = once(other, 'ready')
  other.client.disconnect(true)
  await again
  t.same(kinds(await burst(generation)), ['reconnected', 'reconnected', 'reconnected'])
  t.match(await burst(other.generation), [{ outcome: 'admitted', remaining: 4 }, { outcome: 'admitted', remaining: 3 }, { outcome: 'admitted', remaining: 2 }])
})

t.test('the counter of admissions counts each of a burst, and none that was limited', async t => {
  const key = await openKey([sliding(3)])
  const counter = `kg:{p}:admitted:${Math.floor(time / (60 * second))}`
  const boot = { ...key, versions: { ...key.versions, bootId: freshKey() } }
  await atOnce(boot, 5)
  t.equal(await connection.client.hget(counter, boot.versions.bootId), '3')
  t.ok(await connection.client.ttl(counter) > 0)
})

t.test('a connection that is lost fails every one of a burst', async t => {
  const lost = await connected(redis.url)
  const key = await openKey([sliding(5)])
  const other = new RedisStore(lost)
  const versions = { ...key.versions, generation: lost.generation }
  const burst = [1, 2, 3].map(async () => await other.decide({ cost: 1, limits: key.limits, versions }).then(({ outcome }) => outcome, (error: Error) => error.name))
  await lost.close()
  t.same(new Set(await Promise.all(burst)), new Set(['StoreUnavailableError']))
})
