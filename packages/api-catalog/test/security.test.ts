import t from 'tap'
import { api, document, faultsOf, load, operation, write } from './helper.ts'

const schemes = {
  basic: { type: 'http', scheme: 'basic' },
  Loud: { type: 'http', scheme: 'BASIC' },
  header: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
  other: { type: 'apiKey', in: 'header', name: 'ApiKey' },
  bearer: { type: 'http', scheme: 'bearer' },
  oauth: { type: 'oauth2', flows: { clientCredentials: { tokenUrl: 'https://sign-in.invalid/token', scopes: {} } } },
  oidc: { type: 'openIdConnect', openIdConnectUrl: 'https://sign-in.invalid/.well-known/openid-configuration' },
  digest: { type: 'http', scheme: 'digest' },
  tls: { type: 'mutualTLS' },
  query: { type: 'apiKey', in: 'query', name: 'key' },
  cookie: { type: 'apiKey', in: 'cookie', name: 'sid' },
  authorization: { type: 'apiKey', in: 'header', name: 'Authorization' },
  spaced: { type: 'apiKey', in: 'header', name: 'api key' },
  underscore: { type: 'apiKey', in: 'header', name: 'api_key' },
  host: { type: 'apiKey', in: 'header', name: 'Host' }
}

/** One operation whose document says `inherited` and which itself says `own`; undefined says nothing. */
function documentWith (inherited: unknown, own: unknown, declared: object = schemes): object {
  return {
    ...document,
    openapi: '3.1.0',
    security: inherited,
    paths: { '/forms': { get: operation({ operationId: 'listForms', tags: ['forms'], ...(own === undefined ? {} : { security: own }) }) } },
    components: { securitySchemes: declared }
  }
}

const basic = { carrier: { kind: 'basic' }, also: [], alsoBearer: false }
const header = { carrier: { kind: 'header', name: 'x-api-key' }, also: [], alsoBearer: false }

t.test('what an operation\'s effective security means', async t => {
  const matrix: Array<{ says: string, inherited?: unknown, own?: unknown, expect: object }> = [
    { says: 'nothing anywhere: not opened by an omission', expect: { access: 'other', anonymous: false, offersBearer: false, requirements: [] } },
    { says: 'inherited', inherited: [{ basic: [] }], expect: { access: 'key', anonymous: false, requirements: [basic] } },
    { says: 'inherited []', inherited: [], expect: { access: 'public', anonymous: true, requirements: [] } },
    { says: 'overridden by []', inherited: [{ basic: [] }], own: [], expect: { access: 'public', anonymous: true, requirements: [] } },
    { says: 'overridden by bearer', inherited: [{ basic: [] }], own: [{ bearer: [] }], expect: { access: 'other', offersBearer: true, requirements: [] } },
    { says: 'overridden, opened', inherited: [{ bearer: [] }], own: [{ header: [] }], expect: { access: 'key', offersBearer: false, requirements: [header] } },
    { says: 'overrides []', inherited: [], own: [{ basic: [] }], expect: { access: 'key', anonymous: false, requirements: [basic] } },
    { says: 'OR of two carriers', own: [{ basic: [] }, { header: [] }], expect: { access: 'key', requirements: [basic, header] } },
    { says: 'OR with bearer', own: [{ bearer: [] }, { basic: [] }], expect: { access: 'key', offersBearer: true, requirements: [basic] } },
    { says: 'OR of foreign ones', own: [{ bearer: [] }, { oauth: ['read'] }, { tls: [] }], expect: { access: 'other', offersBearer: true, requirements: [] } },
    { says: 'AND with bearer', own: [{ header: [], bearer: [] }], expect: { access: 'key', offersBearer: false, requirements: [{ ...header, also: ['bearer'], alsoBearer: true }] } },
    { says: 'AND with oauth2', own: [{ oauth: [], header: [] }], expect: { requirements: [{ ...header, also: ['oauth'], alsoBearer: true }] } },
    { says: 'AND with OpenID', own: [{ oidc: [], header: [] }], expect: { requirements: [{ ...header, also: ['oidc'], alsoBearer: true }] } },
    { says: 'AND of foreign ones', own: [{ bearer: [], tls: [] }], expect: { access: 'other', offersBearer: false, requirements: [] } },
    { says: 'AND or alone', own: [{ header: [], bearer: [] }, { header: [] }], expect: { requirements: [{ ...header, also: ['bearer'], alsoBearer: true }, header] } },
    { says: 'optional key', own: [{}, { basic: [] }], expect: { access: 'key', anonymous: true, requirements: [basic] } },
    { says: 'optional bearer', own: [{ bearer: [] }, {}], expect: { access: 'public', anonymous: true, offersBearer: true, requirements: [] } },
    { says: 'only {}', own: [{}], expect: { access: 'public', anonymous: true, requirements: [] } },
    { says: 'case of the scheme', own: [{ Loud: [] }], expect: { access: 'key', requirements: [basic] } }
  ]
  for (const { says, inherited, own, expect } of matrix) {
    const { operations: [found] } = await load(t, {}, documentWith(inherited, own))
    t.match(found, expect, says)
    t.equal(found?.requirements.length, (expect as { requirements: unknown[] }).requirements.length, says)
  }
})

t.test('carriers are those that some operation offers, each once', async t => {
  const listed = (security: unknown) => operation({ security })
  const paths = { '/a': { get: listed([{ other: [] }, { header: [], bearer: [] }]) }, '/b': { get: listed([{ basic: [] }]), put: listed([{ header: [] }]) } }
  const found = await load(t, {}, { ...documentWith(undefined, undefined), paths })
  t.same(found.carriers, [{ kind: 'basic' }, { kind: 'header', name: 'apikey' }, { kind: 'header', name: 'x-api-key' }])
})

t.test('ways in that cannot be enforced are refused, with the reason and the remedy', async t => {
  const cases: Array<{ own: unknown, faults: RegExp[] }> = [
    { own: [{ query: [] }], faults: [/components\.securitySchemes\.query\.in: is "query".*logs, histories and referrers\. Use "in: header"/] },
    { own: [{ cookie: [] }, { basic: [] }], faults: [/securitySchemes\.cookie\.in: is "cookie".*every page's request\. Use "in: header"/] },
    { own: [{ header: [], query: [] }], faults: [/securitySchemes\.query\.in: is "query"/] },
    { own: [{ basic: [], bearer: [] }], faults: [/paths\["\/forms"\]\.get\.security\[0\]: asks for "basic" and "bearer" together, and both travel in Authorization.*Put the key in a header of its own/] },
    { own: [{ basic: [], oauth: [] }], faults: [/asks for "basic" and "oauth" together/] },
    { own: [{ basic: [], digest: [] }], faults: [/asks for "basic" and "digest" together/] },
    { own: [{ basic: [], header: [] }], faults: [/security\[0\]: asks for "basic" and "header" together, and a request carries one key\. Make them two alternatives/] },
    { own: [{ header: [], other: [] }], faults: [/asks for "header" and "other" together/] },
    { own: [{ heder: [] }], faults: [/security\[0\]\.heder: names a scheme that components\.securitySchemes does not have; did you mean "header"\?/] },
    { own: [{ authorization: [] }], faults: [/securitySchemes\.authorization\.name: "Authorization" has a meaning of its own.*Use \{ type: http, scheme: basic \}/] },
    { own: [{ host: [] }], faults: [/securitySchemes\.host\.name: "Host" has a meaning of its own.*Use a header such as X-API-Key/] },
    { own: [{ underscore: [] }], faults: [/^openapi\.yaml:\d+ components\.securitySchemes\.underscore\.name: "api_key" has "_", and a gateway drops such headers, or refuses them \(KEYGATE_UNDERSCORE_HEADERS\), because .*\. Rename it, as in X-API-Key\.$/] },
    { own: [{ spaced: [] }], faults: [/securitySchemes\.spaced\.name: "api key" cannot be the name of a header that carries a key\. Use letters, digits and "-", as in X-API-Key\.$/] },
    { own: [{ header: [], digest: [] }], faults: [/^openapi\.yaml:15 paths\["\/forms"\]\.get\.security\[0\]: asks GET \/forms for a key and "digest" together\. The gateway does not check "digest", and a key alone would be let in\. Leave "digest" out here/] },
    { own: [{ basic: [], tls: [] }, { header: [] }], faults: [/security\[0\]: asks GET \/forms for a key and "tls" together/] },
    { own: [{ header: [], bearer: [], tls: [], digest: [] }], faults: [/asks GET \/forms for a key and "tls" and "digest" together/] }
  ]
  for (const { own, faults } of cases) {
    const found = await faultsOf(write(t, api, { 'openapi.yaml': documentWith(undefined, own) }))
    t.equal(found.length, faults.length, found.join(' | '))
    t.match(found, faults)
  }
  t.match(await faultsOf(write(t, api, { 'openapi.yaml': documentWith([{ basic: [] }], undefined, {}) })), [/^openapi\.yaml:\d+ security\[0\]\.basic: names a scheme .* there is none to name\.$/])
})

t.test('what many operations inherit is one fault, at the place where it is written', async t => {
  const paths = Object.fromEntries(['/a', '/b', '/c'].map(path => [path, { get: operation() }]))
  const found = await faultsOf(write(t, api, { 'openapi.yaml': { ...documentWith([{ header: [], tls: [] }], undefined), paths } }))
  t.equal(found.length, 1, found.join(' | '))
  t.match(found, [/^openapi\.yaml:\d+ security\[0\]: asks GET \/a for a key and "tls" together/])
})

t.test('what no operation uses does no harm', async t => {
  const { carriers } = await load(t, {}, documentWith([{ query: [] }], [{ basic: [] }]))
  t.same(carriers, [{ kind: 'basic' }])
})
