import t from 'tap'
import { parsePolicies } from '../src/index.ts'

const good = { name: 'default', limit: 20, windowSeconds: 60 }

t.test('what can be written, and what it means', async t => {
  const meant = { name: 'default', limit: 20, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }
  t.same(parsePolicies([good], 'P'), { policies: [meant], faults: [] })
  for (const [window, windowSeconds] of [['60s', 60], ['1m', 60], ['90s', 90], ['1h', 3600], ['24h', 86400], ['1s', 1]] as const) {
    t.same(parsePolicies([{ name: 'default', limit: 20, window }], 'P').policies, [{ ...meant, windowSeconds }], window)
  }
  t.same(parsePolicies([{ ...good, algorithm: 'fixed', partition: 'project', limit: 100_001 }], 'P').policies,
    [{ ...meant, algorithm: 'fixed', partition: 'project', limit: 100_001 }])
  for (const whenStoreIsDown of ['open', 'closed']) t.strictSame(parsePolicies([{ ...good, whenStoreIsDown }], 'P').policies, [{ ...meant, whenStoreIsDown }])
  t.strictSame(parsePolicies([{ ...good, whenStoreIsDown: 'local' }], 'P').policies, [meant], 'the default is not carried')
  t.same(parsePolicies([{ ...good, limit: 100_000 }], 'P').faults, [], 'the most that slides')
  t.equal(parsePolicies([good, { ...good, name: 'burst', limit: 1 }], 'P').policies.length, 2)
})

t.test('R20 a wrong policy is a fault that names the setting and the remedy', async t => {
  const { name, limit, windowSeconds } = good
  const cases: Array<{ policy: unknown, fault: RegExp }> = [
    { policy: { ...good, limit: 'abc' }, fault: /^P\[0\]\.limit: must be a whole number from 1 to 999999999999999, not "abc"\. Write for example "limit: 120"\.$/ },
    { policy: { ...good, limit: 0 }, fault: /^P\[0\]\.limit: .* not 0\. Write/ },
    { policy: { ...good, limit: -1 }, fault: /^P\[0\]\.limit: .* not -1\. Write/ },
    { policy: { ...good, limit: 1.5 }, fault: /^P\[0\]\.limit: .* not 1\.5\. Write/ },
    { policy: { ...good, limit: '20' }, fault: /^P\[0\]\.limit: .* not "20"\. Write/ },
    { policy: { ...good, limit: NaN }, fault: /^P\[0\]\.limit: .* Write/ },
    { policy: { ...good, limit: 1e300 }, fault: /^P\[0\]\.limit: .* Write/ },
    { policy: { ...good, limit: null }, fault: /^P\[0\]\.limit: .* not null\. Write/ },
    { policy: { name, windowSeconds }, fault: /^P\[0\]\.limit: is missing\. Write for example "limit: 120"\.$/ },
    { policy: { ...good, limit: 100_001 }, fault: /^P\[0\]\.limit: 100001 is more than a sliding policy may have \(100000\)\. Add "algorithm: fixed"/ },
    { policy: { name, limit, window: '' }, fault: /^P\[0\]\.window: must be a time .* not ""\. Write for example "window: 60s", "1m" or "1h"\.$/ },
    { policy: { name, limit, window: '60' }, fault: /^P\[0\]\.window: .* not "60"\. Write/ },
    { policy: { name, limit, window: 60 }, fault: /^P\[0\]\.window: .* not 60\. Write/ },
    { policy: { name, limit, window: '0s' }, fault: /^P\[0\]\.window: .* not "0s"\. Write/ },
    { policy: { name, limit, window: '-1m' }, fault: /^P\[0\]\.window: .* not "-1m"\. Write/ },
    { policy: { name, limit, window: '1.5h' }, fault: /^P\[0\]\.window: .* not "1\.5h"\. Write/ },
    { policy: { name, limit, window: '9000h' }, fault: /^P\[0\]\.window: must be a time of at most 366 days/ },
    { policy: { name, limit }, fault: /^P\[0\]\.window: is missing\. Write for example "window: 60s"/ },
    { policy: { name, limit, windowSeconds: 0.5 }, fault: /^P\[0\]\.windowSeconds: must be a whole number of seconds .* not 0\.5\. Write/ },
    { policy: { ...good, window: '60s' }, fault: /^P\[0\]\.window: is given beside "windowSeconds"\. Remove one of the two\.$/ },
    { policy: { limit, windowSeconds }, fault: /^P\[0\]\.name: is missing\. Write for example "name: default"\.$/ },
    { policy: { ...good, name: '' }, fault: /^P\[0\]\.name: must be a text of 1 to 64/ },
    { policy: { ...good, name: 'n'.repeat(65) }, fault: /^P\[0\]\.name: must be a text of 1 to 64/ },
    { policy: { ...good, name: 'a\nb' }, fault: /^P\[0\]\.name: must be .* printable/ },
    { policy: { ...good, algorithm: 'slidng' }, fault: /^P\[0\]\.algorithm: must be "sliding" or "fixed", not "slidng"\.$/ },
    { policy: { ...good, partition: 'ip' }, fault: /^P\[0\]\.partition: must be "key" or "project" or "address", not "ip"\.$/ },
    { policy: { ...good, whenStoreIsDown: 'refuse' }, fault: /^P\[0\]\.whenStoreIsDown: must be "local" or "open" or "closed", not "refuse"\.$/ },
    { policy: { ...good, whenStoreIsDown: false }, fault: /^P\[0\]\.whenStoreIsDown: .* not false\.$/ },
    { policy: { ...good, whenRedisIsDown: 'open' }, fault: /^P\[0\]\.whenRedisIsDown: is not a setting of a policy; / },
    { policy: { ...good, max: 3 }, fault: /^P\[0\]\.max: is not a setting of a policy; / },
    { policy: { ...good, partion: 'key' }, fault: /^P\[0\]\.partion: .*did you mean "partition"\?$/ },
    { policy: 'sixty', fault: /^P\[0\]: must be a policy, not "sixty"\. Write/ }
  ]
  for (const { policy, fault } of cases) {
    const { faults, policies } = parsePolicies([policy], 'P')
    t.equal(faults.length, 1, JSON.stringify(faults))
    t.match(faults[0], fault)
    // A policy with a foreign setting is still one; any other fault leaves nothing to count by.
    t.equal(policies.length, /is not a setting/.test(String(faults[0])) ? 1 : 0)
  }
})

t.test('the list as a whole', async t => {
  t.match(parsePolicies(undefined, 'KEYGATE_POLICIES').faults, [/^KEYGATE_POLICIES: must be a list of policies/])
  t.match(parsePolicies({ limit: 1 }, 'KEYGATE_POLICIES').faults, [/^KEYGATE_POLICIES: must be a list of policies, not \{"limit":1\}\. Write/])
  t.match(parsePolicies([], 'P').faults, [/^P: is an empty list, which would limit nothing\. Leave/])
  t.match(parsePolicies([good, good], 'P').faults, [/^P\[1\]\.name: "default" is used twice in this list\. Give/])
  t.equal(parsePolicies([{ limit: 'abc', window: '' }, 3], 'P').faults.length, 4, 'all faults at once')
})
