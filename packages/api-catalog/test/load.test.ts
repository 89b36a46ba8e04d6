import { readFileSync } from 'node:fs'
import t from 'tap'
import { stringify } from 'yaml'
import { CatalogueError, loadCatalogue } from '../src/index.ts'
import { api, document, faultsOf, fixture, load, operation, parameter, write } from './helper.ts'

t.test('two APIs, YAML 3.0 and JSON 3.1, become one table', async t => {
  const { apis: [forms, crm] } = await loadCatalogue(fixture('two-apis/apis.yaml'))
  t.same({ ...forms, operations: forms?.operations.length, document: undefined }, {
    name: 'forms',
    prefix: '/app/api/v1',
    publicUrl: 'https://api.example.org/app/api/v1',
    upstream: 'http://127.0.0.1:4000/app/api/v1',
    upstreamPlace: `${fixture('two-apis/apis.yaml')}:5 apis[0].upstream`,
    projectParameter: 'formId',
    scopes: ['exports', 'files', 'forms', 'submissions'],
    optInScopes: ['files'],
    unlisted: 'deny',
    otherSchemes: 'forward',
    cors: 'forward',
    policies: [
      { name: 'default', limit: 60, windowSeconds: 60, algorithm: 'sliding', partition: 'key' },
      { name: 'daily', limit: 200_000, windowSeconds: 86_400, algorithm: 'fixed', partition: 'project' }
    ],
    anonymousPolicies: [{ name: 'anonymous', limit: 50, windowSeconds: 10, algorithm: 'sliding', partition: 'address' }],
    carriers: [{ kind: 'basic' }, { kind: 'header', name: 'x-api-key' }],
    operations: 5,
    document: undefined
  })
  const basic = { carrier: { kind: 'basic' }, also: [], alsoBearer: false }
  const header = { carrier: { kind: 'header', name: 'x-api-key' }, also: [], alsoBearer: false }
  const row = { anonymous: false, offersBearer: false, requirements: [basic], policies: [] }
  const counted = (name: string, limit: number, windowSeconds: number) => [{ name, limit, windowSeconds, algorithm: 'sliding', partition: 'key' }]
  t.same(forms?.operations, [
    { ...row, id: 'getStatus', method: 'GET', path: '/status', access: 'public', anonymous: true, requirements: [], scopes: [] },
    { ...row, id: 'createSubmission', method: 'POST', path: '/forms/{formId}/submissions', access: 'other', offersBearer: true, requirements: [], scopes: ['submissions', 'forms'] },
    { ...row, id: 'listSubmissions', method: 'GET', path: '/forms/{formId}/submissions', access: 'key', scopes: ['submissions'] },
    { ...row, id: 'exportSubmissions', method: 'GET', path: '/forms/{formId}/export', access: 'key', scopes: ['exports'], policies: counted('export', 5, 60) },
    { ...row, id: 'GET /files/{fileId}', method: 'GET', path: '/files/{fileId}', access: 'key', requirements: [basic, header], scopes: ['files'], policies: counted('download', 9, 90) }
  ])

  t.match(crm, { prefix: '/crm', publicUrl: null, upstream: 'https://crm.internal', projectParameter: null, unlisted: 'forward', otherSchemes: 'refuse', scopes: ['contacts'] })
  t.same(crm?.policies, [{ name: 'default', limit: 120, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }], 'the default')
  t.same(crm?.anonymousPolicies, [{ name: 'anonymous', limit: 500, windowSeconds: 60, algorithm: 'sliding', partition: 'address' }])
  t.same(crm?.carriers, [{ kind: 'header', name: 'apikey' }])
  t.same(crm?.operations.map(({ id, scopes }) => ({ id, scopes })), [{ id: 'GET /{tenant}/contacts', scopes: ['contacts'] }, { id: 'GET /', scopes: [] }])
})

t.test('the table is frozen all the way down, and keeps the document as written', async t => {
  const { apis } = await loadCatalogue(fixture('two-apis/apis.yaml'))
  const forms = apis[0]!
  t.throws(() => apis.pop(), TypeError)
  t.throws(() => { forms.operations[1]!.scopes.push('more') }, TypeError)
  t.throws(() => { (forms.document as { info: { title: string } }).info.title = 'Other' }, TypeError)
  t.match(forms.document, { components: { securitySchemes: { apiKeyAuth: { $ref: '#/components/securitySchemes/headerKey' } } } })
})

t.test('the demo API of this repository loads with the catalogue of the local run', async t => {
  const { apis: [forms] } = await loadCatalogue(fixture('../../../../infra/local/apis.yaml'))
  t.ok((forms?.operations.length ?? 0) >= 10)
  t.same(forms?.carriers, [{ kind: 'basic' }, { kind: 'header', name: 'x-api-key' }])
  for (const access of ['key', 'public', 'other'] as const) t.ok(forms?.operations.some(operation => operation.access === access), access)
})

t.test('scopes come from tags, x-scope or the path', async t => {
  const paths = {
    '/{tenant}/forms/{formId}': {
      'x-scope': 'reading',
      parameters: [parameter('tenant'), parameter('formId')],
      get: operation({ tags: ['a', 'b', 'a'] }),
      put: operation({ tags: ['b'], 'x-scope': ['writing', 'reading'] })
    }
  }
  const scopes = async (from: string) => (await load(t, { scopes: from }, { paths })).operations.map(operation => operation.scopes)
  t.same(await scopes('tags'), [['a', 'b'], ['b']])
  t.same(await scopes('x-scope'), [['reading'], ['writing', 'reading']])
  t.same(await scopes('path'), [['forms'], ['forms']])
})

t.test('apis.yaml that cannot be read at all', async t => {
  const cases = [
    { text: 'apis: [\n  - name: {', faults: [/^apis\.yaml:2:\d+: not valid YAML: .+/] },
    { text: 'apis:\n  - name: a\n    name: b\n', faults: [/^apis\.yaml:3:5: the same key is written twice; join the two or remove one\.$/] },
    { text: '', faults: [/^apis\.yaml:1: must hold a list "apis".*Begin with "apis:"/] },
    { text: 'just text', faults: [/^apis\.yaml:1: must hold a list "apis"/] },
    { text: '# comment\napis: []\n', faults: [/^apis\.yaml:2 apis: must hold a list "apis" with at least one API/] },
    { text: 'apis:\n  - forms\n', faults: [/^apis\.yaml:2 apis\[0\]: must be an API with name, prefix, upstream and openapi, not "forms"\.$/] },
    { text: 'a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: &d [*c, *c, *c]\ne: &e [*d, *d, *d]\nf: [*e, *e, *e]\n', faults: [/^apis\.yaml: not valid YAML: .*alias/] },
    { text: 'apis:\n  - &forms { name: *forms }\n', faults: [/^apis\.yaml: not valid YAML: an alias \(\*name\) stands inside what it names\.$/] }
  ]
  for (const { text, faults } of cases) {
    const found = await faultsOf(write(t, text, {}))
    t.match(found, faults)
    t.ok(found.length >= faults.length)
  }
  const folder = t.testdir()
  t.match(await faultsOf(`${folder}/none.yaml`), [/^none\.yaml: cannot be read: there is no such file\. Check the path/])
  t.match(await faultsOf(`${folder}/.`), [/cannot be read: it is a folder\. Name a file in it\./])
})

t.test('every wrong setting is a fault that names the place and the remedy', async t => {
  const cases: Array<{ change: object, faults: RegExp[] }> = [
    { change: { polices: [] }, faults: [/^apis\.yaml:6 apis\[0\]\.polices: is not a setting of an API; did you mean "policies"\?$/] },
    { change: { name: undefined }, faults: [/^apis\.yaml:2 apis\[0\]\.name: is missing\. Write for example "name: forms"\.$/] },
    { change: { name: 'a b' }, faults: [/^apis\.yaml:2 apis\[0\]\.name: "a b" cannot be a name: take at most 64/] },
    { change: { name: 7 }, faults: [/apis\[0\]\.name: must be a text, not 7\. Write/] },
    ...['v1', '/v1/', '/a//b', '/a/../b', '/a%20b', '/a?b', '/{x}', ''].map(prefix => ({ change: { prefix }, faults: [/^apis\.yaml:3 apis\[0\]\.prefix: .*Write for example "prefix: \/app\/api\/v1"\.$/] })),
    { change: { prefix: '/.keygate/x' }, faults: [/prefix: begins with \/\.keygate, which the gateway keeps for itself\. Take another\.$/] },
    ...['/livez', '/readyz'].map(prefix => ({ change: { prefix }, faults: [/^apis\.yaml:3 apis\[0\]\.prefix: is \/\w+, where the gateway tells of its health\. Take another\.$/] })),
    ...['127.0.0.1:4000', '//host', 'ftp://host', 'http:host', 'http://'].map(upstream => ({ change: { upstream }, faults: [/^apis\.yaml:4 apis\[0\]\.upstream: .* is not an http or https URL\. Write/] })),
    { change: { upstream: 'http://me:pw@host/?a#b' }, faults: [/upstream: has a user name or password and a query and a fragment\. Leave only/] },
    { change: { upstream: 'http://host/?' }, faults: [/upstream: has a query\. Leave only/] },
    { change: { publicUrl: 'api.example.org' }, faults: [/publicUrl: "api\.example\.org" is not an http or https URL\. Write for example "publicUrl: https/] },
    { change: { openapi: undefined }, faults: [/apis\[0\]\.openapi: is missing\. Write for example "openapi: \.\/forms\.openapi\.yaml"\.$/] },
    { change: { openapi: 'gone.yaml' }, faults: [/^apis\.yaml:5 apis\[0\]\.openapi: "gone\.yaml" cannot be read: there is no such file\. Check the path/] },
    { change: { project: 'formId' }, faults: [/project: must name a path parameter, not "formId"\. Write for example "project: \{ pathParameter: formId \}"\.$/] },
    { change: { project: {} }, faults: [/project\.pathParameter: is missing\. Write/] },
    { change: { project: { pathParam: 'formId', pathParameter: 'formId' } }, faults: [/project\.pathParam: is not a setting of a project; did you mean "pathParameter"\?$/] },
    { change: { project: { pathParameter: 'fromId' } }, faults: [/project\.pathParameter: "fromId" is a parameter of no path in the document; did you mean "formId"\?$/] },
    { change: { scopes: 'tag' }, faults: [/scopes: must be "tags" or "x-scope" or "path", not "tag"\.$/] },
    { change: { unlisted: 'allow' }, faults: [/unlisted: must be "deny" or "forward", not "allow"\.$/] },
    { change: { cors: 'reflect' }, faults: [/cors: must be "forward", or name origins, not "reflect"\. Write for example "cors: \{ origins: \[https:\/\/app\.example\.org\] \}"\.$/] },
    { change: { cors: {} }, faults: [/cors: names no origin\. Write for example ".*", or "cors: forward"\.$/] },
    { change: { cors: { origins: 'https://a.example' } }, faults: [/cors\.origins: must be a list, not "https:\/\/a\.example"\./, /cors: names no origin/] },
    { change: { cors: { origins: ['*', 'https://a.example'] } }, faults: [/cors\.origins: has "\*" beside others\. Leave it alone for all origins, or leave it out\.$/] },
    { change: { cors: { origins: ['https://a.example', 'https://a.example/', 'HTTPS://b.example', 'https://c.example:443', 'null', 'app://d', 7] } }, faults: [1, 2, 3, 4, 5, 6].map(i => new RegExp(`cors\\.origins\\[${i}\\]: .* is no origin: write scheme, host and port as a browser does`)) },
    { change: { cors: { origins: ['*'], headers: ['X-A', 'X A'], exposedHeaders: ['b:'] } }, faults: [/cors\.headers\[1\]: "X A" is no name of a header\.$/, /cors\.exposedHeaders\[0\]: "b:" is no name of a header\.$/] },
    { change: { cors: { origins: ['*'], maxAgeSecond: 1, maxAgeSeconds: 86_401 } }, faults: [/cors\.maxAgeSecond: is not a setting of cors; did you mean "maxAgeSeconds"\?$/, /cors\.maxAgeSeconds: must be a whole number of seconds from 0 to 86400, not 86401\.$/] },
    { change: { otherSchemes: true }, faults: [/otherSchemes: must be "refuse" or "forward", not true\.$/] },
    { change: { policies: [{ name: 'x', limit: 'abc', window: '' }] }, faults: [/^apis\.yaml:8 apis\[0\]\.policies\[0\]\.limit: must be a whole number/, /^apis\.yaml:9 apis\[0\]\.policies\[0\]\.window: must be a time/] },
    { change: { policies: [] }, faults: [/policies: is an empty list, which would limit nothing\. Leave/] },
    { change: { anonymousPolicies: [{ name: 'x', limit: 1, window: '1s', partition: 'key' }] }, faults: [/anonymousPolicies\[0\]\.partition: must be "address", not "key"\.$/] },
    { change: { optInScopes: 'forms' }, faults: [/optInScopes: must be a list of scopes, not "forms"\. Write/] },
    { change: { optInScopes: [''] }, faults: [/optInScopes\[0\]: must be a text, not ""\. Write/] },
    { change: { optInScopes: ['form'] }, faults: [/optInScopes\[0\]: "form" is a scope of no operation \(scopes: tags\); did you mean "forms"\?$/] },
    { change: { operations: [] }, faults: [/operations: must name operations by operationId or "GET \/path", not be \[\]\. Write/] },
    { change: { operations: { getForm: null } }, faults: [/operations\.getForm: must hold the settings of one operation, not null\. Write/] },
    { change: { operations: { getForm: { policy: [] } } }, faults: [/operations\.getForm\.policy: is not a setting of an operation; did you mean "policies"\?$/] },
    { change: { operations: { getFrom: {} } }, faults: [/operations\.getFrom: is no operation of the document; did you mean "getForm"\?$/] },
    { change: { operations: { 'GET /forms/{id}': {} } }, faults: [/operations\["GET \/forms\/\{id\}"\]: is no operation of the document; did you mean "GET \/forms\/\{formId\}"\?$/] },
    { change: { operations: { getForm: {}, 'GET /forms/{formId}': {} } }, faults: [/is the same operation as "getForm"\. Join the two entries\.$/] },
    { change: { operations: { getForm: { policies: [{ name: 'default', limit: 1, window: '1s' }] } } }, faults: [/policies\[0\]\.name: "default" is also a policy of the whole API\. Take another name\.$/] }
  ]
  for (const { change, faults } of cases) {
    const found = await faultsOf(write(t, { ...api, ...change }, { 'openapi.yaml': document }))
    t.equal(found.length, faults.length, `${JSON.stringify(change)}: ${found.join(' | ')}`)
    t.match(found, faults)
  }
  t.match(await faultsOf(write(t, stringify({ apis: [api], gateway: {} }), { 'openapi.yaml': document })),
    [/^apis\.yaml:6 gateway: is not a setting of this file; known: "apis"\.$/])
})

t.test('cors is forwarded unless it is configured, and then has defaults', async t => {
  t.equal((await load(t, {})).cors, 'forward')
  t.equal((await load(t, { cors: 'forward' })).cors, 'forward')
  t.strictSame((await load(t, { cors: { origins: ['https://app.example.org', 'http://localhost:3000'] } })).cors, { origins: ['https://app.example.org', 'http://localhost:3000'], headers: [], exposedHeaders: [], maxAgeSeconds: 600 })
  t.strictSame((await load(t, { cors: { origins: ['*'], headers: ['X-Trace'], exposedHeaders: ['ETag'], maxAgeSeconds: 0 } })).cors, { origins: ['*'], headers: ['X-Trace'], exposedHeaders: ['ETag'], maxAgeSeconds: 0 })
})

t.test('anchors, aliases and merge keys are understood, also where a fault points to', async t => {
  const shared = (limit: string) => `apis:
  - &forms
    name: forms
    prefix: /v1
    upstream: http://127.0.0.1:4000
    openapi: openapi.yaml
    policies: &policies
      - { name: default, window: 60s, limit: ${limit} }
  - <<: *forms
    name: again
    prefix: /v2
    policies: *policies
`
  const { apis } = await loadCatalogue(write(t, shared('7'), { 'openapi.yaml': document }))
  t.match(apis, [{ name: 'forms', policies: [{ limit: 7 }] }, { name: 'again', upstream: 'http://127.0.0.1:4000', policies: [{ limit: 7 }] }])
  t.match(await faultsOf(write(t, shared('abc'), { 'openapi.yaml': document })),
    [/^apis\.yaml:8 apis\[0\]\.policies\[0\]\.limit: /, /^apis\.yaml:8 apis\[1\]\.policies\[0\]\.limit: /])
})

t.test('several APIs: no request may belong to two', async t => {
  const paths = (...templates: string[]) => ({ ...document, paths: Object.fromEntries(templates.map(template => [template, { get: operation({ parameters: [...template.matchAll(/\{(\w+)\}/g)].map(match => parameter(String(match[1]))) }) }])) })
  const cases: Array<{ outer: object, inner: object, templates: string[], faults: RegExp[] }> = [
    { outer: { prefix: '/a' }, inner: { prefix: '/b' }, templates: ['/{x}'], faults: [] },
    { outer: { prefix: '/app' }, inner: { prefix: '/apple' }, templates: ['/{x}'], faults: [] },
    { outer: { prefix: '/a' }, inner: { prefix: '/a' }, templates: ['/x'], faults: [/apis\[1\]\.prefix: "\/a" is also the prefix of "outer"\. Give each API its own\.$/] },
    { outer: { name: 'inner', prefix: '/a' }, inner: { prefix: '/b' }, templates: ['/x'], faults: [/apis\[1\]\.name: "inner" is used twice\. Give each API its own name\.$/] },
    { outer: { prefix: '/a' }, inner: { prefix: '/a/v2' }, templates: ['/v1/{x}', '/v2x/{x}', '/v3'], faults: [] },
    { outer: { prefix: '/a' }, inner: { prefix: '/a/v2' }, templates: ['/v2/x'], faults: [/apis\[1\]\.prefix: lies inside "outer" \(\/a\), whose path "\/v2\/x" reaches into it\. Separate the prefixes\.$/] },
    { outer: { prefix: '/' }, inner: { prefix: '/a' }, templates: ['/{x}'], faults: [/lies inside "outer" \(\/\), whose path "\/\{x\}" reaches into it/] },
    { outer: { prefix: '/a' }, inner: { prefix: '/a/v2' }, templates: ['/v{x}/y'], faults: [/whose path "\/v\{x\}\/y" reaches into it/] },
    { outer: { prefix: '/a' }, inner: { prefix: '/a/b/c' }, templates: ['/b'], faults: [] },
    { outer: { prefix: '/a' }, inner: { prefix: '/a/docs' }, templates: ['/b'], faults: [/whose path "\/docs" reaches into it/] },
    { outer: { prefix: '/a', unlisted: 'forward' }, inner: { prefix: '/a/b' }, templates: ['/c'], faults: [/lies inside "outer" \(\/a\), which forwards what it does not list\. Set "unlisted: deny" there/] }
  ]
  for (const { outer, inner, templates, faults } of cases) {
    const apis = [{ ...api, name: 'outer', openapi: 'outer.yaml', ...outer }, { ...api, name: 'inner', ...inner }]
    const found = await faultsOf(write(t, apis, { 'openapi.yaml': paths('/y'), 'outer.yaml': paths(...templates) }))
    t.equal(found.length, faults.length, `${JSON.stringify([outer, inner, templates])}: ${found.join(' | ')}`)
    t.match(found, faults)
  }
})

t.test('all faults of all files come at once, in a message made to be shown', async t => {
  const file = fixture('broken/apis.yaml')
  const error = await loadCatalogue(file).then(() => undefined, (error: unknown) => error as CatalogueError)
  t.type(error, CatalogueError)
  const expected = readFileSync(fixture('broken/expected.txt'), 'utf8').trimEnd()
  t.equal(error?.message.replaceAll(fixture('broken/'), ''), expected)
  t.equal(error?.faults.length, expected.split('\n').length - 1)
  t.equal(error?.stack, error?.message, 'no stack for who mends a file')
})
