import t from 'tap'
import { combine, draft7Headers, violatedPolicies, wholeSeconds, type Policy } from '../src/index.ts'

const policy = (name: string, limit: number, windowSeconds = 60): Policy => ({ name, limit, windowSeconds, algorithm: 'sliding', partition: 'key' })

t.test('seed 001: an admitted request carries the pair, number for number', async t => {
  const decision = combine('admitted', 0, [{ policy: policy('default', 20), remaining: 19, resetMs: 60_000, retryAfterMs: 0 }])
  t.strictSame(draft7Headers(decision), { 'ratelimit-policy': '20;w=60', ratelimit: 'limit=20, remaining=19, reset=60' })
})

t.test('seed 001: a denied request says when to come back', async t => {
  const decision = combine('limited', 0, [{ policy: policy('default', 20), remaining: 0, resetMs: 13_000, retryAfterMs: 13_000 }])
  t.strictSame(draft7Headers(decision), { 'ratelimit-policy': '20;w=60', ratelimit: 'limit=20, remaining=0, reset=13', 'retry-after': '13' })
})

t.test('R8 R9: seconds are rounded up and never 0', async t => {
  t.equal(wholeSeconds(13_999), 14)
  t.equal(wholeSeconds(13_001), 14)
  t.equal(wholeSeconds(13_000), 13)
  t.equal(wholeSeconds(1), 1)
  t.equal(wholeSeconds(0), 1)
})

t.test('of several policies the one with the lowest remaining is shown, and Retry-After is the longest wait', async t => {
  const decision = combine('limited', 0, [
    { policy: policy('minute', 20), remaining: 0, resetMs: 5_000, retryAfterMs: 5_000 },
    { policy: policy('hour', 100, 3600), remaining: 0, resetMs: 900_000, retryAfterMs: 900_000 },
    { policy: policy('day', 1000, 86_400), remaining: 7, resetMs: 1, retryAfterMs: 0 }
  ])
  t.strictSame(draft7Headers(decision), {
    'ratelimit-policy': '20;w=60, 100;w=3600, 1000;w=86400',
    ratelimit: 'limit=100, remaining=0, reset=900',
    'retry-after': '900'
  })
  t.strictSame(violatedPolicies(decision), ['minute', 'hour'])
})

t.test('two policies with one quota never stand in one list; the shown one stays', async t => {
  const decision = combine('admitted', 0, [
    { policy: policy('a', 20, 60), remaining: 9, resetMs: 1000, retryAfterMs: 0 },
    { policy: policy('b', 20, 10), remaining: 3, resetMs: 1000, retryAfterMs: 0 }
  ])
  t.equal(draft7Headers(decision)['ratelimit-policy'], '20;w=10')
})

t.test('a request that costs more than the limit gets no Retry-After: no wait would help', async t => {
  const decision = combine('limited', 0, [{ policy: policy('default', 3), remaining: 3, resetMs: 60_000, retryAfterMs: -1 }])
  t.notOk('retry-after' in draft7Headers(decision))
})
