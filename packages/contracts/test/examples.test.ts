import t from 'tap'
import { Check } from 'typebox/value'
import { AcceptedOutcome, ChangesPage, KeyRecord, LoggedUntil, Logging, PolicySchema, VerificationOutcome, UsageBatch, VerificationRequest, examples } from '../src/index.ts'

t.test('every example fits the schema it is an example of', async t => {
  t.ok(Check(VerificationRequest, examples.verificationRequest))
  t.ok(Check(VerificationOutcome, examples.found))
  t.ok(Check(VerificationOutcome, examples.foundRetiring))
  t.ok(Check(VerificationOutcome, examples.unknown))
  t.ok(Check(ChangesPage, examples.changes))
  t.ok(Check(UsageBatch, examples.usage))
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

t.test('logged until a date-time or for ever; what is not logged is null or absent', async t => {
  for (const until of ['2027-01-31T00:00:00Z', '2027-01-31T00:00:00.000+01:00', 'forever']) {
    t.ok(Check(LoggedUntil, until), until)
    t.ok(Check(Logging, { all: until, scopes: { forms: until } }), until)
  }
  for (const until of ['', 'Forever', 'never', '2027-01-31', '2027-02-30T00:00:00', true, 1_801_440_000_000]) {
    t.notOk(Check(LoggedUntil, until), String(until))
    t.notOk(Check(Logging, { all: until, scopes: {} }), String(until))
  }
  t.ok(Check(Logging, { all: null, scopes: {} }))
  t.notOk(Check(Logging, { all: null, scopes: { forms: null } }), 'a scope that is not logged is left out')
  t.notOk(Check(Logging, { scopes: {} }))
})

t.test('a gateway takes a record whose logging it does not understand, and no other that is wrong', async t => {
  for (const logging of [{ all: 'until-noon', scopes: {} }, { all: null, scopes: { forms: null } }, 'everything']) {
    const found = { ...examples.found, record: { ...examples.found.record, logging } }
    t.notOk(Check(VerificationOutcome, found))
    t.ok(Check(AcceptedOutcome, found))
  }
  t.ok(Check(AcceptedOutcome, examples.found))
  t.ok(Check(AcceptedOutcome, examples.unknown))
  t.notOk(Check(AcceptedOutcome, { ...examples.found, record: { ...examples.found.record, keyVersion: 0 } }))
})

t.test('a record without the moment of its retirement is one of an older key-service', async t => {
  const { secretRetiredAtMs, ...older } = examples.foundRetiring.record as KeyRecord
  t.type(secretRetiredAtMs, 'number')
  t.ok(Check(KeyRecord, older))
  t.ok(Check(KeyRecord, { ...older, secretRetiredAtMs: null }))
  for (const wrong of [1.5, '2026-11-20T10:00:00Z']) t.notOk(Check(KeyRecord, { ...older, secretRetiredAtMs: wrong }))
})

t.test('versions are whole and start at 1', async t => {
  const record = { ...examples.found.record, keyVersion: 0 }
  t.notOk(Check(VerificationOutcome, { ...examples.found, record }))
})
