import { once } from 'node:events'
import { startRedis } from '@keygate/local'
import t from 'tap'
import { Breaker, Heartbeat, Limiter, MemoryStore, RedisStore, StoreUnavailableError, beat, connectRedis, gatewaysKey, shareOf, type BreakerOptions, type DecideOutcome, type DecideRequest, type LimitedBy, type Policy, type RedisConnection } from '../src/index.ts'
import { connected, fixed, limitedBy, sliding } from './harness.ts'

const breakerAt = (options: BreakerOptions = {}) => {
  const clock = { ms: 1000 }
  return { clock, breaker: new Breaker({ nowMs: () => clock.ms, random: () => 0, ...options }) }
}
const fail = (breaker: Breaker, times = 1): void => { for (let i = 0; i < times; i++) breaker.failed() }

t.test('Breaker: five failures in one second open it, and fewer or slower ones do not', async t => {
  const { clock, breaker } = breakerAt()
  fail(breaker, 4)
  t.equal(breaker.isOpen, false)
  clock.ms += 1000
  fail(breaker)
  t.equal(breaker.isOpen, false, 'the first four are a second ago')
  fail(breaker, 3)
  breaker.succeeded()
  fail(breaker, 4)
  t.equal(breaker.isOpen, false, 'a reply in between begins the count anew')
  clock.ms += 999
  fail(breaker)
  t.equal(breaker.isOpen, true)
})

t.test('Breaker: while open one call at a time tries, jittered; a reply closes it', async t => {
  for (const [random, probeMs] of [[0, 250], [0.5, 312.5], [0.999, 374.875]] as const) {
    const { clock, breaker } = breakerAt({ random: () => random })
    fail(breaker, 5)
    t.equal(breaker.allows(), false)
    clock.ms += probeMs - 0.001
    t.equal(breaker.allows(), false)
    clock.ms += 0.001
    t.equal(breaker.allows(), true, `after ${probeMs} ms`)
    clock.ms += 10_000
    t.equal(breaker.allows(), false, 'a second one waits for the first, however long')
    fail(breaker)
    t.equal(breaker.allows(), false, 'a failed probe: the time begins anew')
    clock.ms += probeMs
    t.equal(breaker.allows(), true)
    breaker.succeeded()
    t.equal(breaker.isOpen, false)
    t.equal(breaker.allows() && breaker.allows(), true)
    fail(breaker, 4)
    t.equal(breaker.isOpen, false, 'closed as new')
  }
})

t.test('Breaker: a probe that was never sent tells nothing and makes way for the next', async t => {
  const { clock, breaker } = breakerAt()
  fail(breaker, 5)
  clock.ms += 250
  t.equal(breaker.allows(), true)
  breaker.unasked()
  t.equal(breaker.isOpen, true)
  t.equal(breaker.allows(), true)
  t.equal(breaker.allows(), false)
})

t.test('shareOf: a whole number, together at most the limit, but at least one each', async t => {
  t.strictSame([1, 2, 3, 7, 20, 21, 1000].map(replicas => shareOf({ limit: 20 }, replicas)), [20, 10, 6, 2, 1, 1, 1])
})

/** A store that answers as told; the clock of "Redis" is `aheadMs` before ours. */
class ScriptedStore extends RedisStore {
  calls = 0
  aheadMs = 0
  next: 'admitted' | 'limited' | 'expired' | 'reconnected' | Error = 'admitted'
  ready = true
  constructor () { super(undefined as unknown as RedisConnection) }
  override get isReady (): boolean { return this.ready }
  override async decide ({ limits: [limit] }: DecideRequest): Promise<DecideOutcome> {
    this.calls++
    if (this.next instanceof Error) throw this.next
    if (this.next === 'reconnected') return { outcome: 'reconnected' }
    const nowMs = Date.now() + this.aheadMs
    if (this.next === 'expired') return { outcome: 'expired', nowMs }
    const policy = (limit as LimitedBy).policy
    const one = { policy, remaining: 0, resetMs: 1, retryAfterMs: 0 }
    return { outcome: this.next, nowMs, ...one, policies: [one] }
  }
}

const away = new StoreUnavailableError('away')

function limiterOver (store: RedisStore, { replicas = 2, breaker }: { replicas?: number, breaker?: BreakerOptions } = {}) {
  const clock = { micros: Date.now() * 1000 }
  const states: string[] = []
  const crowd = { replicas }
  const limiter = new Limiter({ store, memory: new MemoryStore({ nowMicros: () => clock.micros }), replicas: () => crowd.replicas, onChange: state => { states.push(state) }, ...breaker === undefined ? {} : { breaker } })
  const alone = (limits: LimitedBy[], times: number, cost = 1): string => Array.from({ length: times }, () => limiter.decideAlone({ cost, limits }).outcome[0]).join('')
  return { limiter, clock, states, crowd, alone }
}

t.test('alone: each policy as its whenStoreIsDown says', async t => {
  const { limiter, alone } = limiterOver(new ScriptedStore())
  const [local, open, closed] = [undefined, 'open', 'closed'].map(whenStoreIsDown => limitedBy({ ...sliding(4), whenStoreIsDown } as Policy)) as [LimitedBy, LimitedBy, LimitedBy]
  t.equal(alone([local], 4), 'aall', 'local: a share of 4 among 2')
  t.equal(alone([open], 10), 'aaaaaaaaaa', 'open: not counted')
  t.equal(alone([closed], 1), 'c')
  t.equal(alone([local, open, closed], 1), 'c', 'one closed policy closes all')
  t.match(limiter.decideAlone({ cost: 1, limits: [open, local] }), { outcome: 'limited', violated: [local.policy.name] })
  t.equal(alone([closed], 1, 0), 'a', 'a look is never limited')
  t.equal(alone([limitedBy(fixed(4))], 4), 'aall')
})

t.test('alone: a denial says how long to wait, and waiting that long suffices', async t => {
  const { limiter, clock, alone } = limiterOver(new ScriptedStore())
  const limits = [limitedBy(sliding(4))]
  alone(limits, 2)
  clock.micros += 15_000_000
  const denied = limiter.decideAlone({ cost: 1, limits })
  t.strictSame(denied, { outcome: 'limited', retryAfterMs: 45_000, violated: ['default'] })
  clock.micros += 45_000_000 - 1
  t.equal(alone(limits, 1), 'l')
  clock.micros += 1
  t.equal(alone(limits, 3), 'aal')
  t.match(limiter.decideAlone({ cost: 5, limits }), { retryAfterMs: -1 }, 'more than the limit: never')
})

t.test('alone: what Redis admitted counts, so there is no fresh share; what it denied, looked at or did not answer does not', async t => {
  const store = new ScriptedStore()
  const { limiter, clock, alone } = limiterOver(store)
  const limits = [limitedBy(sliding(10))]
  for (let i = 0; i < 3; i++) await limiter.decide({ cost: 1, limits })
  await limiter.decide({ cost: 0, limits })
  store.next = 'limited'
  await limiter.decide({ cost: 1, limits })
  store.next = away
  await t.rejects(limiter.decide({ cost: 1, limits }), away)
  t.equal(alone(limits, 4), 'aall', '3 of 5 were used')

  store.next = 'admitted'
  const busy = [limitedBy(sliding(10))]
  for (let i = 0; i < 9; i++) await limiter.decide({ cost: 1, limits: busy })
  t.equal(alone(busy, 1), 'l', 'it had more than its share')
  clock.micros += 60_000_000
  t.equal(alone(busy, 6), 'aaaaal', 'a window later it has its share')
})

t.test('alone: the share follows the number of replicas', async t => {
  const { crowd, alone } = limiterOver(new ScriptedStore())
  const limits = [limitedBy(sliding(10))]
  t.equal(alone(limits, 6), 'aaaaal')
  crowd.replicas = 1
  t.equal(alone(limits, 6), 'aaaaal')
  crowd.replicas = 5
  t.equal(alone(limits, 1), 'l')
})

t.test('alone: a key ends by Redis\'s clock, as last measured', async t => {
  const store = new ScriptedStore()
  const { limiter } = limiterOver(store)
  const limits = [limitedBy(sliding(100))]
  const endMs = Date.now() + 3_600_000
  const outcomeAlone = (): string => limiter.decideAlone({ cost: 1, limits, notAfterMs: endMs }).outcome
  t.equal(outcomeAlone(), 'admitted')
  store.aheadMs = 7_200_000
  await limiter.decide({ cost: 1, limits })
  t.equal(outcomeAlone(), 'expired')
  t.ok(Math.abs(limiter.nowMs() - Date.now() - 7_200_000) < 1000)
  store.aheadMs = 0
  await limiter.decide({ cost: 0, limits })
  t.equal(outcomeAlone(), 'admitted', 'measured by every decision')
})

t.test('Limiter: the state is told when it changes; while alone Redis is not asked but for probes', async t => {
  const store = new ScriptedStore()
  const breakerClock = { ms: 0 }
  const { limiter, states } = limiterOver(store, { breaker: { nowMs: () => breakerClock.ms, random: () => 0 } })
  const ask = async (): Promise<string> => await limiter.decide({ cost: 1, limits: [limitedBy(sliding(4))] }).then(({ outcome }) => outcome, (error: StoreUnavailableError) => error.asked ? 'asked' : 'not asked')
  store.next = away
  for (let i = 0; i < 5; i++) t.equal(await ask(), 'asked')
  t.strictSame(states, ['alone'])
  t.equal(limiter.isAlone, true)
  for (let i = 0; i < 10; i++) t.equal(await ask(), 'not asked')
  t.equal(store.calls, 5)
  breakerClock.ms += 250
  t.equal(await ask(), 'asked')
  t.equal(await ask(), 'not asked')

  breakerClock.ms += 250
  store.next = 'reconnected'
  t.equal(await ask(), 'reconnected')
  t.equal(limiter.isAlone, true, 'nothing was sent, so nothing is known')
  store.next = new RangeError('a wrong cost')
  await t.rejects(limiter.decide({ cost: 1.5, limits: [limitedBy(sliding(4))] }), RangeError)
  t.equal(limiter.isAlone, true)
  store.next = 'expired'
  t.equal(await ask(), 'expired')
  t.strictSame(states, ['alone', 'shared'], 'any answer of Redis is an answer')
})

t.test('Limiter: without a connection it is alone from the first moment, also when nobody asks', async t => {
  const store = new ScriptedStore()
  const { limiter, states } = limiterOver(store)
  t.equal(limiter.canAsk, true)
  store.ready = false
  limiter.notice()
  limiter.notice()
  t.strictSame([limiter.isAlone, limiter.canAsk, ...states], [true, false, 'alone'])
  store.ready = true
  limiter.notice()
  t.strictSame([limiter.isAlone, limiter.canAsk, ...states], [false, true, 'alone', 'shared'])
})

t.test('Limiter: an error that concerns one key does not make Redis away', async t => {
  const store = new ScriptedStore()
  const { limiter, states } = limiterOver(store)
  store.next = new StoreUnavailableError('WRONGTYPE', { ofKey: true })
  for (let i = 0; i < 20; i++) await t.rejects(limiter.decide({ cost: 1, limits: [limitedBy(sliding(4))] }), { name: 'StoreUnavailableError' })
  t.equal(store.calls, 20)
  t.strictSame(states, [])
})

t.test('Limiter: an address is decided anyway, without Redis by this replica\'s share', async t => {
  const store = new ScriptedStore()
  store.next = away
  const { limiter } = limiterOver(store)
  const limits = [limitedBy(sliding(4))]
  const outcomes = []
  for (let i = 0; i < 3; i++) outcomes.push((await limiter.decideAnyway({ cost: 1, limits })).outcome)
  t.strictSame(outcomes, ['admitted', 'admitted', 'limited'])
  store.next = new RangeError('a wrong cost')
  await t.rejects(limiter.decideAnyway({ cost: 1, limits }), RangeError)
})

t.test('Heartbeat: everyone sees how many there are; one that stops is forgotten in time', async t => {
  const redis = await startRedis()
  t.teardown(redis.stop)
  const until = async (condition: () => boolean): Promise<void> => { while (!condition()) await new Promise(resolve => { setTimeout(resolve, 5) }) }
  const open = async (name: string, replicas?: number) => {
    const connection = await connected(redis.url)
    const heartbeat = new Heartbeat({ connection, name, replicas, everyMs: 20, countsMs: 3000 })
    t.teardown(async () => { heartbeat.stop(); await connection.close() })
    return { connection, heartbeat }
  }
  const a = await open('a')
  await until(() => a.heartbeat.replicas === 1)
  const [b, c] = [await open('b'), await open('c', 10)]
  await until(() => a.heartbeat.replicas === 3 && b.heartbeat.replicas === 3)
  t.equal(c.heartbeat.replicas, 10, 'the operator\'s number is believed')
  t.equal(await beat(a.connection, '', 3000), 3, 'looking does not count')

  await a.connection.client.flushall()
  t.equal(a.heartbeat.replicas, 3, 'an empty memory does not make one of three')
  const ready = once(b.connection, 'ready')
  b.connection.client.disconnect(true)
  await ready
  t.equal(b.heartbeat.replicas, 3, 'nor does a reconnect')

  c.heartbeat.stop()
  await until(() => a.heartbeat.replicas === 2 && b.heartbeat.replicas === 2)
  t.pass('the one that stopped is forgotten')

  b.heartbeat.announce('b2')
  const left = b.heartbeat.leave() // with a beat under way
  b.heartbeat.announce('b3')
  await left
  t.equal(await a.connection.client.zscore(gatewaysKey, 'b2'), null, 'one that leaves is forgotten at once')
  t.equal(await a.connection.client.zscore(gatewaysKey, 'b3'), null)
})

t.test('a loop that is blocked for 150 ms is not a slow Redis: decided by Redis, and the breaker stays closed', async t => {
  const redis = await startRedis()
  const connection = connectRedis(redis.url)
  t.teardown(async () => { await connection.close(); await redis.stop() })
  await once(connection, 'ready')
  const { limiter, states } = limiterOver(new RedisStore(connection))
  const limits = [limitedBy(sliding(100))]
  await limiter.decide({ cost: 1, limits })
  for (let round = 0; round < 5; round++) {
    const asked = Array.from({ length: 5 }, async () => await limiter.decide({ cost: 1, limits }))
    await new Promise(resolve => { setImmediate(resolve) }) // they are on their way
    const until = performance.now() + 150
    while (performance.now() < until);
    for (const { outcome } of await Promise.all(asked)) t.equal(outcome, 'admitted')
  }
  t.strictSame(states, [])
})
