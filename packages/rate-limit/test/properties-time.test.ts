import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { decideAt, epoch, fixed, freshKey, limitedBy, second, sliding, startStores } from './harness.ts'
import { worstWindow } from './oracle.ts'
import { limitsOf, run, runs, schedules, type Answered, type Schedule } from './schedules.ts'

const { connection, stores, close } = await startStores()
t.teardown(close)

const both: Array<'sliding' | 'fixed'> = ['sliding', 'fixed']

for (const { name, open } of stores) {
  for (const backward of [0, 3]) {
    t.test(`L4 Retry-After is honest${backward > 0 ? ', also after the clock stepped back' : ''} (${name})`, async t => {
      let denials = 0
      await fc.assert(fc.asyncProperty(schedules({ algorithms: both, maxPolicies: 2, maxSteps: 20, backward }), fc.integer({ min: 1, max: 6 }), async (schedule, cost) => {
        const opened = open()
        const keyId = freshKey()
        const trace = await run(opened, schedule, keyId)
        const last = trace.at(-1)
        assert.ok(last)
        const limits = limitsOf(schedule, keyId, last.limits)
        const at = async (ms: number): Promise<string> => (await decideAt(opened, last.time + ms * 1000, limits, cost)).outcome
        const { outcome, retryAfterMs } = await decideAt(opened, last.time, limits, cost)
        if (outcome === 'admitted') return
        denials++
        const longest = Math.max(...schedule.policies.map(p => p.windowSeconds)) * 1000
        if (retryAfterMs === -1) {
          assert.equal(await at(2 * longest), 'limited', 'more than the limit is never admitted')
          return
        }
        assert.ok(retryAfterMs >= 1 && retryAfterMs <= (backward > 0 ? 2 : 1) * longest)
        const seconds = Math.ceil(retryAfterMs / 1000)
        if (seconds > 1) assert.equal(await at((seconds - 1) * 1000), 'limited', 'one second less does not do')
        assert.equal(await at(retryAfterMs - 1), 'limited', 'nor one millisecond less')
        assert.equal(await at(retryAfterMs), 'admitted', 'as long as was said does')
      }), runs(300))
      t.ok(denials > 0, `${denials} denials`)
    })
  }

  t.test(`L5 remaining and reset stay in their bounds after the clock stepped back (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules({ algorithms: both, backward: 3 }), async schedule => {
      for (const { decision: { policy, remaining, resetMs } } of await run(open(), schedule)) {
        assert.ok(remaining >= 0 && remaining <= policy.limit)
        assert.ok(resetMs >= 1 && resetMs <= 2 * policy.windowSeconds * 1000)
      }
    }), runs(100))
    t.pass()
  })

  t.test(`L8 clock: stepping back never admits more than the limit in a window of true time (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules({ backward: 5 }), async schedule => {
      const trace = await run(open(), schedule)
      for (const { limit, windowSeconds } of schedule.policies) assert.ok(worstWindow(trueUnits(schedule, trace), windowSeconds * second) <= limit)
    }), runs(300))
    t.pass()
  })

  t.test(`L8 clock: a fixed window that stepped back holds its limit in true time (${name})`, async t => {
    const opened = open()
    const limits = [limitedBy(fixed(2))]
    const at = async (seconds: number) => await decideAt(opened, epoch + seconds * second, limits)
    await at(0)
    t.equal((await at(10)).outcome, 'admitted')
    t.match(await at(-30), { outcome: 'limited', retryAfterMs: 90_000 }, 'by less than a window: it still ends at 60')
    t.equal((await at(59.999)).outcome, 'limited')
    t.match(await at(60), { outcome: 'admitted', remaining: 1 })
    t.match(await at(-3600), { outcome: 'admitted', remaining: 0, resetMs: 60_000 }, 'by more: it begins anew with what it holds')
    t.match(await at(-3541), { outcome: 'limited', retryAfterMs: 1000 })
    t.match(await at(-3540), { outcome: 'admitted', remaining: 1 })
  })

  t.test(`L8 clock: one step of any size locks nobody out for longer than two windows (${name})`, async t => {
    await fc.assert(fc.asyncProperty(schedules({ algorithms: both }), fc.integer({ min: 1, max: 400 * second }), async (schedule, back) => {
      const opened = open()
      const keyId = freshKey()
      const trace = await run(opened, schedule, keyId)
      const { time, limits } = trace.at(-1) ?? assert.fail()
      const logs = limitsOf(schedule, keyId, limits)
      await decideAt(opened, time - back, logs)
      const [policy] = schedule.policies
      assert.ok(policy)
      assert.equal((await decideAt(opened, time - back + 2 * policy.windowSeconds * second, logs)).outcome, 'admitted')
    }), runs(100))
    t.pass()
  })
}

t.test('L8 clock: both stores answer alike, step for step, wherever the clock goes', async t => {
  await fc.assert(fc.asyncProperty(schedules({ algorithms: both, maxPolicies: 3, changing: true, backward: 3 }), async schedule => {
    const [first, other] = await Promise.all(stores.map(async ({ open }) => (await run(open(), schedule)).map(({ decision }) => ({ ...decision, policies: undefined, policy: undefined }))))
    assert.deepEqual(first, other)
  }), runs(200))
  t.pass()
})

t.test('L8 clock: a small step rewrites nothing, a large one keeps all ages', async t => {
  const opened = stores[0]?.open() ?? assert.fail()
  const limits = [limitedBy(sliding(3))]
  const [{ log = '' } = {}] = limits
  for (const seconds of [0, 10, 20]) await decideAt(opened, epoch + seconds * second, limits)
  const stamps = async (): Promise<number[]> => (await connection.client.lrange(log, 0, -1)).map(stamp => (Number(stamp) - epoch) / second)
  const before = await connection.client.dumpBuffer(log)
  t.match(await decideAt(opened, epoch - 40 * second, limits), { outcome: 'limited', retryAfterMs: 100_000, resetMs: 100_000 }, 'what was admitted at 0 leaves when the clock says 60')
  t.strictSame(await connection.client.dumpBuffer(log), before)
  t.match(await decideAt(opened, epoch - 41 * second, limits, 0), { remaining: 0, resetMs: 60_000 - 20_000 }, 'a look re-dates as well: 20 s old is 20 s old')
  t.strictSame(await stamps(), [-61, -51, -41])
  t.ok(await connection.client.pttl(log) > 59_000)
})

t.test('L8 clock: what is admitted while the clock is held stays until the clock has caught up and a window has passed', async t => {
  const opened = stores[0]?.open() ?? assert.fail()
  const limits = [limitedBy(sliding(3)), limitedBy(fixed(3))]
  await decideAt(opened, epoch, limits)
  t.equal((await decideAt(opened, epoch - 50 * second, limits)).outcome, 'admitted')
  for (const { log } of limits) t.ok(await connection.client.pttl(log) > 100_000, 'not by its expiry either')
  t.strictSame(await connection.client.lrange(limits[0]?.log ?? '', 0, -1), [String(epoch), String(epoch)], 'both are of the moment at which it is held')
})

/** Admitted units in true time: the clock's steps back, undone. */
function trueUnits ({ steps }: Schedule, trace: Answered[]): number[] {
  let behind = 0
  return trace.flatMap(({ time, cost, decision }, i) => {
    behind += Math.max(0, (steps[i - 1]?.time ?? time) - time)
    return decision.outcome === 'admitted' ? Array<number>(cost).fill(time + behind) : []
  })
}
