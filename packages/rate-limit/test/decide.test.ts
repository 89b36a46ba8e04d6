import { startRedis } from '@keygate/local'
import fc from 'fast-check'
import t from 'tap'
import { RedisStore, connectRedis, draft7Headers, logKey, raiseVersions, type DecideOutcome, type Decision, type LimitedBy, type Policy } from '../src/index.ts'

const redis = await startRedis()
const connection = connectRedis(redis.url)
await new Promise<void>(resolve => { connection.once('ready', resolve) })
t.teardown(async () => {
  await connection.close()
  await redis.stop()
})

const second = 1_000_000
let time = 1_700_000_000 * second
const store = new RedisStore(connection, { nowMicros: () => time })

let names = 0
const sliding = (limit: number, windowSeconds = 60, name = 'default'): Policy => ({ name, limit, windowSeconds, algorithm: 'sliding', partition: 'key' })
const limitedBy = (policy: Policy, keyId = `key_${++names}`): LimitedBy => ({ policy, log: logKey('p', { kind: 'key' }, { kind: 'key', keyId }, policy) })

const decided = (outcome: DecideOutcome): Decision => {
  if (outcome.outcome !== 'admitted' && outcome.outcome !== 'limited') throw new Error(`not decided: ${outcome.outcome}`)
  return outcome
}
const decide = async (limits: LimitedBy[], cost = 1): Promise<Decision> => decided(await store.decide({ cost, limits }))
const line = (d: Decision): string => `${d.outcome} ${draft7Headers(d)['ratelimit'] ?? ''} ${draft7Headers(d)['retry-after'] ?? ''}`.trim()

t.test('R1-R6, R7b: the story of seed 001 on the script itself, with the clock given', async t => {
  const limits = [limitedBy(sliding(20))]
  const begin = time
  const at = async (seconds: number): Promise<string> => {
    time = begin + seconds * second
    return line(await decide(limits))
  }
  t.equal(await at(0), 'admitted limit=20, remaining=19, reset=60')
  t.equal(await at(15), 'admitted limit=20, remaining=18, reset=45')
  for (let i = 3; i <= 19; i++) await at(15 + i)
  t.equal(await at(36), 'admitted limit=20, remaining=0, reset=24')
  t.equal(await at(47), 'limited limit=20, remaining=0, reset=13 13')
  t.equal(await at(50), 'limited limit=20, remaining=0, reset=10 10')
  t.equal(await at(55), 'limited limit=20, remaining=0, reset=5 5')
  t.equal(await at(59.9995), 'limited limit=20, remaining=0, reset=1 1')
  t.equal(await at(60), 'admitted limit=20, remaining=0, reset=15')
  t.equal(await at(60.3), 'limited limit=20, remaining=0, reset=15 15')
})

t.test('R7a: a fixed window starts anew as a whole', async t => {
  const limits = [limitedBy({ ...sliding(20), algorithm: 'fixed' })]
  const begin = time
  for (let i = 0; i < 20; i++) await decide(limits)
  time = begin + 47 * second
  t.equal(line(await decide(limits)), 'limited limit=20, remaining=0, reset=13 13')
  time = begin + 60 * second
  t.equal(line(await decide(limits)), 'admitted limit=20, remaining=19, reset=60')
})

t.test('the sliding log equals a brute-force list at every reply field', async t => {
  const step = fc.record({ wait: fc.constantFrom(0, 1, second / 2, second - 1, second, second + 1, 2 * second - 1, 2 * second, 2 * second + 1), cost: fc.integer({ min: 0, max: 6 }), limit: fc.integer({ min: 1, max: 5 }) })
  let decisions = 0
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40, size: 'max' }), async steps => {
    const keyId = `key_${++names}`
    let log: number[] = []
    for (const { wait, cost, limit } of steps) {
      time += wait
      decisions++
      const w = 2 * second
      const live = log.filter(stamp => stamp > time - w)
      const admits = cost === 0 || live.length + cost <= limit
      if (admits) log = [...live, ...Array<number>(cost).fill(time)]
      const shown = admits ? log.filter(stamp => stamp > time - w) : live
      const oldest = shown[0]
      const need = live.length + cost - limit
      const retry = admits ? 0 : cost > limit ? -1 : Math.ceil(((live[need - 1] ?? NaN) + w - time) / 1000)
      const d = await decide([limitedBy(sliding(limit, 2), keyId)], cost)
      const expected = { outcome: admits ? 'admitted' : 'limited', remaining: Math.max(limit - shown.length, 0), resetMs: oldest === undefined ? 2000 : Math.ceil((oldest + w - time) / 1000), retryAfterMs: retry }
      const actual = { outcome: d.outcome, remaining: d.remaining, resetMs: d.resetMs, retryAfterMs: d.retryAfterMs }
      if (JSON.stringify(expected) !== JSON.stringify(actual)) throw new Error(`expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`)
    }
  }), { numRuns: 300 })
  t.ok(decisions > 1000, `${decisions} decisions compared`)
})

t.test('L6: a denial and a look change nothing in Redis', async t => {
  const limits = [limitedBy(sliding(3))]
  for (let i = 0; i < 3; i++) await decide(limits)
  const log = limits[0]?.log ?? ''
  const before = await connection.client.dumpBuffer(log)
  t.equal((await decide(limits)).outcome, 'limited')
  t.equal((await decide(limits, 0)).outcome, 'admitted', 'cost 0 is never limited')
  t.strictSame(await connection.client.dumpBuffer(log), before)
})

t.test('L11: all or nothing: a request that one policy denies is counted by none', async t => {
  const wide = limitedBy(sliding(100, 60, 'wide'))
  const narrow = limitedBy(sliding(1, 60, 'narrow'))
  t.equal((await decide([wide, narrow])).outcome, 'admitted')
  const denied = await decide([wide, narrow])
  t.equal(denied.outcome, 'limited')
  t.strictSame(denied.policies.map(p => [p.policy.name, p.remaining]), [['wide', 99], ['narrow', 0]])
})

t.test('the clock of the server stepping back neither admits more nor locks for long', async t => {
  const limits = [limitedBy(sliding(2))]
  await decide(limits)
  await decide(limits)
  time -= 30 * second
  t.equal((await decide(limits)).outcome, 'limited', 'a small step: the clock is held')
  time -= 3600 * second
  const denied = await decide(limits)
  t.equal(denied.outcome, 'limited', 'a large step: the log is re-dated')
  t.ok(denied.retryAfterMs <= 60_000)
  time += denied.retryAfterMs * 1000
  t.equal((await decide(limits)).outcome, 'admitted')
})

const versions = (keyId: string, keyVersion: number, projectVersion: number, fence?: string) =>
  ({ projectId: 'p', keyId, keyVersion, projectVersion, fence, bootId: 'boot', generation: connection.generation })

t.test('protocol: an unknown version is stale and names the incarnation; with that fence it is raised and admitted', async t => {
  const keyId = `key_${++names}`
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
  const keyId = `key_${++names}`
  const request = { cost: 1, limits: [limitedBy(sliding(5), keyId)] }
  await raiseVersions(connection, 'p', { [keyId]: 7, '*': 3 })
  const stale = await store.decide({ ...request, versions: versions(keyId, 6, 3) })
  if (stale.outcome !== 'stale') throw new Error(stale.outcome)
  t.match(stale, { keyVersion: 7, projectVersion: 3 })
  t.equal((await store.decide({ ...request, versions: versions(keyId, 6, 3, stale.incarnation) })).outcome, 'stale')
  t.equal((await store.decide({ ...request, versions: versions(keyId, 7, 2) })).outcome, 'stale', 'the project counts too')
  await raiseVersions(connection, 'p', { [keyId]: 5, '*': 1 })
  t.equal((await store.decide({ ...request, versions: versions(keyId, 7, 3) })).outcome, 'admitted', 'a late delivery lowers nothing')
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
  const keyId = `key_${++names}`
  const outcome = await store.decide({ cost: 1, limits: [limitedBy(sliding(5), keyId)], versions: { ...versions(keyId, 1, 1), generation: connection.generation - 1 } })
  t.equal(outcome.outcome, 'reconnected')
})

t.test('K15: valid before its end, refused at it and after it, by the store\'s clock', async t => {
  const limits = [limitedBy(sliding(5))]
  const notAfterMs = Math.floor(time / 1000) + 10
  time = (notAfterMs - 1) * 1000
  t.equal((await store.decide({ cost: 1, limits, notAfterMs })).outcome, 'admitted')
  time = notAfterMs * 1000
  t.equal((await store.decide({ cost: 1, limits, notAfterMs })).outcome, 'expired')
  time = (notAfterMs + 1) * 1000
  t.equal((await store.decide({ cost: 1, limits, notAfterMs })).outcome, 'expired')
  t.equal((await decide(limits)).remaining, 3, 'and nothing was charged for the expired ones')
})

t.test('admissions are counted by minute and gateway, for the balance', async t => {
  const keyId = `key_${++names}`
  await raiseVersions(connection, 'q', { [keyId]: 1, '*': 1 })
  const of = { ...versions(keyId, 1, 1), projectId: 'q' }
  const limits = [limitedBy(sliding(2), keyId)]
  for (let i = 0; i < 4; i++) await store.decide({ cost: 1, limits, versions: of })
  await store.decide({ cost: 0, limits, versions: of })
  const counter = `kg:{q}:admitted:${Math.floor(time / 60_000_000)}`
  t.strictSame(await connection.client.hgetall(counter), { boot: '2' }, 'two admitted, two denied, one look')
  t.ok(await connection.client.ttl(counter) > 86_400)
})

t.test('every log expires by itself', async t => {
  for (const key of await connection.client.keys('kg:{p}:rl:*')) t.ok(await connection.client.pttl(key) > 0, key)
})

t.test('a cost or limit that is no whole number is refused before Redis is asked', async t => {
  for (const cost of [-1, 1.5, NaN, '1' as unknown as number]) await t.rejects(decide([limitedBy(sliding(5))], cost), /cost must be a whole number/)
  await t.rejects(decide([limitedBy(sliding(1.5))]), /limit of policy/)
  await t.rejects(decide([]), /at least one policy/)
})

t.test('SCRIPT FLUSH loses nothing and charges nothing twice', async t => {
  const limits = [limitedBy(sliding(50))]
  await connection.client.script('FLUSH')
  const results = await Promise.all(Array.from({ length: 20 }, async () => await decide(limits)))
  t.strictSame(results.map(r => r.remaining).sort((a, b) => a - b), Array.from({ length: 20 }, (_, i) => 30 + i))
})

t.test('at maxmemory a decision is an error and not growth', async t => {
  const limits = [limitedBy(sliding(50))]
  await connection.client.config('SET', 'maxmemory', '1mb')
  await t.rejects(decide(limits), { name: 'StoreUnavailableError', message: /OOM/ })
  await connection.client.config('SET', 'maxmemory', '0')
  t.equal((await decide(limits)).outcome, 'admitted')
})
