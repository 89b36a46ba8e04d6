import t from 'tap'
import { MemoryStore, type Decision, type LimitedBy } from '../src/index.ts'
import { charge, emptyLog, judge } from '../src/window.ts'
import { epoch, fixed, freshKey, limitedBy, second, sliding } from './harness.ts'

/** A store with a clock in seconds. */
function open (capacity?: number) {
  let time = epoch
  const store = new MemoryStore({ nowMicros: () => time, ...capacity !== undefined && { capacity } })
  const at = (seconds: number, limits: LimitedBy[], limitOf?: (policy: { limit: number }) => number): Decision => {
    time = epoch + seconds * second
    return store.decideNow({ cost: 1, limits }, limitOf === undefined ? {} : { limitOf }) as Decision
  }
  const note = (seconds: number, limits: LimitedBy[], share: number, cost = 1): void => {
    time = epoch + seconds * second
    store.note(limits, { cost, shareOf: () => share })
  }
  return { store, at, note }
}

t.test('a share of the limit, said per call, is the limit of that call', async t => {
  const { at } = open()
  const limits = [limitedBy(sliding(20))]
  const share = ({ limit }: { limit: number }): number => Math.max(1, Math.floor(limit / 8))
  t.match(at(0, limits, share), { outcome: 'admitted', remaining: 1, policy: { limit: 20 } })
  t.equal(at(1, limits, share).outcome, 'admitted')
  t.match(at(2, limits, share), { outcome: 'limited', retryAfterMs: 58_000 })
  t.match(at(2, limits), { outcome: 'admitted', remaining: 17 }, 'and the log is the same for another share')
})

t.test('what Redis admitted is remembered, the newest share of it', async t => {
  const { at, note } = open()
  const limits = [limitedBy(sliding(100)), limitedBy(fixed(100))]
  for (let i = 0; i < 30; i++) note(i, limits, 3)
  const denied = at(40, limits, () => 3)
  t.equal(denied.outcome, 'limited')
  t.strictSame(denied.policies.map(p => p.retryAfterMs), [47_000, 20_000], 'sliding: those of 27, 28 and 29; fixed: the window of 0')
  t.equal(at(60, limits, () => 3).outcome, 'limited')
  t.match(at(87, limits, () => 3), { outcome: 'admitted', remaining: 0 })
})

t.test('a noted cost beyond the share, or out of order, keeps the newest and stays in order', async t => {
  const { at, note } = open()
  const limits = [limitedBy(sliding(100))]
  note(0, limits, 4, 50)
  note(-1, limits, 4)
  t.match(at(1, limits, () => 4), { outcome: 'limited', retryAfterMs: 59_000 })
  t.match(at(1, limits), { outcome: 'admitted', remaining: 95 }, 'four are kept of what was noted')
})

t.test('a note of long ago does not count', async t => {
  const { at, note } = open()
  const limits = [limitedBy(sliding(1)), limitedBy(fixed(1))]
  note(0, limits, 1)
  t.equal(at(59, limits).outcome, 'limited')
  t.equal(at(60, limits).outcome, 'admitted')
  note(119, limits, 1)
  t.equal(at(178, limits).outcome, 'limited')
})

t.test('scenario 16: flooded with unknown subjects it denies them and forgets none that counts', async t => {
  const { store, at } = open(100)
  const known = Array.from({ length: 100 }, () => [limitedBy(sliding(2))])
  for (const [i, limits] of known.entries()) t.equal(at(i / 100, limits).outcome, 'admitted')
  for (let i = 0; i < 1000; i++) at(1, [limitedBy(sliding(2))])
  t.equal(store.size, 100)
  t.match(at(2, [limitedBy(sliding(2))]), { outcome: 'limited', remaining: 0, retryAfterMs: 58_000, policies: [{ retryAfterMs: 58_000 }] }, 'until the first of them ends')
  for (const limits of known) t.match(at(3, limits), { outcome: 'admitted', remaining: 0 })
  for (const limits of known) t.equal(at(4, limits).outcome, 'limited', 'known subjects go on being counted')
})

t.test('a log whose window has passed makes room, the longest unused first', async t => {
  const { store, at, note } = open(3)
  const [day, first, second, third] = [[limitedBy(fixed(1, 86_400))], [limitedBy(sliding(2))], [limitedBy(sliding(2))], [limitedBy(sliding(1))]]
  at(0, day)
  at(1, first)
  at(2, second)
  t.equal(at(30, first).outcome, 'admitted', 'used again: it now ends at 90')
  t.equal(at(61.9, third).outcome, 'limited')
  t.equal(at(62, third).outcome, 'admitted', 'in the place of the second')
  t.equal(at(63, first).outcome, 'admitted')
  t.equal(at(63, first).outcome, 'limited', 'the first was not forgotten')
  t.equal(at(63, day).outcome, 'limited', 'nor the one that was used least recently but still counts')
  t.equal(at(63, second).outcome, 'limited')
  note(63, second, 1)
  t.equal(store.size, 3, 'nor does a note push one out')
})

t.test('a fixed window ends when it ends, however late it was used', async t => {
  const { at } = open(2)
  const [first, other] = [[limitedBy(fixed(5))], [limitedBy(fixed(5))]]
  at(0, first)
  at(30, other)
  at(40, first)
  t.equal(at(60, [limitedBy(fixed(5))]).outcome, 'admitted', 'in the place of the first')
  t.match(at(61, other), { outcome: 'admitted', remaining: 3 })
})

t.test('a request may bring logs that ended together with unknown ones: its own are not taken for room', async t => {
  const { store, at } = open(2)
  const [a, b, c] = [limitedBy(sliding(1)), limitedBy(sliding(1)), limitedBy(sliding(1))]
  at(0, [a])
  at(1, [b])
  t.equal(at(100, [a, c]).outcome, 'admitted')
  t.equal(store.size, 2)
  t.equal(at(101, [a]).outcome, 'limited')
  t.equal(at(101, [c]).outcome, 'limited')
  t.equal(at(101, [b]).outcome, 'limited', 'full: unknown again')
  t.equal(at(200, [a, b, c]).outcome, 'limited', 'three do not fit at all')
})

t.test('a look and a denial take no room; a changed window begins a new log in the same place', async t => {
  const { store, at } = open()
  await store.peek([limitedBy(sliding(1))])
  store.decideNow({ cost: 2, limits: [limitedBy(sliding(1))] })
  t.equal(store.size, 0)
  const keyId = freshKey()
  const { log } = limitedBy(sliding(1), keyId)
  at(0, [{ policy: sliding(1, 60), log }])
  t.equal(at(1, [{ policy: sliding(1, 120), log }]).outcome, 'admitted')
  t.equal(store.size, 1)
})

t.test('a log holds no more than what counts', async t => {
  const log = emptyLog(sliding(5))
  for (let time = 0; time < 1000; time += 7) {
    const judgement = judge(log, 5, 1, time * second)
    if (judgement.admits) charge(log, judgement, 1)
    t.ok(log.algorithm === 'sliding' && log.stamps.length <= 5)
  }
})

t.test('by its own clock it counts on, and Unix time is what it says', async t => {
  const store = new MemoryStore()
  const limits = [limitedBy(sliding(2, 3600))]
  const before = Date.now()
  const decision = store.decideNow({ cost: 1, limits }) as Decision
  t.ok(Math.abs(decision.nowMs - before) < 60_000)
  store.note(limits, { cost: 1, shareOf: () => 2 })
  t.equal(store.decideNow({ cost: 1, limits }).outcome, 'limited')
})
