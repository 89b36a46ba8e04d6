import assert from 'node:assert/strict'
import { startRedis } from '@keygate/local'
import fc from 'fast-check'
import t from 'tap'
import { RedisStore } from '../src/index.ts'
import { connected, decideAt, decided, epoch, fixed, freshKey, limitedBy, second, sliding, startStores } from './harness.ts'
import { limitsOf, run, runs, schedules } from './schedules.ts'

const { redis, connection, stores, close } = await startStores()
t.teardown(close)
const { client } = connection
const open = stores[0]?.open ?? assert.fail()

/** A number of one line of INFO. */
const info = async (section: string, field: string): Promise<number> => Number(new RegExp(`^${field}:(\\d+)`, 'm').exec(await client.info(section))?.[1] ?? assert.fail(field))

t.test('L6 denial changes nothing: what Redis holds is the same byte for byte', async t => {
  let denials = 0
  await fc.assert(fc.asyncProperty(schedules({ algorithms: ['sliding', 'fixed'], maxPolicies: 2, maxSteps: 15 }), async schedule => {
    const opened = open()
    const keyId = freshKey()
    for (const { time, cost, limits } of schedule.steps) {
      const logs = limitsOf(schedule, keyId, limits)
      const state = async () => await Promise.all(logs.flatMap(({ log }) => [client.dumpBuffer(log), client.pexpiretime(log)]))
      const before = await state()
      await decideAt(opened, time, logs, 0)
      assert.deepEqual(await state(), before, 'a look')
      if ((await decideAt(opened, time, logs, cost)).outcome === 'admitted') continue
      denials++
      assert.deepEqual(await state(), before, 'a denial')
    }
  }), runs(60))
  t.ok(denials > 0, `${denials} denials`)
})

t.test('L6 denial changes nothing: a replica of Redis hears of neither a denial nor a look', async t => {
  await client.config('SET', 'repl-ping-replica-period', '3600', 'repl-diskless-sync-delay', '0')
  const replica = await startRedis({ args: ['--replicaof', `127.0.0.1 ${redis.port}`] })
  t.teardown(async () => { await replica.stop() })
  const limits = [limitedBy(sliding(2)), limitedBy(fixed(5))]
  const store = new RedisStore(connection)
  for (let i = 0; i < 2; i++) await store.decide({ cost: 1, limits })
  while (await client.wait(1, 500) < 1); // until the replica has what was admitted
  const offset = await info('replication', 'master_repl_offset')
  for (let i = 0; i < 100; i++) {
    t.equal((await store.decide({ cost: 1, limits })).outcome, 'limited')
    await store.peek(limits)
  }
  t.equal(await info('replication', 'master_repl_offset'), offset)
  await store.decide({ cost: 1, limits: [limitedBy(sliding(1))] })
  t.ok(await info('replication', 'master_repl_offset') > offset, 'an admission moves it')
})

t.test('L9 TTL: no log is ever without one, nor outlives its window by a second', async t => {
  await fc.assert(fc.asyncProperty(schedules({ algorithms: ['sliding', 'fixed'], maxPolicies: 2, changing: true, maxSteps: 10 }), async schedule => {
    const keyId = freshKey()
    const trace = await run(open(), schedule, keyId)
    const admitted = trace.some(({ cost, decision }) => cost > 0 && decision.outcome === 'admitted')
    for (const { policy, log } of limitsOf(schedule, keyId, [])) {
      const ttl = await client.pttl(log)
      assert.ok(admitted ? ttl > 0 && ttl <= policy.windowSeconds * 1000 + 1000 : ttl === -2, `${ttl} ms`)
    }
  }), runs(100))
  t.pass()
})

t.test('L9 TTL: by the server\'s own clock a log ends at its last entry\'s end, at most a second later', async t => {
  const store = new RedisStore(connection)
  for (const windowSeconds of [1, 60, 86_400]) {
    const [log, window] = [limitedBy(sliding(5, windowSeconds)), limitedBy(fixed(5, windowSeconds))]
    for (let i = 0; i < 3; i++) await store.decide({ cost: 1, limits: [log, window] })
    const stamp = Number(await client.lindex(log.log, -1))
    const start = Number((await client.get(window.log))?.split(' ')[0])
    const ends = await Promise.all([client.pexpiretime(log.log), client.pexpiretime(window.log)])
    for (const [i, from] of [stamp, start].entries()) {
      const late = (ends[i] ?? 0) - (from / 1000 + windowSeconds * 1000)
      t.ok(late > -1 && late <= 1000, `${late} ms after the window of ${windowSeconds} s`)
    }
  }
})

t.test('L9 TTL: Redis itself removes what has ended', async t => {
  await client.config('SET', 'notify-keyspace-events', 'Ex')
  const listener = await connected(redis.url)
  t.teardown(async () => { await listener.close() })
  await listener.client.subscribe('__keyevent@0__:expired')
  const limit = limitedBy(sliding(1, 1))
  const expired = new Promise<void>(resolve => { listener.client.on('message', (_channel, key) => { if (key === limit.log) resolve() }) })
  await new RedisStore(connection).decide({ cost: 1, limits: [limit] })
  await expired
  t.equal(await client.exists(limit.log), 0)
})

t.test('L9 TTL: a script that is refused for want of memory leaves no log behind without one', async t => {
  const limits = [limitedBy(sliding(5)), limitedBy(fixed(5))]
  const opened = open()
  await decideAt(opened, epoch, limits)
  await client.config('SET', 'maxmemory', '1mb')
  await t.rejects(decideAt(opened, epoch + 61 * second, limits), { message: /OOM/ })
  await client.config('SET', 'maxmemory', '0')
  for (const { log } of limits) t.ok(await client.pttl(log) > 0)
  t.match(await decideAt(opened, epoch + 59 * second, limits), { outcome: 'admitted', remaining: 3 }, 'and nothing of it was done')
})

t.test('the gateway\'s clock has no part in a decision: Redis\'s has', async t => {
  const clock = t.intercept(Date, 'now', { value: () => 1_000_000 }) // 1970
  const limit = limitedBy(sliding(5, 3600))
  const before = Number((await client.time())[0])
  const decision = decided(await new RedisStore(connection).decide({ cost: 1, limits: [limit] }))
  const after = Number((await client.time())[0])
  clock.restore()
  const stamp = Number(await client.lindex(limit.log, 0)) / second
  t.ok(stamp >= before && stamp < after + 1, 'what is written down')
  t.ok(decision.nowMs >= before * 1000 && decision.nowMs < (after + 1) * 1000, 'what is answered')
})
