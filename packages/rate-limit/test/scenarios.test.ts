import { startRedis } from '@keygate/local'
import t from 'tap'
import { RedisStore, draft7Headers, logKey, type LimitedBy, type Policy } from '../src/index.ts'
import { connected, decideAt, decided, epoch, limitedBy, second, sliding, startStores } from './harness.ts'
import { worstWindow } from './oracle.ts'

// The adversarial scenarios of the limiter itself; 8 is in store-contract.ts, 9 and 10 in decide.test.ts, 16 in memory-store.test.ts.
const { connection, redis, stores, close } = await startStores()
t.teardown(close)

for (const { name, open } of stores) {
  /** Puts one request at each moment (seconds) and returns the moments that were admitted (microseconds). */
  const offer = async (limits: LimitedBy[], seconds: number[]): Promise<number[]> => {
    const opened = open()
    const moments = seconds.map(at => Math.round(at * second))
    const admitted: number[] = []
    for (let i = 0; i < moments.length; i += 100) {
      await Promise.all(moments.slice(i, i + 100).map(async at => {
        if ((await decideAt(opened, epoch + at, limits)).outcome === 'admitted') admitted.push(at)
      }))
    }
    return admitted
  }
  const minute = 60 * second
  const times = (count: number, at: (i: number) => number): number[] => Array.from({ length: count }, (_, i) => at(i))

  t.test(`scenario 1: a burst just before a boundary and one just after it (${name})`, async t => {
    const admitted = await offer([limitedBy(sliding(20))], [0, ...times(19, () => 59.9), ...times(40, () => 60.1)])
    t.equal(worstWindow(admitted, minute), 20)
    t.equal(admitted.filter(at => at > minute).length, 1, 'only that of second 0 is free again')
  })

  t.test(`scenario 3: a burst late in one bucket, then a ramp through the next (${name})`, async t => {
    const admitted = await offer([limitedBy(sliding(100))], [...times(200, i => 59 + i / 200), ...times(600, i => 60 + i / 10)])
    t.equal(worstWindow(admitted, minute), 100)
    t.equal(admitted.length, 110, 'and all that may pass does: the hundred, and from 119 on whatever comes')
  })

  t.test(`scenario 4: a drip at exactly the limit's rate is never denied (${name})`, async t => {
    t.equal((await offer([limitedBy(sliding(20))], times(200, i => i * 3))).length, 200)
  })

  t.test(`scenario 5: a client that ignores every 429 still gets the limit in each window (${name})`, async t => {
    const admitted = await offer([limitedBy(sliding(20))], times(6001, i => i / 10))
    t.equal(admitted.length, 10 * 20 + 1, 'ten windows, and the first of the eleventh')
    t.equal(worstWindow(admitted, minute), 20)
  })

  t.test(`scenario 20: the transcript of seed 001 holds whatever the milliseconds (${name})`, async t => {
    for (const [first, jitter] of [[0, 0], [0, 0.999], [0.999, 0.999], [0.35, 0.35], [0.5, 0.75]] as const) {
      const opened = open()
      const limits = [limitedBy(sliding(20))]
      const told = async (seconds: number) => {
        const headers = draft7Headers(await decideAt(opened, epoch + Math.round(seconds * second), limits))
        return `${headers['ratelimit']} ${headers['retry-after'] ?? ''}`.trim()
      }
      t.equal(await told(first), 'limit=20, remaining=19, reset=60')
      // The elapsed time decides: 15 s and less than 16 s after the first there are 45 s to go, rounded up.
      const since = first + Math.max(0, jitter - first)
      t.equal(await told(since + 15), 'limit=20, remaining=18, reset=45')
      for (let i = 3; i <= 19; i++) await told(since + 15 + i)
      t.equal(await told(since + 36), 'limit=20, remaining=0, reset=24')
      t.equal(await told(since + 47), 'limit=20, remaining=0, reset=13 13')
      t.equal(await told(first + 60), `limit=20, remaining=0, reset=${Math.ceil(since - first + 15)}`)
    }
  })

  t.test(`scenario 24: a clock that is slewed under load keeps the bound by its own count (${name})`, async t => {
    for (const rate of [0.9995, 1.0005]) { // as fast as NTP slews: 500 ppm
      const moments = times(3000, i => i / 10 * rate)
      const admitted = await offer([limitedBy(sliding(20))], moments)
      t.equal(worstWindow(admitted, minute), 20)
      t.equal(worstWindow(admitted.map(at => at / rate), minute / 1.0005 - 1), 20, 'in true time, in a window shorter by as much')
    }
  })
}

t.test('scenario 2: ten times the limit at one microsecond from four replicas', async t => {
  const connections = await Promise.all(Array.from({ length: 4 }, async () => await connected(redis.url)))
  t.teardown(async () => { await Promise.all(connections.map(async c => { await c.close() })) })
  const limits = [limitedBy(sliding(50))]
  const replicas = connections.map(c => new RedisStore(c, { nowMicros: () => epoch }))
  const outcomes = await Promise.all(Array.from({ length: 500 }, async (_, i) => (await replicas[i % 4]?.decide({ cost: 1, limits }))?.outcome))
  t.equal(outcomes.filter(outcome => outcome === 'admitted').length, 50)
})

t.test('scenario 6: 100 000 entries that end at once stall nobody: a handful of commands, whatever the length', async t => {
  const own = await startRedis()
  const c = await connected(own.url)
  t.teardown(async () => { await c.close(); await own.stop() })
  let micros = epoch
  const store = new RedisStore(c, { nowMicros: () => micros })
  const limits = [limitedBy(sliding(100_000, 600))]
  for (let i = 0; i < 100; i++) {
    micros = epoch + i
    await store.decide({ cost: 1000, limits })
  }
  for (const [ended, at] of [['half', 600 * second + 49], ['all', 1300 * second]] as const) {
    await c.client.config('RESETSTAT')
    micros = epoch + at
    t.match(decided(await store.decide({ cost: 1, limits })), { remaining: ended === 'half' ? 49_999 : 99_999 })
    const stats = await c.client.info('commandstats')
    const commands = [...stats.matchAll(/^cmdstat_(\w+):calls=(\d+)/gm)].filter(([, command]) => !/evalsha|info|config/.test(command ?? ''))
    const calls = commands.reduce((sum, [, , count]) => sum + Number(count), 0)
    t.comment(`${ended} end: ${commands.map(([, command, count]) => `${count} ${command}`).join(', ')}; the call took ${/cmdstat_evalsha:calls=1,usec=(\d+)/.exec(stats)?.[1]} us`)
    t.ok(calls <= 45, `${calls} commands: the first that counts is found by halving`)
  }
})

t.test('scenarios 7 and 21: two routes with limits of their own count apart, two routes of one quota together', async t => {
  const opened = stores[0]?.open() ?? t.bailout('no store')
  if (opened === undefined) return
  const of = (operation: string, policy: Policy): LimitedBy => ({ policy, log: logKey('p', { kind: 'operation', api: 'scenarios', operation }, { kind: 'key', keyId: 'k' }, policy) })
  const all = limitedBy(sliding(4, 60, 'all'))
  const [read, write] = [[all, of('read', sliding(3))], [all, of('write', sliding(1))]]
  t.equal((await decideAt(opened, epoch, write)).outcome, 'admitted')
  t.match(await decideAt(opened, epoch, write), { outcome: 'limited', policy: { limit: 1 } })
  for (let i = 0; i < 3; i++) t.equal((await decideAt(opened, epoch, read)).outcome, 'admitted')
  const denied = await decideAt(opened, epoch, read)
  t.strictSame(denied.policies.map(p => [p.policy.name, p.remaining]), [['all', 0], ['default', 0]], 'one of write and three of read')
  t.equal(await connection.client.llen(all.log), 4)
})
