import fc from 'fast-check'
import t from 'tap'
import { addressTag, hashAddress, logKey, policyFault, type Partition, type Policy, type PolicyOwner } from '../src/index.ts'

const part = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.constantFrom('{', '}', ':', '=', 'key', 'project', 'a:b', '\n', '\0', '\ud800', 'x'.repeat(10_000)))
const owner: fc.Arbitrary<PolicyOwner> = fc.oneof(
  fc.constant<PolicyOwner>({ kind: 'key' }),
  fc.constant<PolicyOwner>({ kind: 'project' }),
  part.map((api): PolicyOwner => ({ kind: 'api', api })),
  fc.tuple(part, part).map(([api, operation]): PolicyOwner => ({ kind: 'operation', api, operation }))
)
const partition: fc.Arbitrary<Partition> = fc.oneof(
  fc.constant<Partition>({ kind: 'project' }),
  part.map((keyId): Partition => ({ kind: 'key', keyId })),
  part.map((addressHash): Partition => ({ kind: 'address', addressHash }))
)
const policy = fc.record({ name: part, algorithm: fc.constantFrom('sliding' as const, 'fixed' as const), windowSeconds: fc.integer({ min: 1 }) })
const parts = fc.tuple(owner, partition, policy)

t.test('L14: distinct subjects never share a log', async t => {
  fc.assert(fc.property(parts, parts, (a, b) => {
    const same = JSON.stringify(a) === JSON.stringify(b)
    return (logKey('p', ...a) === logKey('p', ...b)) === same
  }))
})

t.test('L14: no part can leave the hash tag or forge a separator', async t => {
  fc.assert(fc.property(parts, a => {
    const key = logKey('5f1c', ...a)
    return key.startsWith('kg:{5f1c}:rl:') && key.split('{').length === 2 && key.split('}').length === 2 && key.split(':').length === 7
  }))
})

t.test('the limit is not in the name: a changed limit goes on with the same log', async t => {
  const at = (limit: number): string => logKey('p', { kind: 'key' }, { kind: 'key', keyId: 'k' }, { name: 'default', limit, windowSeconds: 60, algorithm: 'sliding', partition: 'key' } as Policy)
  t.equal(at(20), at(1000))
  t.equal(at(20), 'kg:{p}:rl:key:key=k:default:s60')
})

t.test('a raw address never stands in a name', async t => {
  const hash = hashAddress('192.0.2.7')
  t.notMatch(hash, /192/)
  t.not(hash, hashAddress('192.0.2.8'))
  t.equal(addressTag(hash), `a:${hash}`)
})

t.test('R20: a policy with a number that is none is named and refused', async t => {
  const policy: Policy = { name: 'default', limit: 20, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }
  t.equal(policyFault(policy), undefined)
  for (const limit of ['abc', 0, -1, 1.5, NaN, '20'] as number[]) t.match(policyFault({ ...policy, limit }), /limit of policy "default" must be a whole number/)
  for (const windowSeconds of ['', 0, -1, 0.5] as number[]) t.match(policyFault({ ...policy, windowSeconds }), /windowSeconds of policy "default"/)
  t.match(policyFault({ ...policy, limit: 100_001 }), /algorithm: fixed/)
  t.equal(policyFault({ ...policy, limit: 100_001, algorithm: 'fixed' }), undefined)
})
