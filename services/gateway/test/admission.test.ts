import type { Carrier, Operation } from '@keygate/api-catalog'
import { examples, type KeyRecord } from '@keygate/contracts'
import t from 'tap'
import { canonicalAddress } from '../src/admission/address.ts'
import { authorize, hasScope, type Attempt } from '../src/admission/authorize.ts'
import { canonicalProjectId, collapseSpaces, findCarrier } from '../src/admission/credentials.ts'
import { OurSecrets } from '../src/admission/our-secrets.ts'
import { readConfig } from '../src/config.ts'
import { PassedFields } from '../src/proxy/passed-fields.ts'
import { forwardedHeaders } from '../src/proxy/request-headers.ts'
import { returnedHeaders } from '../src/proxy/response-headers.ts'
import { parseTemplate, pathOf, routerPath } from '../src/routing/path-template.ts'

const basic: Carrier = { kind: 'basic' }
const header: Carrier = { kind: 'header', name: 'x-api-key' }
const carriers = [basic, header]
const fields = new PassedFields({ carriers }, carriers, new OurSecrets({ prefix: 'kg', importForms: [] }))

t.test('which carrier: none, one, or ambiguous', async t => {
  const kind = (...raw: string[]): string => findCarrier(raw, carriers).kind
  t.equal(kind('Host', 'a'), 'none')
  t.equal(kind('Authorization', 'Basic YTpi'), 'basic')
  t.equal(kind('authorization', 'BASIC YTpi'), 'basic')
  t.equal(kind('Authorization', 'Basic'), 'basic')
  t.equal(kind('Authorization', 'Basically x'), 'none')
  t.equal(kind('X-API-KEY', 'k'), 'header')
  t.equal(kind('ApiKey', 'k'), 'none', 'another name is another header')
  t.equal(kind('Authorization', 'Bearer x', 'X-Api-Key', 'k'), 'header', 'a Bearer beside a header key is not ours')
  t.equal(kind('X-Api-Key', 'k', 'x-api-key', 'k'), 'ambiguous')
  t.equal(kind('Authorization', 'Basic YTpi', 'X-Api-Key', 'k'), 'ambiguous')
  t.equal(kind('Authorization', 'Basic YTpi', 'Authorization', 'Bearer x'), 'ambiguous', 'Node would keep the first and drop the other')
})

t.test('A8 A10: spaces after the scheme collapse; a project id compares without regard to case', async t => {
  t.equal(collapseSpaces('Basic   YTpi'), 'Basic YTpi')
  t.equal(collapseSpaces('basic YTpi'), 'basic YTpi')
  t.equal(canonicalProjectId('5F1C2C1E-8A55-4B1E-9D6B-0D1F4C8B2A10'), '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10')
  for (const wrong of ['', 'x', '5f1c2c1e8a554b1e9d6b0d1f4c8b2a10', '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10\n']) t.equal(canonicalProjectId(wrong), null, JSON.stringify(wrong))
})

t.test('scopes: one of the operation\'s, every opt-in one by name, all of the others by allowedForAll', async t => {
  const has = (scopes: string[], allowedForAll: boolean, of: string[]): boolean => hasScope({ scopes, allowedForAll }, of, ['files'])
  t.ok(has(['submissions'], false, ['forms', 'submissions']))
  t.notOk(has(['submission'], false, ['submissions']), 'exact match')
  t.notOk(has([], false, ['forms']))
  t.notOk(has([], false, []), 'K20: no scopes, not for all: nothing')
  t.ok(has([], true, ['forms']))
  t.ok(has([], true, []))
  t.notOk(has([], true, ['files']), 'opt-in stays out of allowedForAll')
  t.ok(has(['files'], true, ['files']))
  t.ok(has(['files'], false, ['files']))
  t.notOk(has(['submissions'], false, ['submissions', 'files']))
  t.notOk(has(['files'], false, ['submissions', 'files']), 'and an opt-in scope alone does not give the other')
  t.ok(has(['files', 'submissions'], false, ['submissions', 'files']))
})

const operation: Operation = { id: 'get', method: 'GET', path: '/forms/{formId}', access: 'key', anonymous: false, offersBearer: false, scopes: ['forms'], policies: [], requirements: [{ carrier: basic, also: [], alsoBearer: false }] }
const record: KeyRecord = { ...examples.found.record as KeyRecord, scopes: ['forms'], allowedHosts: null, status: 'active' }
const attempt: Attempt = { credentials: { carrier: basic, secret: 's', projectId: record.projectId }, hasBearer: false, operation, optInScopes: [], pathProjectId: record.projectId, address: '192.0.2.7' }

t.test('authorize: the order of reasons tells an outsider nothing', async t => {
  t.equal(authorize(record, attempt), null)
  const other = '00000000-0000-4000-8000-000000000000'
  t.equal(authorize({ ...record, status: 'disabled' }, { ...attempt, pathProjectId: other }), 'invalid_credentials')
  t.equal(authorize({ ...record, status: 'disabled' }, { ...attempt, credentials: { ...attempt.credentials, projectId: other } }), 'invalid_credentials')
  t.equal(authorize({ ...record, status: 'revoked' }, attempt), 'invalid_credentials')
  t.equal(authorize({ ...record, status: 'disabled' }, attempt), 'key_disabled')
  t.equal(authorize(record, { ...attempt, operation: { ...operation, access: 'other' } }), 'operation_not_open')
  t.equal(authorize(record, { ...attempt, operation: { ...operation, requirements: [{ carrier: header, also: [], alsoBearer: false }] } }), 'carrier_not_offered')
  const withBearer = { ...operation, requirements: [{ carrier: basic, also: ['bearer'], alsoBearer: true }] }
  t.equal(authorize(record, { ...attempt, operation: withBearer }), 'bearer_missing', 'a key AND a bearer is not flattened to a key')
  t.equal(authorize(record, { ...attempt, operation: withBearer, hasBearer: true }), null)
  t.equal(authorize({ ...record, scopes: [] }, attempt), 'scope_missing')
})

t.test('K17: allowed hosts: any, one address, a network, both families, mapped addresses', async t => {
  const from = (allowedHosts: string[] | null, address: string) => authorize({ ...record, allowedHosts }, { ...attempt, address: canonicalAddress(address) })
  t.equal(from(null, '1.2.3.4'), null)
  t.equal(from(['1.2.3.4'], '1.2.3.4'), null)
  t.equal(from(['1.2.3.4'], '1.2.3.5'), 'host_not_allowed')
  t.equal(from(['1.2.3.4'], '::ffff:1.2.3.4'), null)
  t.equal(from(['1.2.3.0/24'], '1.2.3.200'), null)
  t.equal(from(['2001:db8::/32'], '2001:db8::5'), null)
  t.equal(from(['2001:db8::/32'], '2001:db9::5'), 'host_not_allowed')
  t.equal(from(['not an address'], '1.2.3.4'), 'host_not_allowed', 'a fault in the data opens nothing')
})

t.test('headers to the upstream: no credentials, no hop-by-hop, no spoofed identity; ours set', async t => {
  const trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  const raw = ['Host', 'gw', 'Authorization', 'Basic YTpi', 'X-API-Key', 'k', 'Connection', 'close, X-Drop', 'X-Drop', '1', 'X_Keygate_Project', 'evil', 'x-keygate-project', 'evil',
    'X-Forwarded-For', '9.9.9.9', 'Forwarded', 'for=evil', 'TE', 'trailers', 'Expect', '100-continue', 'Accept', 'a', 'Accept', 'b', 'traceparent', trace, 'tracestate', 'a=1']
  const headers = forwardedHeaders({ rawHeaders: raw, headers: { host: 'gw', connection: 'close, X-Drop', traceparent: trace, tracestate: 'a=1' } }, { fields, ownsBasic: true, address: '192.0.2.7', protocol: 'http', requestId: 'r1', principal: record })
  t.strictSame(headers, ['accept', 'a', 'accept', 'b', 'x-forwarded-for', '192.0.2.7', 'x-forwarded-proto', 'http', 'x-request-id', 'r1', 'x-forwarded-host', 'gw', 'traceparent', trace, 'tracestate', 'a=1',
    'x-keygate-project', record.projectId, 'x-keygate-key', record.keyId, 'x-keygate-scopes', 'forms'])
  const bearer = forwardedHeaders({ rawHeaders: ['Authorization', 'Bearer x'], headers: {} }, { fields, ownsBasic: true, address: 'a', protocol: 'http', requestId: 'r', principal: null })
  t.strictSame(bearer.slice(0, 2), ['authorization', 'Bearer x'])
  t.notOk(bearer.includes('x-keygate-project'))
})

t.test('R18: headers from the upstream: its own RateLimit fields are dropped, repeated fields stay repeated', async t => {
  const raw = ['RateLimit', 'limit=1', 'RateLimit-Policy', '1;w=1', 'X-RateLimit-Limit', '1', 'Retry-After', '7', 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'Connection', 'x-secret', 'X-Secret', '1', 'Content-Type', 'text/plain']
  t.strictSame(returnedHeaders(raw, { principal: null, ownsCors: false }), { pairs: ['Retry-After', '7', 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'Content-Type', 'text/plain'], isCrossOrigin: false, isEventStream: false })
})

t.test('the upstream\'s path is written from what was checked', async t => {
  const path = (template: string, ...values: string[]): string => pathOf(parseTemplate(template), Object.fromEntries(values.map((value, i) => [`p${i}`, value])))
  t.equal(path('/forms/{formId}/files/{name}', 'A', 'a b/c'), '/forms/A/files/a%20b%2Fc')
  t.equal(path('/forms/{formId}/files/{name}', 'A', 'ä'), '/forms/A/files/%C3%A4')
  t.equal(path('/café/{id}', '1'), '/caf%C3%A9/1')
  t.equal(path('/caf%C3%A9/{id}', '1'), '/caf%C3%A9/1')
  t.equal(path('/users({id})', '5'), '/users(5)')
})

t.test('a template as the router reads it: by place, decoded, colons doubled', async t => {
  t.equal(routerPath('/v1', '/forms/{form-id}/x'), '/v1/forms/:p0/x')
  t.equal(routerPath('', '/caf%C3%A9/{a}:close'), '/café/:p0([^/]+)::close')
  t.equal(routerPath('', '/f/{name}.{ext}'), '/f/:p0((?:(?!\\u002e)[^/])+).:p1([^/]+)', 'a value ends at the first of what follows it, so that no search goes back')
})

t.test('a missing or wrong variable is named, with the remedy, all at once', async t => {
  t.throws(() => readConfig({ KEYGATE_PORT: 'abc', KEYGATE_TRUST_PROXY: '1', KEYGATE_REFUSALS_LIMIT: '0' }), {
    name: 'ConfigError',
    message: /KEYGATE_PORT must be integer, but is "abc"[^]*KEYGATE_REFUSALS_LIMIT must be >= 1/
  })
  const needed = { KEYGATE_APIS: 'a', KEYGATE_KEY_SERVICE_URL: 'http://k', KEYGATE_SERVICE_TOKEN: 'x'.repeat(20), REDIS_URL: 'redis://r' }
  t.throws(() => readConfig({ ...needed, REDIS_URL: '' }), { message: /REDIS_URL is missing: the Redis that all gateways share/ })
  t.throws(() => readConfig({ ...needed, KEYGATE_TRUST_PROXY: 'true' }), { message: /KEYGATE_TRUST_PROXY has true: give addresses or CIDRs/ })
  const faulty: [string, string, RegExp][] = [
    ['REDIS_URL', 'redis://127.0.0.1:99999', /REDIS_URL names the port 99999/],
    ['REDIS_URL', 'redis://:::', /REDIS_URL/],
    ['REDIS_URL', 'redis://:%zz@h', /REDIS_URL holds a %/],
    ['REDIS_URL', 'redis://h:6379/abc', /REDIS_URL may end with the number of a database/],
    ['KEYGATE_KEY_SERVICE_URL', 'http://:', /KEYGATE_KEY_SERVICE_URL names no host/],
    ['KEYGATE_KEY_SERVICE_URL', 'http://a b', /KEYGATE_KEY_SERVICE_URL/],
    ['KEYGATE_KEY_SERVICE_URL', 'http://127.0.0.1:99999', /KEYGATE_KEY_SERVICE_URL names the port 99999/],
    ['KEYGATE_TRUST_PROXY', '10.0.0.0/99', /KEYGATE_TRUST_PROXY has 10\.0\.0\.0\/99/],
    ['KEYGATE_SERVICE_TOKEN', `${'x'.repeat(20)}\ny`, /KEYGATE_SERVICE_TOKEN has a space, a line break/],
    ['KEYGATE_IMPORT_FORMS', 'uuid, md5,UUID', /KEYGATE_IMPORT_FORMS names "md5", "UUID"; there is uuid$/m],
    ['KEYGATE_DRAIN_DELAY_MS', '25001', /KEYGATE_DRAIN_DELAY_MS is 25001 and KEYGATE_SHUTDOWN_TIMEOUT_MS is 25000, .*: set the first below the second$/m],
    ['KEYGATE_SHUTDOWN_TIMEOUT_MS', '4999', /KEYGATE_DRAIN_DELAY_MS is 5000 and KEYGATE_SHUTDOWN_TIMEOUT_MS is 4999, /],
    ...['999.1.1.1', '127.1', '1.2.3.4.5', '127.0.0.1:80', '[::1]', ':::1'].map((host): [string, string, RegExp] => ['KEYGATE_HOST', host, /KEYGATE_HOST is ".*", which is no address: give one such as 127\.0\.0\.1/]),
    ['LOG_LEVEL', 'loud', /LOG_LEVEL .*trace, debug/]
  ]
  for (const host of ['0.0.0.0', '::', 'fe80::1%eth0', 'localhost', 'gateway-1.internal']) t.equal(readConfig({ ...needed, KEYGATE_HOST: host }).config.KEYGATE_HOST, host)
  for (const [name, value, message] of faulty) t.throws(() => readConfig({ ...needed, [name]: value }), { message }, `${name}=${value}`)
  t.match(readConfig({ ...needed, KEYGATE_REALMS: 'x' }).warnings, [/KEYGATE_REALMS is not a setting.*did you mean KEYGATE_REALM\?/])
  try {
    readConfig({ ...needed, KEYGATE_SERVICE_TOKEN: 'hunter2' })
    t.fail('a short token is a fault')
  } catch (error) {
    t.match((error as Error).message, /KEYGATE_SERVICE_TOKEN/)
    t.notMatch((error as Error).message, /hunter2/, 'a secret\'s value never stands in a message')
  }
})
