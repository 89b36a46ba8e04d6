import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { draft7Headers } from '../src/index.ts'
import { decideAt, epoch, freshKey, limitedBy, second, sliding, startStores, type StoreUnderTest } from './harness.ts'
import { admittedUnits, expected, living, worstWindow } from './oracle.ts'
import { counted, run, runs, schedules, wantedDecisions, type Answered } from './schedules.ts'
import { parseDictionary, parseList } from './structured-fields.ts'

const { stores, close } = await startStores()
t.teardown(close)

const both: Array<'sliding' | 'fixed'> = ['sliding', 'fixed']

for (const { name, open } of stores) {
  t.test(`L1 window bound: no half-open window ever holds more than the limit (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules(), async schedule => {
      const trace = await run(open(), schedule)
      for (const { limit, windowSeconds } of schedule.policies) assert.ok(worstWindow(admittedUnits(trace), windowSeconds * second) <= limit)
    }), runs(200))
    t.pass()
  })

  t.test(`L2 oracle equality: every field of every reply equals the brute-force list (${name})`, async t => {
    await equalsOracle(open)
    t.pass()
  })

  t.test(`L3 no needless denial: whoever is denied finds the limit used up in the window (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules({ changing: true }), async schedule => {
      const trace = await run(open(), schedule)
      const [policy] = schedule.policies
      assert.ok(policy)
      for (const [i, { time, cost, limits, decision }] of trace.entries()) {
        if (decision.outcome === 'limited') assert.ok(living(policy, admittedUnits(trace.slice(0, i)), time).length + cost > (limits[0] ?? 0))
      }
    }), runs(200))
    t.pass()
  })

  t.test(`L5 remaining falls by the cost and rises only by ageing; reset counts down (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules({ algorithms: both }), async schedule => {
      const trace = await run(open(), schedule)
      for (const [i, after] of trace.entries()) {
        const { limit, windowSeconds } = after.decision.policy
        assert.ok(after.decision.remaining >= 0 && after.decision.remaining <= limit)
        assert.ok(after.decision.resetMs >= 1 && after.decision.resetMs <= windowSeconds * 1000)
        const before = trace[i - 1]
        if (before !== undefined) countsDown(before, after)
      }
    }), runs(200))
    t.pass()
  })

  t.test(`L6 denial changes nothing: without the denied requests and the looks all other answers are the same (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules({ algorithms: both, maxPolicies: 2 }), async schedule => {
      const all = await run(open(), schedule)
      const charged = all.filter(({ cost, decision }) => cost > 0 && decision.outcome === 'admitted')
      const alone = await run(open(), { ...schedule, steps: charged })
      assert.deepEqual(alone.map(shown), charged.map(shown))
    }), runs(100))
    t.pass()
  })

  t.test(`L11 all or nothing: a request that one policy denies is charged to none (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules({ algorithms: both, maxPolicies: 3 }), async schedule => {
      const opened = open()
      const keyId = freshKey()
      const looks = schedule.steps.flatMap(step => [{ ...step, cost: 0 }, step, { ...step, cost: 0 }])
      const trace = await run(opened, { ...schedule, steps: looks }, keyId)
      for (let i = 1; i < trace.length; i += 3) {
        const [before, request, after] = trace.slice(i - 1, i + 2).map(a => a.decision.policies.map(p => p.remaining))
        const paid = trace[i]?.decision.outcome === 'admitted' ? trace[i]?.cost ?? 0 : 0
        assert.deepEqual(after, before?.map(remaining => remaining - paid))
        assert.deepEqual(request, after)
      }
    }), runs(50))
    t.pass()
  })

  t.test(`L12 headers: draft-7 fields parse and say what was decided (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules({ algorithms: both, maxPolicies: 2, maxSteps: 20 }), async schedule => {
      for (const { cost, decision } of await run(open(), schedule)) {
        const headers = draft7Headers(decision)
        const seconds = (ms: number): number => Math.ceil(ms / 1000)
        assert.deepEqual(parseDictionary(headers['ratelimit'] ?? ''), { limit: decision.policy.limit, remaining: decision.remaining, reset: seconds(decision.resetMs) })
        const listed = parseList(headers['ratelimit-policy'] ?? '')
        assert.ok(listed.some(({ value, w }) => value === decision.policy.limit && w === decision.policy.windowSeconds))
        assert.equal(new Set(listed.map(({ value }) => value)).size, listed.length, 'two equal quotas must not stand in one list')
        const waits = decision.outcome === 'limited' && decision.retryAfterMs > 0
        assert.equal(headers['retry-after'], waits ? String(seconds(decision.retryAfterMs)) : undefined)
        if (waits && cost === 1 && schedule.policies.length === 1) assert.equal(decision.retryAfterMs, decision.resetMs)
      }
    }), runs(50))
    t.pass()
  })

  t.test(`L13 limit change: a cut holds until enough has aged out, a raise forgets nothing (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules({ changing: true, costs: fc.constantFrom(0, 1, 1, 2) }), async schedule => {
      const trace = await run(open(), schedule)
      const [policy] = schedule.policies
      assert.ok(policy)
      for (const [i, { time, cost, limits: [limit = 0], decision }] of trace.entries()) {
        const paid = decision.outcome === 'admitted' ? cost : 0
        const live: number = living(policy, admittedUnits(trace.slice(0, i)), time).length + paid
        if (paid > 0) assert.ok(live <= limit)
        assert.equal(decision.remaining, Math.max(limit - live, 0))
      }
    }), runs(200))
    t.pass()
  })

  t.test(`L13 a cut from 1000 to 20 admits nothing until fewer than 20 live (${name})`, async t => {
    const opened = open()
    const keyId = freshKey()
    for (let i = 0; i < 1000; i++) await decideAt(opened, epoch + i, [limitedBy(sliding(1000), keyId)])
    const cut = [limitedBy(sliding(20), keyId)]
    const denied = await decideAt(opened, epoch + 1000, cut)
    t.match(denied, { outcome: 'limited', remaining: 0, retryAfterMs: 60_000 })
    t.equal((await decideAt(opened, epoch + 60 * second + 979, cut)).outcome, 'limited', '20 live')
    t.match(await decideAt(opened, epoch + 60 * second + 980, cut), { outcome: 'admitted', remaining: 0 }, '19 live')
  })

  t.test(`L14 key isolation: no two subjects share a log or split one (${name})`, async t => {
    const part = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('{', '}', ':', '{p}', '\n', '\0', 'ключ', 'x'.repeat(10_000), '%7B', '\ud800'))
    await fc.assert(fc.asyncProperty(fc.uniqueArray(part, { minLength: 2, maxLength: 8 }), async subjects => {
      const opened = open()
      const run = freshKey()
      for (const outcome of ['admitted', 'limited']) {
        for (const subject of subjects) {
          counted.decisions++
          assert.equal((await decideAt(opened, epoch, [limitedBy(sliding(1), `${run} ${subject}`)])).outcome, outcome)
        }
      }
    }), runs(50))
    t.pass()
  })
}

t.test('L2 oracle equality: on, until there were as many decisions as asked for (KEYGATE_DECISIONS, default 100 000)', async t => {
  while (counted.decisions < wantedDecisions) for (const { open } of stores) await equalsOracle(open)
  t.pass(`${counted.decisions} decisions`)
})

async function equalsOracle (open: StoreUnderTest['open']): Promise<void> {
  await fc.assert(fc.asyncProperty(schedules({ algorithms: both, maxPolicies: 3, changing: true }), async schedule => {
    const trace = await run(open(), schedule)
    assert.deepEqual(trace.map(shown), expected(schedule))
  }), runs(1000))
}

function shown ({ decision }: Answered) {
  return { outcome: decision.outcome, policies: decision.policies.map(({ remaining, resetMs, retryAfterMs }) => ({ remaining, resetMs, retryAfterMs })) }
}

function countsDown (before: Answered, after: Answered): void {
  const [was, is] = [before.decision, after.decision]
  const kept = was.remaining - (is.outcome === 'admitted' ? after.cost : 0)
  const oldestStays = was.remaining < was.policy.limit && after.time - before.time <= (was.resetMs - 1) * 1000
  assert.ok(is.remaining >= kept, 'no more is taken than the cost')
  if (after.time === before.time || oldestStays) assert.equal(is.remaining, kept, 'nothing is given back without ageing')
  if (oldestStays) assert.ok(Math.abs((is.resetMs - was.resetMs) * 1000 + after.time - before.time) < 1000, 'reset counts down')
}
