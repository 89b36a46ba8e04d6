import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { stringify } from 'yaml'
import { loadCatalogue } from '../src/index.ts'
import { api, document, faultsOf, fixture, load, operation, parameter, write } from './helper.ts'

t.test('references are followed through files, pointers and chains', async t => {
  const { apis: [split] } = await loadCatalogue(fixture('split/apis.yaml'))
  const requirements = [{ carrier: { kind: 'header', name: 'api-key' }, also: [], alsoBearer: false }]
  const row = { access: 'key', requirements }
  t.equal(split?.prefix, '', 'an API at the root')
  t.match(split?.operations, [
    { ...row, id: 'GET /forms/{form-id}', scopes: ['reading'] },
    { ...row, id: 'DELETE /forms/{form-id}', scopes: ['writing', 'deleting'] },
    { ...row, id: 'GET /forms/{form-id}/files', scopes: [] },
    { ...row, id: 'PUT /forms/{form-id}/copy', scopes: ['writing'] },
    { ...row, id: 'PUT /forms/{form-id}/original', scopes: ['writing'] }
  ])
  t.equal(split?.operations.length, 5)
})

t.test('schemas may be circular or elsewhere: nothing here reads them, and nothing is fetched', async t => {
  const { apis: [tree] } = await loadCatalogue(fixture('circular/apis.yaml'))
  t.match(tree?.operations, [{ id: 'POST /nodes', access: 'key' }])
})

t.test('a reference that decides about requests and leads nowhere is a fault', async t => {
  const cases: Array<{ item: unknown, files?: Record<string, string>, faults: RegExp[] }> = [
    { item: { $ref: '#/paths/~1none' }, faults: [/^openapi\.yaml:\d+ paths\["\/x"\]\["\$ref"\]: "#\/paths\/~1none" leads to nothing\. Correct it, or add what it names\.$/] },
    { item: { $ref: '#/paths/~1x' }, faults: [/"#\/paths\/~1x" leads back to itself\. Break the circle\.$/] },
    { item: { $ref: '#/paths/~1x/get' }, faults: [/"#\/paths\/~1x\/get" leads back to itself/] },
    { item: { $ref: 'https://elsewhere.invalid/item.yaml' }, faults: [/"https:\/\/elsewhere\.invalid\/item\.yaml" is elsewhere, and a document's references are not fetched\. Copy/] },
    { item: { $ref: '//elsewhere.invalid/item.yaml#/x' }, faults: [/is elsewhere/] },
    { item: { $ref: 'file:///etc/hostname' }, faults: [/is elsewhere/] },
    { item: { $ref: '../outside.yaml' }, faults: [/"\.\.\/outside\.yaml" is outside the folder of the document\. Move it there\.$/] },
    { item: { $ref: 'parts/..%2F../outside.yaml' }, faults: [/is outside the folder/] },
    { item: { $ref: '/etc/hostname' }, faults: [/is outside the folder/] },
    { item: { $ref: '%zz' }, faults: [/"%zz" is not a well-formed reference\. Write for example "#\/components\/parameters\/FormId"\.$/] },
    { item: { $ref: 'gone.yaml' }, faults: [/"gone\.yaml" cannot be read: there is no such file/] },
    { item: { $ref: 'torn.yaml' }, files: { 'torn.yaml': '{' }, faults: [/"torn\.yaml": torn\.yaml:1:\d+: not valid YAML/] },
    { item: { $ref: 'a.yaml' }, files: { 'a.yaml': '$ref: b.yaml', 'b.yaml': '$ref: a.yaml' }, faults: [/leads back to itself/] },
    { item: { $ref: 'part.yaml', get: operation() }, files: { 'part.yaml': 'get: { responses: { 200: { description: OK } } }' }, faults: [/paths\["\/x"\]\.get: stands beside "\$ref", where OpenAPI gives it no meaning\. Move it/] },
    { item: { get: operation({ parameters: [{ $ref: '#/components/parameters/None' }] }) }, faults: [/get\.parameters\[0\]\["\$ref"\]: "#\/components\/parameters\/None" leads to nothing/] }
  ]
  for (const { item, files, faults } of cases) {
    const found = await faultsOf(write(t, api, { 'openapi.yaml': { ...document, paths: { ...document.paths, '/x': item } }, ...files }))
    t.equal(found.length, faults.length, `${JSON.stringify(item)}: ${found.join(' | ')}`)
    t.match(found, faults)
  }
})

t.test('what is not OpenAPI 3.0 or 3.1 says so', async t => {
  const { openapi, paths, ...rest } = document
  const cases: Array<{ text: object | string, faults: RegExp[] }> = [
    { text: '[1, 2', faults: [/^openapi\.yaml:1:\d+: not valid YAML/] },
    { text: 'hello', faults: [/^openapi\.yaml:1: is not an OpenAPI document: "openapi" is missing\. Name one of version 3\.0 or 3\.1\.$/] },
    { text: '', faults: [/is not an OpenAPI document/] },
    { text: { swagger: '2.0', paths: {} }, faults: [/^openapi\.yaml:1 swagger: is Swagger 2\.0\. Convert the document to OpenAPI 3\.0 or 3\.1\.$/] },
    { text: { openapi: 3.1, ...rest, paths }, faults: [/openapi: is a number\. Put it in quotes, with all three parts: "3\.1\.0"\.$/] },
    { text: { openapi: '3.2.0', ...rest, paths }, faults: [/openapi: is version "3\.2\.0", which is not known here\. Use/] },
    { text: { openapi, ...rest }, faults: [/paths: lists no path.*Add the paths of the API\.$/] },
    { text: { openapi, ...rest, paths: {} }, faults: [/paths: lists no path/] },
    { text: { openapi: '3.0.99', ...rest, paths }, faults: [/is not valid OpenAPI: Unsupported OpenAPI version: 3\.0\.99.*Correct the document\.$/] },
    { text: { ...document, info: { title: 'Forms' } }, faults: [/^openapi\.yaml:2 info: must have required property 'version'\. Correct it as the OpenAPI specification says\.$/] },
    { text: { ...document, openapi: '3.1.0', info: { title: 'Forms' } }, faults: [/^openapi\.yaml:2 info: must have required property 'version'/] },
    { text: { ...document, extra: 1 }, faults: [/must NOT have additional properties \(extra\)/] },
    { text: { ...document, security: 'basic' }, faults: [/security: must be array/] },
    { text: { ...document, paths: { '/x': { get: operation({ tags: [7] }) } } }, faults: [/paths\["\/x"\]\.get\.tags: must be a text or a list of texts/, /get\.tags(\.0|\[0\])?: must be string/] }
  ]
  for (const { text, faults } of cases) {
    const found = await faultsOf(write(t, api, { 'openapi.yaml': text }))
    t.equal(found.length, faults.length, found.join(' | '))
    for (const fault of faults) t.ok(found.some(text => fault.test(text)), `${fault.source} in ${found.join(' | ')}`)
  }
  const many = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`/p${i}`, { get: {} }]))
  t.match((await faultsOf(write(t, api, { 'openapi.yaml': { ...document, paths: many } }))).at(-1), /is not valid OpenAPI in 20 more places\. Correct these first\.$/)
})

async function serve (t: { teardown: (stop: () => void) => void }, answer: RequestListener): Promise<string> {
  const server: Server = createServer(answer)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => { server.close(); server.closeAllConnections() })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

t.test('a document may come by URL', async t => {
  const asked: string[] = []
  const url = await serve(t, (request, response) => {
    asked.push(request.url ?? '')
    if (request.url === '/openapi.json') return response.end(JSON.stringify(document))
    if (request.url === '/openapi.yaml') return response.end(stringify(document))
    if (request.url === '/split.yaml') return response.end(stringify({ ...document, paths: { '/x': { $ref: 'part.yaml' } } }))
    if (request.url === '/headers-only') return response.write('openapi:')
    if (request.url === '/silent') return undefined
    return response.writeHead(404).end()
  })
  for (const path of ['/openapi.json', '/openapi.yaml']) {
    const { operations } = await load(t, { openapi: url + path })
    t.match(operations, [{ id: 'getForm' }], path)
  }
  const faults = async (openapi: string) => await faultsOf(write(t, { ...api, openapi }, {}), { fetchTimeoutMs: 200 })
  t.match(await faults(`${url}/none`), [/^apis\.yaml:5 apis\[0\]\.openapi: "http:\/\/127.*\/none" cannot be read: it answered 404\. Check/])
  t.match(await faults(`${url}/split.yaml`), [/"part\.yaml" is another file, and a document that comes by URL must be whole\. Bundle it/])
  t.match(await faults(`${url}/silent`), [/\/silent" cannot be read: no answer within 200 ms\. Check that the server is up/])
  t.match(await faults(`${url}/headers-only`), [/no answer within 200 ms/], 'the body counts, too')
  t.match(await faults('http://127.0.0.1:1/openapi.yaml'), [/cannot be read: .+\. Check that it exists and can be reached from here\.$/])
  t.notOk(asked.includes('/part.yaml'))
})

t.test('a document of 500 operations, each with references, loads whole', async t => {
  const paths: Record<string, unknown> = {}
  for (let i = 0; i < 100; i++) {
    const each = operation({ tags: [`tag${i % 10}`], responses: { 200: { $ref: '#/components/responses/Item' } } })
    paths[`/collection${i}/{formId}`] = { parameters: [{ $ref: '#/components/parameters/FormId' }], get: each, put: each, post: each, patch: each, delete: each }
  }
  // Schemas that all refer to each other: replacing every reference by what it names would never end.
  const schemas = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`S${i}`, {
    type: 'object', properties: Object.fromEntries(Array.from({ length: 10 }, (_, j) => [`p${j}`, { $ref: `#/components/schemas/S${(i * 7 + j) % 100}` }]))
  }]))
  const components = {
    ...document.components,
    schemas,
    parameters: { FormId: parameter('formId') },
    responses: { Item: { description: 'OK', content: { 'application/json': { schema: { $ref: '#/components/schemas/S0' } } } } }
  }
  for (const [version, name, text] of [['3.0.3', 'big.yaml', stringify], ['3.1.0', 'big.json', JSON.stringify]] as const) {
    const big = { ...document, openapi: version, paths, components }
    const file = write(t, { ...api, openapi: name, project: { pathParameter: 'formId' } }, { [name]: text(big) })
    const begin = performance.now()
    const { apis: [found] } = await loadCatalogue(file)
    t.comment(`${name}: ${Math.round(performance.now() - begin)} ms`)
    t.equal(found?.operations.length, 500)
    t.ok(found?.operations.every(({ access }) => access === 'key'))
    t.equal(found?.scopes.length, 10)
  }
})
