import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { configFor, startApp, startHouse, tokens, tokensFile } from './helper.ts'

const responses = { 200: { description: 'OK' } }
/** One operation per path that belongs to the scope of that name. */
const operation = (...tags: string[]) => ({ get: { tags, responses } })

/** A catalogue of two APIs: one with scopes as people name them, one without any that matches "sales". */
function twoApis (t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'keygate-catalogue-'))
  t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
  const document = (paths: object) => JSON.stringify({
    openapi: '3.1.0',
    info: { title: 'T', version: '1' },
    security: [{ basic: [] }],
    paths,
    components: { securitySchemes: { basic: { type: 'http', scheme: 'basic' } } }
  })
  writeFileSync(join(dir, 'erp.json'), document({
    '/orders': { get: { operationId: 'listOrders', tags: ['SALES-ORDER'], responses }, post: { operationId: 'createOrder', tags: ['SALES-ORDER'], responses } },
    '/open': { get: { operationId: 'readOpen', tags: ['SALES-ORDER'], security: [], responses } },
    '/invoices': operation('Pre-sales'),
    '/stock': operation('stock', '100%_mine')
  }))
  writeFileSync(join(dir, 'files.json'), document({ '/files': operation('files') }))
  writeFileSync(join(dir, 'apis.yaml'), JSON.stringify({
    apis: [
      {
        name: 'erp',
        prefix: '/erp',
        publicUrl: 'https://api.example.org/erp',
        upstream: 'http://127.0.0.1:4000',
        openapi: './erp.json',
        scopes: 'tags',
        optInScopes: ['stock'],
        policies: [{ name: 'default', limit: 20, window: '1m' }],
        anonymousPolicies: [{ name: 'anonymous', limit: 5, window: '60s', partition: 'address' }]
      },
      { name: 'files', prefix: '/', upstream: 'http://127.0.0.1:4001', openapi: './files.json', scopes: 'tags' }
    ]
  }))
  return join(dir, 'apis.yaml')
}

test('the catalogue', async t => {
  const house = await startHouse(t)
  const { call } = await startApp(t, configFor(t, await house.database(), house.redis.url, {
    apisFile: twoApis(t),
    serviceTokensFile: tokensFile(t, [
      { name: 'all', token: tokens.all, permissions: ['catalogue:read'] },
      { name: 'reader', token: tokens.reader, permissions: ['keys:read'] }
    ])
  }))
  const scopes = async (search?: string): Promise<string[]> => {
    const { status, body } = await call('GET', `/catalogue${search === undefined ? '' : `?search=${encodeURIComponent(search)}`}`)
    t.equal(status, 200)
    return body.apis.flatMap((api: { scopes: Array<{ name: string }> }) => api.scopes.map(scope => scope.name))
  }

  await t.test('what a key can be allowed, where, and how it is limited', async t => {
    const { body } = await call('GET', '/catalogue')
    t.strictSame(body.apis[0], {
      name: 'erp',
      prefix: '/erp',
      publicUrl: 'https://api.example.org/erp',
      scopes: [
        { name: '100%_mine', optIn: false, operations: [{ id: 'GET /stock', method: 'GET', path: '/stock' }] },
        { name: 'Pre-sales', optIn: false, operations: [{ id: 'GET /invoices', method: 'GET', path: '/invoices' }] },
        { name: 'SALES-ORDER', optIn: false, operations: [{ id: 'listOrders', method: 'GET', path: '/orders' }, { id: 'createOrder', method: 'POST', path: '/orders' }] },
        { name: 'stock', optIn: true, operations: [{ id: 'GET /stock', method: 'GET', path: '/stock' }] }
      ],
      policies: [{ name: 'default', limit: 20, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }],
      anonymousPolicies: [{ name: 'anonymous', limit: 5, windowSeconds: 60, algorithm: 'sliding', partition: 'address' }]
    }, 'the operation that needs no key is not offered')
    t.match(body.apis[1], { name: 'files', prefix: '', publicUrl: null, policies: [{ limit: 120 }] })
  })

  await t.test('K23 a search finds scopes that contain it, in any case, and % and _ mean themselves', async t => {
    const all = ['100%_mine', 'Pre-sales', 'SALES-ORDER', 'stock', 'files']
    t.strictSame(await scopes(), all)
    t.strictSame(await scopes(''), all)
    t.strictSame(await scopes('sales'), ['Pre-sales', 'SALES-ORDER'])
    t.strictSame(await scopes('sales-order'), await scopes('SALES-ORDER'))
    t.strictSame(await scopes('SALES-ORDER'), ['SALES-ORDER'])
    for (const literal of ['%', '_', '%_', '0%_M']) t.strictSame(await scopes(literal), ['100%_mine'], literal)
    for (const nothing of ['s%s', 'sales_order', '\\', '.*', ' ', '\u0000']) t.strictSame(await scopes(nothing), [], JSON.stringify(nothing))
    t.match(await call('GET', '/catalogue?search=x'), { body: { apis: [{ name: 'erp', policies: [{ limit: 20 }] }, { name: 'files' }] } }, 'an API without a match keeps its place')
  })

  await t.test('faults of the query, and who may ask', async t => {
    t.match(await call('GET', `/catalogue?search=${'x'.repeat(101)}`), { status: 422, body: { errors: [{ pointer: '/search' }] } })
    t.match(await call('GET', '/catalogue?serach=x'), { status: 400, body: { errors: [{ pointer: '/serach' }] } })
    t.match(await call('GET', '/catalogue', undefined, tokens.reader), { status: 403, body: { code: 'forbidden' } })
  })
})
