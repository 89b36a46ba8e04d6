import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DrizzleQueryError } from 'drizzle-orm'
import { test } from 'tap'
import { readConfig } from '../src/config.ts'
import { readCursor, writeCursor } from '../src/cursor.ts'
import { isUnavailable, unwrap } from '../src/db/failures.ts'
import { acceptImport } from '../src/keys/accept-import.ts'
import { canonicalHost } from '../src/keys/allowed-hosts.ts'
import { parseExpiry } from '../src/keys/expiry.ts'
import { knownScopesOf } from '../src/keys/known-scopes.ts'
import { transition, type KeyAction } from '../src/keys/lifecycle.ts'
import { faultsOfLogging, notLogged, patchLogging, readLogging, writeLogging, type KeyLogging, type LoggingPatch, type Selection, type Until } from '../src/keys/logging.ts'
import { acceptPolicies } from '../src/policies/accept-policies.ts'
import { checkVersion, ifMatch, requireIfMatch } from '../src/preconditions.ts'
import { parseTokens, readTokensFile } from '../src/service-tokens/tokens-file.ts'
import { faultOfText, parseName } from '../src/text.ts'

/** tap's type for an expected error knows none of our members. */
const like = (wanted: object): Error => wanted as Error

test('K18 allowed hosts have one spelling, and whatever is no address or CIDR is refused', async t => {
  for (const [given, expected] of [
    ['192.0.2.1', '192.0.2.1'], ['192.0.2.1/32', '192.0.2.1'], ['192.0.2.77/24', '192.0.2.0/24'], ['0.0.0.0/0', '0.0.0.0/0'], ['255.255.255.255', '255.255.255.255'],
    ['2001:DB8::1', '2001:db8::1'], ['2001:db8:0:0:0:0:0:1', '2001:db8::1'], ['2001:db8::ffff/32', '2001:db8::/32'], ['::', '::'], ['::1', '::1'], ['::/0', '::/0'], ['::1/128', '::1'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'], ['fe80::1:0:0:1/65', 'fe80::/65'], ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['::ffff:1.2.3.4', '1.2.3.4'], ['::FFFF:102:304', '1.2.3.4'], ['::ffff:1.2.3.4/120', '1.2.3.0/24'], ['::ffff:0:0/96', '0.0.0.0/0'], ['::ffff:1.2.3.4/64', '::/64']
  ] as const) t.equal(canonicalHost(given), expected, given)
  for (const wrong of ['*.x.org', '1.2.3.4:80', '300.1.1.1', '', ' ', 'localhost', '1.2.3', '01.2.3.4', '1.2.3.4/33', '1.2.3.4/', '1.2.3.4/08', '1.2.3.4/-1', '::1/129', '[::1]', '[::1]:80',
    'fe80::1%eth0', '1.2.3.4 ', '１.2.3.4', '2130706433', '0x7f.1', '::g', ':::', '1::2::3', '1.2.3.4/24/24', '1.2.3.4\n']) t.equal(canonicalHost(wrong), undefined, JSON.stringify(wrong))
})

test('K16 an expiry is a future moment until the year 9999', async t => {
  const now = Date.parse('2026-11-20T10:00:00Z')
  for (const [given, expected] of [
    ['2027-01-31T12:00:00Z', '2027-01-31T12:00:00.000Z'], ['2027-01-31t12:00:00z', '2027-01-31T12:00:00.000Z'], ['2027-01-31T12:00:00+02:00', '2027-01-31T10:00:00.000Z'],
    ['2027-01-31T12:00:00.5Z', '2027-01-31T12:00:00.500Z'], ['2027-01-31T12:00:00.123999Z', '2027-01-31T12:00:00.123Z'],
    ['2026-11-20T10:00:00.001Z', '2026-11-20T10:00:00.001Z'], ['2026-11-20', '2026-11-20T23:59:59.999Z'], ['2028-02-29', '2028-02-29T23:59:59.999Z'], ['9999-12-31', '9999-12-31T23:59:59.999Z']
  ] as const) t.same(parseExpiry(given, now), { at: new Date(expected) }, given)
  for (const wrong of ['2026-11-20T10:00:00Z', '2026-11-20T09:59:59.999Z', '2026-11-19', '1970-01-01', '0000-01-01',
    '', 'tomorrow', '2027-02-30', '2027-02-29', '2100-02-29', '2027-13-01', '2027-00-10', '2027-01-00', '2027-1-1', '2027-01-31T12:00:00', '2027-01-31T24:00:00Z', '2027-01-31T12:60:00Z', '2027-01-31T12:00:60Z',
    '2027-01-31 12:00:00Z', '10000-01-01', '+010000-01-01T00:00:00Z', '9999-12-31T23:59:59-01:00', '2027-01-31T12:00:00+24:00', '1800000000000', '2027-W05-1']) t.match(parseExpiry(wrong, now), { fault: String }, wrong)
})

test('the life of a key: revoked is final, the rest can be repeated', async t => {
  const actions: KeyAction[] = ['edit', 'disable', 'enable', 'rotate', 'extendRotation', 'finishRotation', 'reveal', 'revoke', 'delete']
  const row = (status: 'active' | 'disabled' | 'revoked') => actions.map(action => transition(status, action))
  t.same(row('active'), ['active', 'disabled', 'active', 'active', 'active', 'active', 'active', 'revoked', 'deleted'])
  t.same(row('disabled'), ['disabled', 'disabled', 'active', 'disabled', 'disabled', 'disabled', 'disabled', 'revoked', 'deleted'])
  t.same(row('revoked'), [...Array<string>(8).fill('refused'), 'deleted'])
})

test('If-Match: any version, or one of a list; weak tags never match, other text is refused', async t => {
  const read = (text?: string) => ifMatch({ headers: { 'if-match': text } })
  t.equal(read(), undefined)
  t.equal(read('*'), 'any')
  t.equal(read(' * '), 'any')
  t.same(read('"1"'), ['"1"'])
  t.same(read('"1", W/"2" ,"x,y"'), ['"1"', 'W/"2"', '"x,y"'])
  for (const wrong of ['', '1', '"1', '"1" "2"', '"1",', ',"1"', '*,"1"', 'w/"1"', '"a b"']) t.throws(() => read(wrong), like({ problem: { status: 400, code: 'invalid_precondition' } }), wrong)
  t.throws(() => requireIfMatch({ headers: {} }), like({ problem: { status: 428, code: 'precondition_required' } }))
  for (const wanted of [undefined, 'any' as const, ['"3"'], ['"1"', '"3"']]) t.doesNotThrow(() => { checkVersion(wanted, 3) })
  for (const wanted of [['"2"'], ['W/"3"'], ['"03"'], []]) t.throws(() => { checkVersion(wanted, 3) }, like({ problem: { status: 412, code: 'version_conflict', detail: /version "3" now/ }, headers: { etag: '"3"' } }))
})

test('K21 logging is merged, and judged as it would be', async t => {
  const now = Date.parse('2026-11-20T10:00:00Z')
  const present: KeyLogging = { all: null, scopes: new Map<string, Until>([['a', 'forever'], ['b', new Date('2027-01-01T00:00:00Z')]]) }
  const merged = (patch: LoggingPatch) => writeLogging(patchLogging(present, patch, now).logging)
  t.same(merged({}), { all: null, scopes: { a: 'forever', b: '2027-01-01T00:00:00.000Z' } })
  t.same(merged({ all: 'forever', scopes: { a: null, c: '2027-01-31' } }), { all: 'forever', scopes: { b: '2027-01-01T00:00:00.000Z', c: '2027-01-31T23:59:59.999Z' } })
  t.same(writeLogging(readLogging(merged({}))), merged({}))
  t.match(patchLogging(notLogged, { all: '2026-11-20T10:00:00Z', scopes: { 'a/b': 'soon' } }, now).faults, [{ pointer: '/logging/all', message: /future.*"forever"/ }, { pointer: '/logging/scopes/a~1b', message: /date-time.*"forever"/ }])

  const covered = new Set(['a', 'b'])
  const pointers = (logging: KeyLogging, selection: Partial<Selection>, changed: object) => faultsOfLogging(logging, { allowedForAll: false, scopes: [], role: null, ...selection }, changed, covered).map(({ pointer }) => pointer)
  const logs = (...scopes: string[]): KeyLogging => ({ all: null, scopes: new Map(scopes.map(scope => [scope, 'forever'])) })
  t.same(pointers(logs('a'), { scopes: ['a'] }, {}), [])
  t.same(pointers(logs('a'), { role: { scopes: ['a'] } }, {}), [])
  t.same(pointers(logs('a'), { allowedForAll: true }, {}), [])
  t.same(pointers(logs('opt-in'), { allowedForAll: true }, { logging: { scopes: { 'opt-in': 'forever' } } }), ['/logging/scopes/opt-in'])
  t.same(pointers(logs('a', 'b'), { scopes: ['b'] }, { scopes: ['b'] }), ['/scopes'])
  t.same(pointers(logs('a'), {}, { role: null }), ['/role'])
  t.same(pointers(logs('a'), {}, { allowedForAll: false }), ['/allowedForAll'])
  t.same(pointers({ ...notLogged, all: 'forever' }, {}, { allowedForAll: false }), ['/allowedForAll'])
  t.same(pointers({ ...notLogged, all: 'forever' }, {}, { logging: { all: 'forever' } }), ['/logging/all'])
  t.same(pointers({ ...notLogged, all: 'forever' }, { allowedForAll: true }, { logging: { all: 'forever' } }), [])
})

test('what allowedForAll stands for: every scope that some API does not keep apart', async t => {
  const api = (scopes: string[], optInScopes: string[]) => ({ scopes, optInScopes })
  const { all, covered } = knownScopesOf({ apis: [api(['a', 'files'], ['files']), api(['b', 'c', 'files', 'secret'], ['secret'])] } as unknown as Parameters<typeof knownScopesOf>[0])
  t.same([...all], ['a', 'files', 'b', 'c', 'secret'])
  t.same([...covered], ['a', 'b', 'c', 'files'])
})

test('imports: an enabled form, not ours, and no message repeats what was sent', async t => {
  const uuid = '0b1d2c3e-4f50-4a61-8b72-9c83ad94be05'
  const rules = { forms: ['uuid'] as const, prefix: 'kg' }
  t.match(acceptImport({ secret: uuid }, rules), { digest: /^[\w-]{43}$/, plaintext: uuid, hint: '…be05' })
  t.same(acceptImport({ digest: 'A'.repeat(43) }, rules), { digest: 'A'.repeat(43), plaintext: null, hint: '…' })
  for (const [given, pointer] of [[{ secret: 'kg_x' }, '/import/secret'], [{ secret: `${uuid} ` }, '/import/secret'], [{ secret: '' }, '/import/secret'], [{ digest: 'x' }, '/import/digest'], [{}, '/import/digest']] as const) {
    t.match(acceptImport(given, rules), { pointer, message: String }, JSON.stringify(given))
  }
  t.match(acceptImport({ secret: 'hunter2' }, rules), { message: /^(?!.*hunter2).*: uuid$/ }, 'the forms are named')
  for (const given of [{ secret: uuid }, { digest: 'A'.repeat(43) }]) t.match(acceptImport(given, { ...rules, forms: [] }), { message: /^(?!.*0b1d).*KEYGATE_IMPORT_FORMS/ })
})

test('names and texts', async t => {
  t.same(parseName('  Bücher 📚 '), { name: 'Bücher 📚' })
  t.same(parseName('x'.repeat(100)), { name: 'x'.repeat(100) })
  t.same(parseName('📚'.repeat(100)), { name: '📚'.repeat(100) }, 'characters are counted, not their halves')
  for (const wrong of ['', '   ', 'x'.repeat(101), 'a\u0000b', 'a\nb', 'a\u009fb', 'a\ud800b', '\u007f']) t.match(parseName(wrong), { fault: String }, JSON.stringify(wrong))
  t.equal(faultOfText('a\nb\tc'), undefined)
  t.equal(faultOfText('x'.repeat(400)), undefined)
  for (const wrong of ['x'.repeat(401), 'a\u0000b', '\udfff']) t.match(faultOfText(wrong), /must/, JSON.stringify(wrong))
})

test('faults of policies point into the request', async t => {
  t.same(acceptPolicies([{ name: 'a', limit: 0, windowSeconds: 60 }]).faults.map(fault => fault.pointer), ['/policies/0/limit'])
  t.same(acceptPolicies([{ name: 'a', limit: 100_001, window: '60s' }]).faults.map(fault => fault.pointer), ['/policies/0/limit'])
  t.same(acceptPolicies([{ name: 'a', limit: 5, windowSeconds: 60, whenStoreIsDown: 'maybe' }]).faults, [{ pointer: '/policies/0/whenStoreIsDown', message: 'must be "local" or "open" or "closed", not "maybe"' }])
  t.same(acceptPolicies([{ name: 'a', limit: 5, window: '1m' }]), { policies: [{ name: 'a', limit: 5, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }], faults: [] })
})

test('a cursor belongs to one list in one order', async t => {
  const accepts = { value: (value: string) => value.startsWith('v'), id: /^i/ }
  const cursor = writeCursor('name', { value: 'v1', id: 'i1' })
  t.same(readCursor(cursor, 'name', accepts), { value: 'v1', id: 'i1' })
  t.throws(() => readCursor(cursor, '-name', accepts), like({ problem: { status: 400 } }))
  for (const wrong of ['', 'x', '%%%', writeCursor('name', { value: 'w', id: 'i1' }), writeCursor('name', { value: 'v', id: 'j' }), Buffer.from('{}').toString('base64url'), Buffer.from('["name",1,2]').toString('base64url')]) {
    t.throws(() => readCursor(wrong, 'name', accepts), like({ problem: { status: 400, code: 'invalid_cursor' } }), wrong)
  }
})

test('which errors mean that the database is away', async t => {
  const withCode = (code: string) => Object.assign(new Error('x'), { code })
  for (const code of ['NO_ANSWER', 'ECONNREFUSED', 'CONNECT_TIMEOUT', 'CONNECTION_CLOSED', '08006', '53300', '57P01', '57P03', '57014', '25006', '40001', '40P01', '55P03', '58030']) t.ok(isUnavailable(withCode(code)), code)
  for (const code of ['23505', '22P02', '42P01', 'FST_ERR_VALIDATION', '']) t.notOk(isUnavailable(withCode(code)), code)
  const cause = withCode('57P01')
  t.equal(unwrap(new DrizzleQueryError('SELECT $1', ['a digest'], cause)), cause, 'the statement and its parameters go no further')
})

test('all faults of the service tokens are listed, and no token is quoted', async t => {
  const good = { name: 'gateway', token: 'kgs_0123456789abcdefghij', permissions: ['keys:verify'] }
  t.same(parseTokens([good]), { entries: [{ ...good, projectId: null }], faults: [] })
  const { faults } = parseTokens([
    good,
    { ...good, name: 'twin' },
    { ...good, token: 'kgs_0123456789_another_token' },
    { name: '', token: 'secret-but-wrong', permissions: ['keys:verfy'], role: 1 },
    { name: 'kgs_0123456789abcdefghij', token: 5, permissions: [], projectId: 'x' },
    'kgs_0123456789abcdefghij'
  ])
  t.match(faults, [/entry 4: "role"/, /entry 4: "name"/, /entry 4: "token"/, /entry 4: "keys:verfy" is no permission/, /entry 5: "token"/, /entry 5: "projectId"/, /entry 5: "permissions"/, /entry 6: must be an object/, /"gateway" has the same name/, /"twin" has the same token/])
  t.notMatch(faults.join('\n'), /kgs_0123|secret-but-wrong/)
  t.match(parseTokens({}).faults, [/must hold a list/])

  const file = join(t.testdir(), 'tokens.json')
  t.throws(() => readTokensFile(file), like({ faults: [/cannot be read \(ENOENT\)/] }))
  writeFileSync(file, '[{ "token": "kgs_0123456789abcdefghij" ]')
  t.throws(() => readTokensFile(file), like({ faults: [/^(?!.*kgs_0123).*is not JSON/] }))
})

test('missing and wrong variables are named all at once, without their secrets', async t => {
  t.throws(() => readConfig({}), like({ faults: [/DATABASE_URL is missing/, /REDIS_URL is missing/, /KEYGATE_APIS is missing/, /KEYGATE_PEPPER is missing/] }))
  const env = { DATABASE_URL: 'postgres://u:p@h/d', REDIS_URL: 'redis://h', KEYGATE_APIS: 'apis.yaml', KEYGATE_PEPPER: 'p'.repeat(32) }
  t.match(readConfig(env), { config: { host: '127.0.0.1', port: 8082, keyPrefix: 'kg', relayIntervalMs: 500, logLevel: 'info', metricsPort: undefined }, warnings: [] })
  t.throws(() => readConfig({ ...env, KEYGATE_PEPPER: 'hunter2' }), like({ message: /^(?!.*hunter2).*KEYGATE_PEPPER/s }))
  t.throws(() => readConfig({ ...env, DATABASE_URL: 'postgres://u:hunter2@h:x/d' }), like({ message: /^(?!.*hunter2).*DATABASE_URL is not a URL/s }))
  for (const [wrong, fault] of [
    [{ DATABASE_URL: 'postgres://u:%zz@h/db' }, /^DATABASE_URL holds a %.*%25/],
    [{ DATABASE_URL: 'mysql://h/db' }, /^DATABASE_URL must begin with postgres:\/\/ or postgresql:\/\//],
    [{ REDIS_URL: 'redis://127.0.0.1:99999' }, /^REDIS_URL names the port 99999.*65535/],
    [{ REDIS_URL: 'redis://' }, /^REDIS_URL names no host/]
  ] as const) t.throws(() => readConfig({ ...env, ...wrong }), like({ faults: [fault] }))
  t.throws(() => readConfig({ ...env, KEYGATE_PEPPER: undefined, DATABASE_URL: 'x', KEYGATE_KEY_PREFIX: '1' }), like({ faults: [/KEYGATE_PEPPER/, /DATABASE_URL/, /KEYGATE_KEY_PREFIX/] }), 'whatever kind they are')
  t.throws(() => readConfig({ ...env, KEYGATE_KEY_PREFIX: 'key' }), like({ message: /KEYGATE_KEY_PREFIX/ }))
  t.throws(() => readConfig({ ...env, KEYGATE_PORT: '70000', LOG_LEVEL: 'loud' }), like({ faults: [/KEYGATE_PORT/, /LOG_LEVEL/] }))
})
