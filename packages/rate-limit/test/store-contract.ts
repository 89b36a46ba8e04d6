import type { Test } from 'tap'
import { draft7Headers, type Decision, type LimitedBy } from '../src/index.ts'
import { decideAt, epoch, fixed, freshKey, limitedBy, second, sliding, type StoreUnderTest } from './harness.ts'

/** What every store does, by examples; `properties.test.ts` says it for all schedules. */
export function storeContract (t: Test, { name, open }: StoreUnderTest): void {
  const test = (title: string, body: (t: Test, at: (seconds: number, limits: LimitedBy[], cost?: number) => Promise<Decision>) => Promise<void>): void => {
    const opened = open()
    t.test(`${title} (${name})`, async t => { await body(t, async (seconds, limits, cost) => await decideAt(opened, epoch + Math.round(seconds * second), limits, cost)) })
  }

  test('R1-R6, R7b: the story of seed 001 with the clock given', async (t, at) => {
    const limits = [limitedBy(sliding(20))]
    const told = async (seconds: number): Promise<string> => line(await at(seconds, limits))
    t.equal(await told(0), 'admitted limit=20, remaining=19, reset=60')
    t.equal(await told(15), 'admitted limit=20, remaining=18, reset=45')
    for (let i = 3; i <= 19; i++) await told(15 + i)
    t.equal(await told(36), 'admitted limit=20, remaining=0, reset=24')
    t.equal(await told(47), 'limited limit=20, remaining=0, reset=13 13')
    t.equal(await told(50), 'limited limit=20, remaining=0, reset=10 10')
    t.equal(await told(55), 'limited limit=20, remaining=0, reset=5 5')
    t.equal(await told(59.9995), 'limited limit=20, remaining=0, reset=1 1')
    t.equal(await told(60), 'admitted limit=20, remaining=0, reset=15')
    t.equal(await told(60.3), 'limited limit=20, remaining=0, reset=15 15')
  })

  test('R7a: a fixed window starts anew as a whole', async (t, at) => {
    const limits = [limitedBy(fixed(20))]
    for (let i = 0; i < 20; i++) await at(i, limits)
    t.equal(line(await at(47, limits)), 'limited limit=20, remaining=0, reset=13 13')
    t.equal(line(await at(60, limits)), 'admitted limit=20, remaining=19, reset=60')
  })

  test('an entry counts for exactly its window, to the microsecond', async (t, at) => {
    for (const policy of [sliding(1), fixed(1)]) {
      const limits = [limitedBy(policy)]
      await at(0, limits)
      t.match(await at(59.999999, limits), { outcome: 'limited', retryAfterMs: 1 })
      t.equal((await at(60, limits)).outcome, 'admitted')
    }
  })

  test('a cost is charged as a whole; more than the limit is never admitted', async (t, at) => {
    const limits = [limitedBy(sliding(5))]
    t.match(await at(0, limits, 2), { outcome: 'admitted', remaining: 3 })
    t.match(await at(10, limits, 3), { outcome: 'admitted', remaining: 0, resetMs: 50_000 })
    t.match(await at(20, limits, 2), { outcome: 'limited', retryAfterMs: 40_000 }, 'two leave at 60')
    t.match(await at(20, limits, 3), { outcome: 'limited', retryAfterMs: 50_000, resetMs: 40_000 }, 'the third at 70')
    t.match(await at(20, limits, 6), { outcome: 'limited', retryAfterMs: -1 })
    t.match(await at(90, limits, 5), { outcome: 'admitted', remaining: 0 })
  })

  test('a look charges nothing and is never limited; a denial charges nothing', async (t, at) => {
    const limits = [limitedBy(sliding(1))]
    t.match(await at(0, limits, 0), { outcome: 'admitted', remaining: 1, resetMs: 60_000, retryAfterMs: 0 })
    await at(0, limits)
    for (let i = 0; i < 3; i++) t.match(await at(1, limits), { outcome: 'limited', remaining: 0 })
    t.match(await at(1, limits, 0), { outcome: 'admitted', remaining: 0, retryAfterMs: 0 })
    t.equal((await at(60, limits)).outcome, 'admitted')
  })

  test('all or nothing: a request that one policy denies is counted by none', async (t, at) => {
    const limits = [limitedBy(sliding(100, 60, 'wide')), limitedBy(sliding(1, 60, 'narrow')), limitedBy(fixed(50, 3600, 'hour'))]
    t.equal((await at(0, limits)).outcome, 'admitted')
    const denied = await at(1, limits)
    t.equal(denied.outcome, 'limited')
    t.strictSame(denied.policies.map(p => [p.policy.name, p.remaining, p.retryAfterMs]), [['wide', 99, 0], ['narrow', 0, 59_000], ['hour', 49, 0]])
  })

  test('a changed limit goes on with the same log', async (t, at) => {
    const keyId = freshKey()
    for (let i = 0; i < 5; i++) await at(i, [limitedBy(sliding(5), keyId)])
    t.match(await at(10, [limitedBy(sliding(2), keyId)]), { outcome: 'limited', remaining: 0, retryAfterMs: 53_000 }, 'until only one is left')
    t.match(await at(10, [limitedBy(sliding(7), keyId)]), { outcome: 'admitted', remaining: 1 })
  })

  test('the clock stepping back neither admits more nor locks for long', async (t, at) => {
    const limits = [limitedBy(sliding(2))]
    await at(0, limits)
    await at(0, limits)
    t.match(await at(-30, limits), { outcome: 'limited', retryAfterMs: 90_000 }, 'a small step: the clock is held, and the wait says so')
    t.match(await at(-3600, limits), { outcome: 'limited', retryAfterMs: 60_000 }, 'a large step: the log is re-dated')
    t.equal((await at(-3540, limits)).outcome, 'admitted')
  })

  t.test(`K15: valid before its end, refused at it and after it, by the store's clock (${name})`, async t => {
    const { store, clock } = open()
    const limits = [limitedBy(sliding(5))]
    const notAfterMs = epoch / 1000 + 10
    const at = async (micros: number): Promise<string> => {
      clock.micros = micros
      return (await store.decide({ cost: 1, limits, notAfterMs })).outcome
    }
    t.equal(await at(notAfterMs * 1000 - 1), 'admitted')
    t.equal(await at(notAfterMs * 1000), 'expired')
    t.equal(await at(notAfterMs * 1000 + 1), 'expired')
    t.match(await store.decide({ cost: 0, limits, notAfterMs }), { outcome: 'expired', nowMs: notAfterMs })
    t.equal((await store.peek(limits)).remaining, 4, 'and nothing was charged for the expired ones')
  })

  t.test(`peek looks without charging, reset forgets these policies alone (${name})`, async t => {
    const { store } = open()
    const [minute, hour, other] = [limitedBy(sliding(1)), limitedBy(fixed(1, 3600)), limitedBy(sliding(1))]
    await store.decide({ cost: 1, limits: [minute, hour, other] })
    t.match(await store.peek([minute, hour]), { outcome: 'admitted', remaining: 0, policies: [{ remaining: 0 }, { remaining: 0 }] })
    await store.reset([minute, hour])
    t.match(await store.peek([minute, hour, other]), { policies: [{ remaining: 1 }, { remaining: 1 }, { remaining: 0 }] })
    t.equal((await store.decide({ cost: 1, limits: [minute, hour] })).outcome, 'admitted')
  })

  t.test(`scenario 8: what cannot be counted is refused before the store is asked (${name})`, async t => {
    const { store } = open()
    const limit = limitedBy(sliding(5))
    for (const cost of [-1, 1.5, NaN, Infinity, '1', '1e3', null] as number[]) await t.rejects(store.decide({ cost, limits: [limit] }), { name: 'RangeError', message: /cost must be a whole number/ })
    for (const policy of [sliding(1.5), sliding(0), sliding('20' as unknown as number), sliding(5, NaN), sliding(100_001)]) await t.rejects(store.decide({ cost: 1, limits: [limitedBy(policy)] }), { name: 'RangeError' })
    await t.rejects(store.decide({ cost: 1, limits: [] }), /at least one policy/)
    await t.rejects(store.decide({ cost: 1, limits: [limit, { ...limit }] }), /same log/)
    t.equal((await store.peek([limit])).remaining, 5)
  })
}

function line (d: Decision): string {
  const headers = draft7Headers(d)
  return `${d.outcome} ${headers['ratelimit'] ?? ''} ${headers['retry-after'] ?? ''}`.trim()
}
