import t from 'tap'
import { Check } from 'typebox/value'
import { ChangesPage, PolicySchema, VerificationOutcome, VerificationRequest, examples } from '../src/index.ts'

t.test('every example fits the schema it is an example of', async t => {
  t.ok(Check(VerificationRequest, examples.verificationRequest))
  t.ok(Check(VerificationOutcome, examples.found))
  t.ok(Check(VerificationOutcome, examples.unknown))
  t.ok(Check(ChangesPage, examples.changes))
})

t.test('a secret in clear does not fit where its digest belongs', async t => {
  t.notOk(Check(VerificationRequest, { digest: 'kg_0123456789abcdefghijkl_000000' }))
  t.notOk(Check(VerificationRequest, { ...examples.verificationRequest, secret: 'x' }))
})

t.test('whenStoreIsDown is optional, and one of three', async t => {
  const policy = examples.found.record.policies?.list[0]
  t.ok(Check(PolicySchema, policy), 'absent: local')
  for (const whenStoreIsDown of ['local', 'open', 'closed']) t.ok(Check(PolicySchema, { ...policy, whenStoreIsDown }))
  for (const whenStoreIsDown of ['share', null, true, '']) t.notOk(Check(PolicySchema, { ...policy, whenStoreIsDown }))
})

t.test('versions are whole and start at 1', async t => {
  const record = { ...examples.found.record, keyVersion: 0 }
  t.notOk(Check(VerificationOutcome, { ...examples.found, record }))
})
