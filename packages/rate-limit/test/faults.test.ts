import { once } from 'node:events'
import { startRedis, startTcpProxy } from '@keygate/local'
import t, { type Test } from 'tap'
import { faults } from '../faults/redis-faults.ts'
import { Replica, type Answer } from '../faults/replica.ts'
import { load, openStage, subjectOf, until, untilAll, type Stage, type StageOptions } from '../faults/stage.ts'
import { Heartbeat, MemoryStore, beat, connectRedis, shareOf, type Decision } from '../src/index.ts'

// Ten times what is configured: a busy machine must not look like a slow Redis.
const patient = { timeoutMs: 1000, breaker: { withinMs: 10_000 } }

async function stageOf (t: Test, options: StageOptions = {}): Promise<Stage> {
  const stage = await openStage({ ...patient, ...options })
  t.teardown(stage.close)
  return stage
}

const counted = async ({ admin, subject: [subject] }: Stage): Promise<number> => await admin(async client => await client.llen(subject?.log ?? ''))
const all = async <T>(count: number, ask: (i: number) => Promise<T>): Promise<T[]> => await Promise.all(Array.from({ length: count }, async (_, i) => await ask(i)))
const sum = (numbers: number[]): number => numbers.reduce((a, b) => a + b, 0)
const admitted = (answers: Answer[]): number => answers.filter(({ outcome }) => outcome.outcome === 'admitted').length
const at = (stage: Stage, i: number): Replica => stage.replicas[i % stage.replicas.length] as Replica

/** What must hold for each fault that takes Redis away as a whole. Limit 30, three replicas, so 10 each while alone. */
for (const fault of faults) {
  t.test(`${fault.id}: ${fault.name}`, async t => {
    const stage = await stageOf(t, { proxied: fault.proxied ?? false, args: fault.args ?? [] })
    const { replicas, policy, subject } = stage
    await fault.prepare?.(stage)
    await untilAll(stage, 'shared')
    for (const replica of replicas) replica.states.length = 0
    const before = replicas.map(replica => replica.connection.generation)

    for (const i of [0, 0, 0, 0, 1, 1, 2]) await at(stage, i).ask(subject)
    t.strictSame(replicas.map(replica => replica.admitted('redis')), [4, 2, 1], 'shared: Redis admits')

    await fault.inject(stage)
    await untilAll(stage, 'alone')
    const answers = await all(90, async i => await at(stage, i).ask(subject))
    t.ok(answers.every(({ by }) => by === 'alone'), 'every call is decided, alone')
    t.notOk(answers.some(({ outcome }) => 'remaining' in outcome || 'policies' in outcome), 'and claims no shared count')
    const share = shareOf(policy, replicas.length)
    t.strictSame(replicas.map(replica => replica.admitted('redis') + replica.admitted('alone')), [share, share, share], 'each admits its share, of which it had used a part already')

    await fault.heal(stage)
    await untilAll(stage, 'shared')
    t.strictSame(replicas.map(({ states }) => states), replicas.map(() => ['alone', 'shared']), 'one change each way, and back without help')
    t.strictSame(replicas.map(({ pending }) => pending), [0, 0, 0], 'nothing is pending')
    if (fault.met !== undefined) for (const { failures } of replicas) t.match(failures.join('\n'), fault.met)
    if (fault.memory === 'lost') t.ok(replicas.every(({ connection }, i) => connection.generation > (before[i] ?? Infinity)), 'another memory is another generation')

    const kept = fault.memory === 'kept' ? 7 : 0
    const uncertain = fault.memory === 'kept' ? sum(replicas.map(replica => replica.uncertain)) : 0
    const found = await counted(stage)
    t.ok(found >= kept && found <= kept + uncertain, `no late charge: ${found} counted, ${kept} known, at most ${uncertain} without an answer`)
    const after = await all(60, async i => await at(stage, i).ask(subject))
    t.ok(after.every(({ by }) => by === 'redis'))
    t.equal(admitted(after), policy.limit - found, 'shared again: what Redis has left, to the unit')
    const total = sum(replicas.map(replica => replica.admitted('redis') + replica.admitted('alone')))
    t.ok(total <= (fault.memory === 'kept' ? 2 : 3) * policy.limit, `${total} in one window`)
  })
}

t.test('B1-01: killed under load: each call is decided once, in flight or not, and no replica asks while it is known to be away', async t => {
  const stage = await stageOf(t)
  const { replicas, policy } = stage
  const endLoad = load(stage, 4)
  await until('some admitted', () => sum(replicas.map(replica => replica.admitted('redis'))) > 5)
  await stage.redis.kill()
  await until('all alone', () => replicas.every(({ limiter }) => limiter.isAlone))
  const calls = replicas.map(({ store }) => store.calls)
  const since = performance.now()
  await until('many were asked', () => replicas.every(({ answers }) => answers.length > 500))
  await endLoad()
  // One probe in 250 ms, each with one more call at most while a probe is being answered.
  const probes = Math.ceil((performance.now() - since) / 250) + 1
  for (const [i, { store }] of replicas.entries()) t.ok(store.calls - (calls[i] ?? 0) <= probes, `${store.calls - (calls[i] ?? 0)} calls to Redis, ${probes} probes`)
  t.strictSame(replicas.map(({ states }) => states), [['alone'], ['alone'], ['alone']])
  // Each replica: the greater of what Redis admitted for it and its share.
  const share = shareOf(policy, replicas.length)
  for (const replica of replicas) t.ok(replica.admitted('redis') + replica.admitted('alone') <= Math.max(replica.admitted('redis'), share))
  t.strictSame(replicas.map(({ pending }) => pending), [0, 0, 0])
})

t.test('B1-01: with more replicas than the limit each still admits one', async t => {
  const stage = await stageOf(t, { limit: 2 })
  await stage.redis.kill()
  await untilAll(stage, 'alone')
  await all(9, async i => await at(stage, i).ask(stage.subject))
  t.strictSame(stage.replicas.map(replica => replica.admitted('alone')), [1, 1, 1])
})

t.test('B1-02: hung: five calls wait, the others do not', async t => {
  const stage = await stageOf(t, { replicas: 2 })
  process.kill(stage.redis.pid, 'SIGSTOP')
  for (const replica of stage.replicas) {
    for (let i = 0; i < 5; i++) t.match(await replica.ask(stage.subject), { by: 'alone', uncertain: i === 0 ? true : Boolean })
    t.ok(replica.limiter.isAlone)
    const { calls } = replica.store
    const since = performance.now()
    const answers = await all(500, async () => await replica.ask(stage.subject))
    t.equal(answers.length, 500)
    t.ok(replica.store.calls - calls <= Math.ceil((performance.now() - since) / 250))
  }
  process.kill(stage.redis.pid, 'SIGCONT')
  await untilAll(stage, 'shared')
})

t.test('B1-02: slow, but within the deadline: shared goes on', async t => {
  const stage = await stageOf(t)
  await stage.admin(async client => await client.call('CLIENT', 'PAUSE', '200', 'ALL'))
  const answers = await all(9, async i => await at(stage, i).ask(stage.subject))
  t.ok(answers.every(({ by }) => by === 'redis'))
  t.strictSame(stage.replicas.map(({ states }) => states), [[], [], []])
})

t.test('B1-03: a connection that looks open and is dead is dropped, and others are tried', async t => {
  const stage = await stageOf(t, { proxied: true, replicas: 1 })
  const { proxy } = stage
  const again = proxy?.once('connection')
  proxy?.swallow('both').catch(() => {})
  await untilAll(stage, 'alone')
  await again
  t.pass('a new connection, before anything has healed')
})

t.test('B1-03: it is dropped although replies came just before it died, and nobody asks again', async t => {
  const { replicas: [replica], proxy, subject } = await stageOf(t, { proxied: true, replicas: 1 })
  t.equal((await replica?.ask(subject))?.by, 'redis')
  const again = proxy?.once('connection')
  proxy?.swallow('both').catch(() => {})
  t.equal((await replica?.ask(subject))?.by, 'alone')
  await again
  t.pass('a new connection')
})

t.test('B1-04: FLUSHALL and SCRIPT FLUSH in the middle of a window: counters begin anew, and nothing else happens', async t => {
  const stage = await stageOf(t)
  const { replicas, policy, subject } = stage
  await all(20, async i => await at(stage, i).ask(subject))
  await stage.admin(async client => { await client.flushall(); await client.script('FLUSH') })
  const next = await at(stage, 0).ask(subject)
  t.match(next, { by: 'redis', outcome: { outcome: 'admitted', remaining: policy.limit - 1 } })
  await all(90, async i => await at(stage, i).ask(subject))
  t.equal(sum(replicas.map(replica => replica.admitted('redis'))), 20 + policy.limit, 'one more limit, and no more')
  t.strictSame(replicas.map(({ states, failures }) => [...states, ...failures]), [[], [], []])
})

t.test('B1-04: SCRIPT FLUSH again and again under load: nothing lost, nothing charged twice', async t => {
  const stage = await stageOf(t, { limit: 1000 })
  const flushes = stage.admin(async client => { for (let i = 0; i < 20; i++) await client.script('FLUSH') })
  const answers = await all(900, async i => await at(stage, i).ask(stage.subject))
  await flushes
  t.strictSame(answers.map(({ outcome }) => (outcome as Decision).remaining).sort((a, b) => a - b), Array.from({ length: 900 }, (_, i) => 100 + i))
  t.equal(await counted(stage), 900)
})

t.test('B1-06: at maxmemory Redis does not grow, whoever asks', async t => {
  const stage = await stageOf(t, { limit: 1000 })
  const used = async (): Promise<number> => await stage.admin(async client => Number(/used_memory:(\d+)/.exec(await client.info('memory'))?.[1]))
  const maximum = await used() + 10_000_000
  await stage.admin(async client => await client.config('SET', 'maxmemory', String(maximum)))
  let subjects = 0
  const fresh = () => subjectOf(stage.policy, `flood_${subjects++}`)
  await until('full', async () => {
    await all(30, async i => await at(stage, i).ask(fresh(), 300))
    return stage.replicas.every(({ limiter }) => limiter.isAlone)
  })
  const keys = await stage.admin(async client => await client.dbsize())
  for (let i = 0; i < 20; i++) await all(60, async i => await at(stage, i).ask(fresh(), 300))
  t.equal(await stage.admin(async client => await client.dbsize()), keys)
  const grown = await used()
  t.ok(grown <= maximum * 1.01, `${grown} of ${maximum}`)
  await stage.admin(async client => await client.config('SET', 'maxmemory', '0'))
  await untilAll(stage, 'shared')
})

t.test('B1-08: WRONGTYPE at one key: that key is decided alone, all others by Redis and exactly', async t => {
  const stage = await stageOf(t)
  const { replicas, policy, subject } = stage
  const [bad] = subject
  await stage.admin(async client => await client.set(bad?.log ?? '', 'x'))
  const good = subjectOf(policy, 'key_2')
  const answers = await all(120, async i => await at(stage, i >> 1).ask(i % 2 === 0 ? subject : good))
  const [ofBad, ofGood] = [answers.filter((_, i) => i % 2 === 0), answers.filter((_, i) => i % 2 === 1)]
  t.ok(ofBad.every(({ by }) => by === 'alone'))
  t.equal(admitted(ofBad), policy.limit, 'a share each')
  t.ok(ofGood.every(({ by }) => by === 'redis'))
  t.equal(admitted(ofGood), policy.limit)
  t.strictSame(replicas.map(({ states }) => states), [[], [], []], 'and nobody calls Redis away')
  t.match(replicas[0]?.failures[0], /WRONGTYPE/)
  await stage.admin(async client => await client.del(bad?.log ?? ''))
  t.match(await at(stage, 0).ask(subject), { by: 'redis' }, 'mended by removing it')
})

t.test('B1-08: a wrong or missing password at start is told at once', async t => {
  const redis = await startRedis({ args: ['--requirepass', 'secret'] })
  t.teardown(redis.stop)
  for (const [url, opened] of [[redis.url, 'refused'], [redis.url.replace('//', '//:wrong@'), 'refused'], [redis.url.replace('//', '//:secret@'), 'ready']] as const) {
    const connection = connectRedis(url)
    t.equal(await connection.opened, opened)
    await connection.close()
  }
})

t.test('B1-11: absent at start: alone from the first call, shared when it comes', async t => {
  const scout = await startRedis()
  await scout.stop()
  const replica: Replica = new Replica(scout.url, { memory: new MemoryStore(), replicas: () => heartbeat.replicas, ...patient })
  const heartbeat: Heartbeat = new Heartbeat({ connection: replica.connection, name: 'a' })
  t.teardown(async () => { heartbeat.stop(); await replica.close() })
  t.equal(await replica.connection.opened, 'away')
  t.equal(heartbeat.replicas, 1, 'it has seen nobody else')
  const subject = subjectOf({ name: 'default', limit: 20, windowSeconds: 3600, algorithm: 'sliding', partition: 'key' }, 'key_1')
  const answers = await all(50, async () => await replica.ask(subject))
  t.equal(admitted(answers), 20)
  t.strictSame(replica.states, ['alone'])

  const redis = await startRedis({ port: scout.port })
  t.teardown(redis.stop)
  await until('shared', async () => (await replica.ask(subject, 0)).by === 'redis')
  t.strictSame(replica.states, ['alone', 'shared'])
  await beat(replica.connection, 'b')
  const seen = once(replica.connection, 'ready')
  replica.connection.client.disconnect(true)
  await seen
  await until('two are seen', () => heartbeat.replicas === 2)
})

t.test('B1-12: flapping ten times: few changes, twice the limit at most, nothing pending', async t => {
  const stage = await stageOf(t, { timeoutMs: 500 })
  const { replicas, policy } = stage
  const endLoad = load(stage, 1)
  for (let i = 0; i < 10; i++) {
    process.kill(stage.redis.pid, 'SIGSTOP')
    await untilAll(stage, 'alone')
    process.kill(stage.redis.pid, 'SIGCONT')
    await untilAll(stage, 'shared')
  }
  await endLoad()
  for (const { states } of replicas) t.ok(states.length <= 20, `${states.length} changes`)
  const share = shareOf(policy, replicas.length)
  t.equal(sum(replicas.map(replica => replica.admitted('redis'))) <= policy.limit, true)
  for (const replica of replicas) t.ok(replica.admitted('alone') <= share)
  t.strictSame(replicas.map(({ pending }) => pending), [0, 0, 0])
})

t.test('B1-14: reset after the write was sent: counted once, decided once', async t => {
  const redis = await startRedis()
  const proxy = await startTcpProxy(redis.port)
  const replica = new Replica(`redis://127.0.0.1:${proxy.port}`, { memory: new MemoryStore(), replicas: () => 1, ...patient })
  t.teardown(async () => { await replica.close(); await proxy.stop(); await redis.stop() })
  if (!replica.connection.isReady) await once(replica.connection, 'ready')
  const subject = subjectOf({ name: 'default', limit: 20, windowSeconds: 3600, algorithm: 'sliding', partition: 'key' }, 'key_1')
  await replica.ask(subject) // the script is known from here on: one more call is one more write
  const { generation } = replica.connection

  proxy.pause('down')
  const held = proxy.once('held')
  const asked = replica.ask(subject)
  await held // Redis has counted it and its reply is on the way
  const again = once(replica.connection, 'ready')
  proxy.reset()
  proxy.resume()
  t.match(await asked, { by: 'alone', outcome: { outcome: 'admitted' }, uncertain: true })
  await again
  t.ok(replica.connection.generation > generation)
  t.match(await replica.ask(subject, 0), { by: 'redis', outcome: { remaining: 18 } }, 'two in all: not sent again after the reconnect')
  t.equal(replica.admitted('redis') + replica.admitted('alone'), 2)
  t.equal(replica.store.calls, 3)
})
