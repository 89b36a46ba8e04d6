import t from 'tap'
import { loadCatalogue, printRoutes, publishedDocument, type Api } from '../src/index.ts'
import { api, document, faultsOf, fixture, load, operation, parameter, write } from './helper.ts'

type Json = Record<string, any>
interface Published extends Json { paths: Json, servers: Json[], components: Json }

const published = (of: Api | undefined): Published => publishedDocument(of as Api) as Published

/** Every `$ref` of a document that leads nowhere within it. */
function dangling (root: Json): string[] {
  const found: string[] = []
  const visit = (value: unknown): void => {
    if (value === null || typeof value !== 'object') return
    const reference = (value as Json)['$ref']
    if (typeof reference === 'string' && !/^https?:/.test(reference)) {
      const keys = reference.split('/').slice(1).map(key => decodeURIComponent(key).replaceAll('~1', '/').replaceAll('~0', '~'))
      if (!reference.startsWith('#/') || keys.reduce<any>((at, key) => at?.[key], root) === undefined) found.push(reference)
    }
    Object.values(value).forEach(visit)
  }
  visit(root)
  return found
}

const security = { basic: [{ basic: [] }], bearer: [{ bearer: [] }], public: [], optional: [{ header: [], bearer: [] }, {}] }

t.test('the published document says of each operation what is enforced', async t => {
  const of = await load(t, {
    publicUrl: 'https://api.example.org/v1',
    otherSchemes: 'forward',
    optInScopes: ['files'],
    policies: [{ name: 'general', limit: 7, window: '60s', whenStoreIsDown: 'closed' }],
    anonymousPolicies: [{ name: 'all', limit: 9, window: '1s' }],
    operations: { listFiles: { policies: [{ name: 'own', limit: 2, window: '1h', algorithm: 'fixed', partition: 'project' }] } }
  }, {
    paths: {
      '/files': { get: operation({ operationId: 'listFiles', tags: ['files', 'forms'], security: security.basic }), trace: operation() },
      '/a': { summary: 'kept', get: operation({ security: security.bearer }), put: operation({ security: security.public }), post: operation({ security: security.optional, summary: 'kept' }) },
      '/only-trace': { trace: operation() }
    }
  })
  const general = { name: 'general', limit: 7, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }
  const all = { name: 'all', limit: 9, windowSeconds: 1, algorithm: 'sliding', partition: 'address' }
  const { paths, servers } = published(of)
  t.strictSame(servers, [{ url: 'https://api.example.org/v1' }])
  t.strictSame(Object.keys(paths), ['/files', '/a'], 'TRACE cannot be reached')
  t.strictSame(Object.keys(paths['/files']), ['get'])
  t.strictSame(paths['/files'].get['x-keygate'], {
    access: 'key', scopes: ['files', 'forms'], optIn: ['files'], policies: [general, { name: 'own', limit: 2, windowSeconds: 3600, algorithm: 'fixed', partition: 'project' }]
  })
  t.strictSame(paths['/a'].get['x-keygate'], { access: 'other', forwardsBearer: true, scopes: [], optIn: [], policies: [all] })
  t.strictSame(paths['/a'].put['x-keygate'], { access: 'public', scopes: [], optIn: [], policies: [all] })
  t.strictSame(paths['/a'].post['x-keygate'], { access: 'key', anonymous: true, scopes: [], optIn: [], policies: [general], anonymousPolicies: [all] })
  t.match(paths['/a'], { summary: 'kept', post: { summary: 'kept', security: security.optional } })
  const closed = published(await load(t, {}, { paths: { '/a': { get: operation({ security: security.bearer }) } } }))
  t.strictSame(closed.paths['/a'].get['x-keygate'], { access: 'other', scopes: [], optIn: [], policies: [] })
  t.strictSame(closed.servers, [{ url: '/v1' }], 'without publicUrl the prefix')
  t.strictSame(published(await load(t, { prefix: '/' })).servers, [{ url: '/' }])
})

t.test('no internal address is in the published document: not in a server, a text, a link or an extension', async t => {
  const upstream = 'http://10.1.2.3:4000/inner'
  const server = [{ url: upstream }]
  for (const openapi of ['3.0.3', '3.1.0']) {
    // The published JSON Schema of 3.1 knows no server of a link, although its text does.
    const links = { l: openapi === '3.1.0' ? { operationId: 'getForm' } : { operationId: 'getForm', server: server[0] } }
    const responses = { 200: { description: `See ${upstream}/docs, http://10.1.2.3:4000 and 10.1.2.3:4000, not 10.1.2.3:40001`, links } }
    const of = await load(t, { upstream, publicUrl: 'https://api.example.org/v1' }, {
      ...document,
      openapi,
      info: { title: 'Forms', version: '1', 'x-logo': upstream },
      servers: server,
      'x-backend': upstream,
      ...(openapi === '3.1.0' && { webhooks: { w: { post: operation({ servers: server }) } } }),
      paths: {
        '/forms/{formId}': {
          'x-backend': { address: upstream },
          servers: server,
          get: operation({ operationId: 'getForm', servers: server, 'x-backend': upstream, parameters: [parameter('formId')], responses, callbacks: { c: { '{$request.body#/url}': { post: operation({ servers: server }) } } } })
        }
      },
      components: { ...document.components, links }
    })
    const text = JSON.stringify(published(of))
    t.notMatch(text, /10\.1\.2\.3(?!:40001)/, openapi)
    t.match(text, 'See https://api.example.org/v1/docs, https://api.example.org and https://api.example.org, not 10.1.2.3:40001')
    t.notMatch(text, /x-backend|webhooks|callbacks/)
  }
})

t.test('the upstream\'s address is taken out in every way in which it can be written, also out of the names of members', async t => {
  const title = async (upstream: string, publicUrl: string | undefined, text: string): Promise<string> => {
    const of = await load(t, { upstream, publicUrl }, { info: { title: text, version: '1' } })
    return published(of)['info'].title as string
  }
  const [inner, outer] = ['http://api.internal/x', 'https://api.example.org/v1']
  const cases: Array<[text: string, expected: string, upstream?: string, publicUrl?: string | null]> = [
    ['http://api.internal/x/forms', 'https://api.example.org/v1/forms'],
    ['HTTP://API.Internal:80/x.', 'https://api.example.org/v1.'],
    ['https://api.internal:443/x, http://api.internal', 'https://api.example.org/v1, https://api.example.org'],
    ['//api.internal/x?a', 'https://api.example.org/v1?a'],
    ['api.internal:80/y', 'https://api.example.org/y'],
    ['See api.internal, or api.internal/x.', 'See api.example.org, or api.example.org/x.'],
    ['redirect=http%3A%2F%2Fapi.internal%2Fx', 'redirect=http%3A%2F%2Fapi.example.org%2Fx'],
    ['http://api.internal/xyz', 'https://api.example.org/xyz'],
    ['my.api.internal api.internal.example ops@api.internal http://api.internal:8080/', 'my.api.internal api.internal.example ops@api.internal http://api.internal:8080/'],
    ['http://backend/x in the backend', 'https://api.example.org/v1 in the backend', 'http://backend/x'],
    ['http://api.example.org:8081/a and support@api.example.org, https://api.example.org/v1', 'https://api.example.org/v1/a and support@api.example.org, https://api.example.org/v1', 'http://api.example.org:8081'],
    ['https://api.example.org/v1 api.example.org', 'https://api.example.org/v1 api.example.org', 'http://api.example.org/inner'],
    ['http://[fd00::1]:9000/x //[FD00::1]:9000/x/y', 'https://api.example.org/v1 https://api.example.org/v1/y', 'http://[fd00::1]:9000/x'],
    ['See http://api.internal:80/x/forms and http://api.internal', 'See /v1/forms and ', inner, null]
  ]
  for (const [text, expected, upstream = inner, publicUrl = outer] of cases) t.equal(await title(upstream, publicUrl ?? undefined, text), expected, `${upstream}: ${text}`)
  t.equal(published(await load(t, { upstream: inner, prefix: '/' }, { info: { title: 'http://api.internal/x/forms http://api.internal/x', version: '1' } }))['info'].title, '/forms /')

  const schemas = { S: { type: 'object', example: { 'http://api.internal/x': 1, 'https://api.example.org/v1': 2, nested: [{ 'api.internal:80': 3 }] } } }
  const { components } = published(await load(t, { upstream: inner, publicUrl: outer }, { components: { ...document.components, schemas } }))
  t.strictSame(components['schemas'].S.example, { 'https://api.example.org/v1': 1, 'https://api.example.org/v1_2': 2, nested: [{ 'https://api.example.org': 3 }] })
})

t.test('references into other files are taken in, circles and all, and each leads somewhere', async t => {
  const files = {
    'openapi.yaml': {
      ...document,
      openapi: '3.1.0',
      paths: {
        '/forms/{formId}': { $ref: 'parts/paths.yaml#/form' },
        '/twice/{formId}': { $ref: 'parts/paths.yaml#/form' },
        '/again': { post: operation({ requestBody: { $ref: '#/paths/~1webhooked/post/requestBody' }, responses: { 200: { $ref: 'parts/answers.yaml' } } }) },
        '/webhooked': { post: operation({ requestBody: { content: { 'application/json': { schema: { type: 'string' } } } } }) }
      },
      components: {
        ...document.components,
        securitySchemes: { ...document.components.securitySchemes, basic: { $ref: 'parts/security.json#/basic' } },
        schemas: { Tree: { type: 'object', description: 'the root\'s own' }, Outer: { $ref: 'parts/schemas.yaml#/$defs/Tree' }, Remote: { $ref: 'https://schemas.invalid/a.json' } }
      }
    },
    'paths.yaml': {
      form: {
        parameters: [{ $ref: 'parameters.yaml#/FormId' }],
        get: operation({
          operationId: undefined,
          parameters: [{ name: 'q', in: 'query', examples: { e: { $ref: 'examples.yaml#/e' } }, schema: { $ref: 'schemas.yaml#/$defs/Tree' } }],
          responses: { 200: { description: 'OK', headers: { 'X-Total': { $ref: 'answers.yaml#/headers/X-Total' } }, content: { 'application/json': { schema: { $ref: 'schemas.yaml#/$defs/Tree' }, example: { $ref: 'not a reference.yaml' } } } } }
        })
      }
    },
    'schemas.yaml': {
      $defs: {
        Tree: {
          type: 'object',
          properties: { $ref: { type: 'string' }, children: { type: 'array', items: { $ref: '#/$defs/Tree' } }, kind: { $ref: 'schemas.yaml#/$defs/Kind', description: 'beside' } },
          discriminator: { propertyName: 'kind', mapping: { leaf: '#/$defs/Kind', tree: 'Tree' } },
          example: { $ref: 'nor this.yaml' }
        },
        Kind: { enum: ['leaf', 'tree'] }
      }
    },
    'parameters.yaml': { FormId: parameter('formId') },
    'examples.yaml': { e: { value: { $ref: 'nor that.yaml' } } },
    'answers.yaml': { description: 'All of the file', headers: { 'X-Total': { description: 'how many', schema: { type: 'integer' } } } },
    'security.json': { basic: { type: 'http', scheme: 'basic' } }
  }
  const { 'openapi.yaml': root, ...parts } = JSON.parse(JSON.stringify(files)) as typeof files
  const dir = t.testdir({
    'apis.yaml': JSON.stringify({ apis: [api] }), 'openapi.yaml': JSON.stringify(root), parts: Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, JSON.stringify(part)]))
  })
  const { apis: [of] } = await loadCatalogue(`${dir}/apis.yaml`)
  const whole = published(of)
  const { examples, ...withoutData } = whole.components
  t.strictSame(dangling(JSON.parse(JSON.stringify({ ...whole, components: withoutData }, (key, value) => key === 'example' ? undefined : value)))
    .filter(reference => !reference.startsWith('#/components/examples/')), [])
  t.ok(examples.e)
  t.notMatch(JSON.stringify(whole), /parts\/|schemas\.yaml|parameters\.yaml/)
  t.match(JSON.stringify(whole), 'not a reference.yaml', 'an example is data')
  t.match(whole.components['schemas'], {
    Tree: { description: 'the root\'s own' },
    Outer: { $ref: '#/components/schemas/Tree_2' },
    Remote: { $ref: 'https://schemas.invalid/a.json' },
    Tree_2: {
      properties: { $ref: { type: 'string' }, children: { items: { $ref: '#/components/schemas/Tree_2' } }, kind: { $ref: '#/components/schemas/Kind', description: 'beside' } },
      discriminator: { mapping: { leaf: '#/components/schemas/Kind', tree: 'Tree' } }
    }
  })
  t.strictSame(whole.paths['/forms/{formId}'].get['x-keygate'], whole.paths['/twice/{formId}'].get['x-keygate'])
  t.strictSame(whole.components['securitySchemes'].basic, { $ref: '#/components/securitySchemes/basic_2' })

  for (const name of ['split/apis.yaml', 'circular/apis.yaml', 'two-apis/apis.yaml']) {
    const { apis } = await loadCatalogue(fixture(name))
    for (const of of apis) t.strictSame(dangling(published(of)), [], name)
  }
})

t.test('a published document is a catalogue\'s document again, with the same table', async t => {
  for (const name of ['split/apis.yaml', 'circular/apis.yaml', 'two-apis/apis.yaml']) {
    for (const of of (await loadCatalogue(fixture(name))).apis) {
      const again = await load(t, { name: of.name }, published(of))
      const rows = ({ operations }: Api): unknown => operations.map(({ method, path, access, requirements }) => [method, path, access, requirements])
      t.strictSame(rows(again), rows(of), `${name} ${of.name}`)
    }
  }
})

t.test('a reference that the reader could not follow is a fault', async t => {
  const schema = (reference: string): object => ({ ...document, components: { ...document.components, schemas: { A: { $ref: reference } } } })
  const cases: Array<[string, RegExp]> = [
    ['gone.yaml', /components\.schemas\.A\["\$ref"\]: "gone\.yaml" cannot be read: there is no such file/],
    ['../outside.yaml', /is outside the folder of the document\. Move it there\.$/],
    ['file:///etc/hostname', /is elsewhere/],
    ['part.yaml#/none', /leads to nothing/],
    ['part.yaml#anchor', /names an anchor in another file\. Name a place there/]
  ]
  for (const [reference, fault] of cases) t.match(await faultsOf(write(t, api, { 'openapi.yaml': schema(reference), 'part.yaml': { x: 1 } })), [fault], reference)
  t.strictSame(await faultsOf(write(t, api, { 'openapi.yaml': schema('#anchor') })), [])
})

t.test('--print-routes: who may call what, in columns of at most 120', async t => {
  const of = await load(t, {
    unlisted: 'forward', otherSchemes: 'forward', optInScopes: ['files'], operations: { listFiles: { policies: [{ name: 'own', limit: 2, window: '1h', algorithm: 'fixed' }] } }
  }, {
    paths: {
      '/files': { get: operation({ operationId: 'listFiles', tags: ['files', 'forms'], security: [...security.basic, { header: [] }] }), trace: operation() },
      '/a': { get: operation({ security: security.bearer }), put: operation({ security: security.public }), post: operation({ security: security.optional }) },
      [`/${'long-'.repeat(20)}{x}`]: { get: operation({ parameters: [parameter('x')], tags: ['a-scope-that-is-rather-long', 'another'] }) }
    }
  })
  t.match(printRoutes({ apis: [await load(t, {}, { paths: { '/a': { get: operation({ tags: ['red\u001b[31m'] }) } } })] }), 'red\ufffd[31m', 'a terminal is told nothing by a document')
  const text = printRoutes({ apis: [of] })
  t.equal(text, `forms: /v1 -> http://127.0.0.1:4000
METHOD   PATH                                        SCOPES              WHO MAY CALL              POLICIES
GET      /v1/files                                   files (opt-in),     key: Basic or x-api-key   default 120/60s, own
                                                     forms                                         2/3600s fixed
TRACE    /v1/files                                                       nobody: TRACE is refused
GET      /v1/a                                                           no key; Bearer, checked   anonymous 500/60s by
                                                                         by the API                address
PUT      /v1/a                                                           anyone                    anonymous 500/60s by
                                                                                                   address
POST     /v1/a                                                           key: x-api-key with       default 120/60s;
                                                                         Bearer; or anyone         without a key:
                                                                                                   anonymous 500/60s by
                                                                                                   address
GET      /v1/long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-{x}
                                                     a-scope-that-is-rather-long,
                                                     another             key: Basic                default 120/60s
GET      /v1/openapi.json                                                anyone: the gateway       anonymous 500/60s by
                                                                         answers                   address
GET      /v1/docs                                                        anyone: the gateway       anonymous 500/60s by
                                                                         answers                   address
any      /v1/*                                                           anyone, unchecked: not    anonymous 500/60s by
                                                                         listed                    address
`)
})
