import type { Api, Operation } from '@keygate/api-catalog'
import t from 'tap'
import { ListedPaths } from '../src/routing/listed-paths.ts'
import { fold } from '../src/routing/path-readings.ts'
import { methods, RoutingTable } from '../src/routing/table.ts'

/** A table of one API at /api with `GET /path` and so on; only what the table looks at. */
function tableOf (listed: string[], { unlisted = 'deny', prefix = '/api' }: Partial<Api> = {}): RoutingTable {
  const operations = listed.map(line => {
    const [method, path] = line.split(' ') as [string, string]
    return { id: line, method, path, access: 'key', anonymous: false, offersBearer: false, requirements: [], scopes: [], policies: [] } satisfies Operation
  })
  return new RoutingTable({ apis: [{ name: 'api', prefix, upstream: 'http://127.0.0.1:1', projectParameter: null, unlisted, operations } as unknown as Api] })
}

/** `GET /path` of the operation that is found and its values, or the kind of what else is found; `null` for nothing. */
function found (table: RoutingTable, method: string, url: string): [string, ...Array<string | undefined>] | string | null {
  const match = table.match(method, url)
  if (match === null || match.target.kind !== 'operation') return match?.target.kind ?? null
  return [match.target.operation.id, ...match.target.template.names.map((_, i) => match.parameters[`p${i}`])]
}

t.test('A18 a parameter is never empty, whatever the method and wherever it stands', async t => {
  const templates = ['/items/{id}', '/r/{a}-{b}', '/v{x}', '/w{x}/y', '/u({id})', '/s/{a}.{b}/t', '/deep/{a}/{b}', '/d/{a}--{b}.json']
  const listed = templates.flatMap(path => methods.map(method => `${method} ${path}`))
  const empty = ['/items/', '/r/a-', '/r/-b', '/r/-', '/r/', '/v', '/w/y', '/u()', '/s/.b/t', '/s/a./t', '/deep/a/', '/deep/', '/d/--b.json', '/d/a--.json', '/d/--.json', '/d/']
  const full: Array<[string, ...string[]]> = [['/items/{id}', '1'], ['/r/{a}-{b}', 'a', 'b'], ['/v{x}', '1'], ['/w{x}/y', '1'], ['/u({id})', '1'], ['/s/{a}.{b}/t', 'a', 'b'], ['/deep/{a}/{b}', 'a', 'b'], ['/d/{a}--{b}.json', 'a', 'b']]
  const table = tableOf(listed)
  const root = tableOf(listed, { prefix: '' })
  for (const method of methods) {
    for (const path of empty) {
      t.equal(found(table, method, `/api${path}`), null, `${method} ${path}`)
      t.equal(found(table, method, `/api${path}?id=1`), null, `${method} ${path}?`)
      t.equal(found(root, method, path), null, `${method} ${path} at the root`)
    }
    for (const [template, ...values] of full) {
      const path = values.reduce((path, value) => path.replace(/\{\w+\}/, value), template)
      t.strictSame(found(table, method, `/api${path}`), [`${method} ${template}`, ...values], `${method} ${path}`)
    }
  }
  t.equal(found(tableOf(['GET /{any}'], { prefix: '' }), 'GET', '/'), null)
  t.strictSame(found(tableOf(['GET /{any}', 'GET /'], { prefix: '' }), 'GET', '/'), ['GET /'])
})

t.test('A18 an empty parameter hides no other path that matches', async t => {
  const table = tableOf(['GET /items/{id}', 'GET /items/', 'GET /{collection}/', 'GET /r/{a}-{b}', 'GET /r/{one}', 'GET /items/{id}/', 'DELETE /items/{id}'])
  t.strictSame(found(table, 'GET', '/api/items/'), ['GET /items/'])
  t.strictSame(found(table, 'GET', '/api/forms/'), ['GET /{collection}/', 'forms'])
  t.strictSame(found(table, 'GET', '/api/r/a-'), ['GET /r/{one}', 'a-'])
  t.strictSame(found(table, 'GET', '/api/items/1/'), ['GET /items/{id}/', '1'])
  t.strictSame(found(table, 'GET', '/api/items/1'), ['GET /items/{id}', '1'])
  t.equal(found(table, 'DELETE', '/api/items/'), null)
})

t.test('a path with texts between parameters is read in one way, however long it is', async t => {
  const table = tableOf(['GET /x/{a}-{b}-{c}-{d}-{e}.json', 'GET /p/{x}%25b', 'GET /q/{a}%25{b}', 'GET /f/{name}.{type}'])
  t.strictSame(found(table, 'GET', '/api/x/1-2-3-4-5-6.json'), ['GET /x/{a}-{b}-{c}-{d}-{e}.json', '1', '2', '3', '4', '5-6'])
  // Tried in every way to cut it, this would not end while the test lives.
  t.equal(found(table, 'GET', `/api/x/${'-'.repeat(4900)}x`), null)
  t.equal(found(table, 'GET', `/api/x/${'a-'.repeat(2400)}x`), null)
  t.strictSame(found(table, 'GET', '/api/p/1%25b'), ['GET /p/{x}%25b', '1'])
  t.strictSame(found(table, 'GET', '/api/q/a%25b'), ['GET /q/{a}%25{b}', 'a', 'b'])
  t.strictSame(found(table, 'GET', '/api/f/a.tar.gz'), ['GET /f/{name}.{type}', 'a', 'tar.gz'])
})

const listed = ['GET /items', 'POST /items', 'GET /items/{id}', 'DELETE /items/{id}', 'GET /charges/{id}/refunds', 'GET /Café', 'GET /report.xml', 'GET /feed.{format}', 'TRACE /traced', 'GET /a;b', 'GET /odata({key})', 'GET /100%25']

t.test('unlisted: forward takes no other spelling of a listed path, with any method', async t => {
  const table = tableOf(listed, { unlisted: 'forward' })
  const spellings = ['/Items', '/ITEMS', '/items/', '/Items/', '/items;x', '/items;jsessionid=1/', '/items%20', '/items%09', '/items.', '/items...', '/items%2e', '/items.json', '/items.xml', '/items.html', '/items%2ejson',
    '/ITEMS.JSON', '/items.json;x', '/items.json/', '/%69tems;x', '/%2569tems', '/%252569tems', '/item%73%20', '/items%3bx', '/items%3Bx', '/items/;x', '/;x/items', '/items%253bx', '/x/%252e%252e/items', '/x%255c..%255citems',
    '/Items/7', '/items/7/', '/items/7;x/', '/items;x/7', '/items%20/7', '/items./7', '/Items/7.json', '/ITEMS/%20', '/ITEMS/.json', '/ITEMS/...', '/items/;/7', '/%ef%bc%a9tems', '/item%c5%bf', '/%c4%b1tems', '/items/7%20/', '/items/7/%20', '/items/7/.%20', '/items%3Fx', '/items%23', '/100%25/', '/100%2525',
    '/Charges/7/refunds', '/CHARGES/%20/refunds', '/charges/%20/7/refunds', '/charges/7/refunds/', '/charges/7/refunds.json', '/charges/7;a=b/refunds;c', '/caf%C3%A9', '/CAF%C3%89', '/cafe%CC%81', '/caf%25C3%25A9', '/Report.XML', '/report.json', '/report', '/FEED.rss', '/traced', '/Traced/',
    '/a', '/A;c', '/ODATA(7)', '/odata(7)/', '/docs/', '/DOCS', '/docs;x', '/openapi.json/', '/OpenAPI.json', '/openapi', '/openapi.yaml', `/items/${'0'.repeat(1001)}`, `/Items/${'0'.repeat(15_000)}`,
    // A way up behind white space, NUL as the end, a plus for a space, escapes beyond what is looked into.
    '/x/..%20/items', '/x/..%09/items', '/x/..%20/other', '/x/%252e%252e/other', '/x/%20..%09/other', '/x/...', '/items%2500', '/items%2500.txt', '/other%2500', '/items+', '/items%2b', '/items%2501', '/items%01', '/items+/7', '/%25252569tems', `/${'%'.repeat(9)}${'25'.repeat(9)}69tems`]
  for (const method of methods) {
    for (const path of spellings) t.notOk(['unlisted', 'document', 'docs'].includes(String(found(table, method, `/api${path}`))), `${method} ${path.slice(0, 60)}: ${String(found(table, method, `/api${path}`)).slice(0, 60)}`)
    for (const path of ['/items', '/items/7', '/charges/7/refunds', '/traced', '/docs', '/openapi.json']) t.not(found(table, method, `/api${path}`), 'unlisted', `${method} ${path} is listed, with some method`)
  }
})

t.test('unlisted: forward lets through what is none', async t => {
  const table = tableOf(listed, { unlisted: 'forward' })
  for (const method of methods) {
    for (const path of ['', '/', '/item', '/itemss', '/items/7/8', '/items-7', '/charges', '/charges/', '/charges/7', '/x.json', '/x/items', '/cafes', '/odata', '/odata()', '/static/app.js', '/%25zz', '/101%25', '/feed', '/a/b', '/d', '/100+', '/x/.', '/x+y/z', `/x/${'y'.repeat(5000)}`]) {
      t.equal(found(table, method, `/api${path}`), 'unlisted', `${method} ${path.slice(0, 60)}`)
      t.equal(found(table, method, `/api${path}?items`), 'unlisted', `${method} ${path.slice(0, 60)}?`)
    }
  }
  const [one, none] = [tableOf(['GET /{any}'], { unlisted: 'forward' }), tableOf(['GET /{any}'])]
  for (const path of ['/api', '/api/', '/api/a/b']) t.strictSame([found(one, 'GET', path), found(none, 'GET', path)], ['unlisted', null], path)
})

t.test('unlisted: forward knows the prefix only as it is written, since what stands behind it goes on', async t => {
  const table = tableOf(listed, { unlisted: 'forward' })
  t.equal(found(table, 'GET', '/api/x'), 'unlisted')
  for (const path of ['/%61pi/x', '/ap%69/x', '/API/x', '/apix', '/ap%69']) t.equal(found(table, 'GET', path), null, path)
  t.strictSame(found(table, 'GET', '/ap%69/items/7'), ['GET /items/{id}', '7'], 'a listed path is written anew')
  const root = tableOf(['GET /items'], { unlisted: 'forward', prefix: '' })
  for (const path of ['/livez', '/LIVEZ', '/readyz/', '/.keygate', '/.keygate/', '/.keygate/me', '/.Keygate/authorize', '/%2ekeygate/x']) t.equal(found(root, 'POST', path), null, `${path} is the gateway's own`)
  t.equal(found(root, 'POST', '/x'), 'unlisted')
})

/** Pairs that an upstream may not keep apart, and requests that match the second as they are written. */
const siblings: Array<[concrete: string, template: string, otherwise: string[], itself: string[]]> = [
  ['/reports/secret', '/reports/{id}', ['/Secret', '/SECRET', '/secret.json', '/secret%20', '/secret.', '/secret;x', '/secret+', '/secret%2500', '/secret%3Fx', '/secret%23', '/%2573ecret', '/secre%ef%bd%94', '/%252e%252e%252freports%252fsecret', '/secret%252f'].map(end => `/reports${end}`), ['/reports/secrets', '/reports/what%3F', '/reports/my-secret', '/reports/json', '/reports/secret-', '/reports/sEcretary', '/reports/a%20b', '/reports/100%25', '/reports/%C3%A9t%C3%A9']],
  ['/users/me', '/users/{id}', ['/users/ME', '/users/me.json', '/users/me%20', '/users/Me.', '/users/me;a=b'], ['/users/mEgan', '/users/m', '/users/me2', '/users/1.json', '/users/me@example.org']],
  ['/items/{id}:cancel', '/items/{id}', ['/items/5:CANCEL', '/items/5:cancel%20', '/items/5:cancel.json', '/items/5%3aCancel'], ['/items/5', '/items/cancel', '/items/5:cancelled', '/items/:cancel']],
  ['/t/c/{x}', '/t/{y}/b', ['/t/C/b', '/t/c%20/b', '/t/c;1/b'], ['/t/d/b', '/t/cc/b']],
  ['/f/{name}.json', '/f/{name}', ['/f/x.JSON', '/f/x.json%20', '/f/x.json.', '/f/x.json;a'], ['/f/x', '/f/x.xml', '/f/xjson', '/f/json']],
  ['/g/{name}.json', '/g/{name}.{type}', ['/g/x.JSON', '/g/x.json;a'], ['/g/x.xml', '/g/x.tar.gz']],
  ['/h/list', '/h/{id}/', ['/h/list/', '/h/LIST/', '/h/list;x/'], ['/h/lists/', '/h/1/']],
  ['/n/{a}/all/{b}', '/n/{a}/{b}/{c}', ['/n/1/ALL/2', '/n/1/all%20/2', '/n/1/all./2'], ['/n/1/some/2', '/n/all/1/2', '/n/1/2/all']],
  ['/o/{a}/b', '/o/{id}', ['/o/1%252fb', '/o/1%255Cb', '/o/1%ef%bc%8fb'], ['/o/1', '/o/1%252fc', '/o/b']],
  ['/admin', '/p/{id}', ['/p/%252e%252e%252fadmin', '/p/%252e%252e%252fADMIN.json'], ['/p/admin', '/p/%252e', '/p/..admin']],
  ['/q', '/q/{id}', ['/q/%20', '/q/...', '/q/+', '/q/%2500', '/q/;x', '/q/%09', '/q/%3F', '/q/%23x'], ['/q/q', '/q/.x', '/q/-']]
]

t.test('A18 a request that matches a template is not another spelling of a more concrete path, whatever the methods and what is not listed', async t => {
  for (const unlisted of ['deny', 'forward'] as const) {
    for (const [concrete, template, otherwise, itself] of siblings) {
      const table = tableOf([`GET ${template}`, `DELETE ${template}`, `GET ${concrete}`, `TRACE ${concrete}`], { unlisted })
      const alone = tableOf([`GET ${template}`, `DELETE ${template}`], { unlisted })
      for (const method of ['GET', 'HEAD', 'DELETE', 'OPTIONS']) {
        for (const path of otherwise) t.equal(found(table, method, `/api${path}`), null, `${method} ${path} beside ${concrete}`)
        for (const path of itself) t.match(table.match(method, `/api${path}`)?.target, { template: { names: [String] }, kind: method === 'OPTIONS' ? 'options' : 'operation' }, `${method} ${path} beside ${concrete}`)
        if (concrete !== '/q') for (const path of [...otherwise, ...itself]) t.ok(alone.match(method, `/api${path}`), `${method} ${path} beside none`)
      }
      // As the document writes it, the concrete one is found; and what it does not list of that path is the template's.
      const plain = concrete.replace(/\{\w+\}/g, 'v')
      t.equal((found(table, 'GET', `/api${plain}`) ?? [])[0], `GET ${concrete}`)
      const matches = new RegExp(`^${template.replace(/\{\w+\}/g, '[^/]+')}$`).test(plain)
      t.equal((found(table, 'DELETE', `/api${plain}`) ?? [])[0], matches ? `DELETE ${template}` : undefined, `DELETE ${plain}`)
    }
  }
})

t.test('A18 templates that only look alike keep what is theirs', async t => {
  const table = tableOf(['GET /f/{a}.{b}', 'GET /f/{a}-{b}', 'GET /f/{one}', 'GET /x/{a}/report.xml', 'GET /x/{a}/{y}', 'GET /x/{a}/report', 'GET /y/{id}.json', 'GET /y/{id}', 'GET /z/{id}', 'GET /z/readme.txt', 'GET /w/{a}/b', 'GET /w/a/{b}', 'GET /m;n/{id}', 'GET /Docs2/{id}'])
  for (const [path, operation] of [['/f/x.z', '/f/{a}.{b}'], ['/f/x', '/f/{one}'], ['/f/x-', '/f/{one}'], ['/x/1/report.xml', '/x/{a}/report.xml'], ['/x/1/report', '/x/{a}/report'], ['/x/1/other.xml', '/x/{a}/{y}'], ['/y/1.json', '/y/{id}.json'], ['/y/1', '/y/{id}'], ['/y/1.xml', '/y/{id}'],
    ['/z/readme', '/z/{id}'], ['/z/readme.md', '/z/{id}'], ['/z/readme.txt', '/z/readme.txt'], ['/w/a/b', '/w/a/{b}'], ['/w/a/B', '/w/a/{b}'], ['/w/1/b', '/w/{a}/b'], ['/m;n/1', '/m;n/{id}'], ['/Docs2/a', '/Docs2/{id}']] as const) {
    t.equal((found(table, 'GET', `/api${path}`) ?? [])[0], `GET ${operation}`, path)
  }
  for (const path of ['/x/1/REPORT.xml', '/x/1/Report', '/y/1.JSON', '/z/README.txt', '/w/A/b']) t.equal(found(table, 'GET', `/api${path}`), null, path)
})

t.test('only templates with such siblings are looked up a second time, and those with odd values', async t => {
  const listed = new ListedPaths()
  const templates = ['/users/{id}', '/users/me', '/users/{id}/posts', '/users/{id}/posts/{post}', '/forms/search', '/forms/{id}/pages', '/v{x}/a', '/v1/b', '/v2/a', '/k/{a}.{b}', '/k/{a}']
  for (const template of templates) listed.add(template)
  t.strictSame(templates.filter(template => listed.standingOf(template)?.hasSiblings), ['/users/{id}', '/v{x}/a', '/k/{a}'])
})

t.test('escapes within escapes take hardly longer than others', async t => {
  const table = tableOf(['GET /items', 'GET /items/{id}', 'GET /items/all'], { unlisted: 'forward' })
  const fastest = (path: string): number => Math.min(...Array.from({ length: 5 }, () => {
    const from = performance.now()
    table.match('GET', path)
    return performance.now() - from
  }))
  // Read one by one, the first takes a thousand times as long as the plain one, and most others hundreds.
  const paths = [`%${'25'.repeat(8000)}`, `%${'25'.repeat(8000)}41`, '%252525'.repeat(2300), `${'%'.repeat(5000)}${'25'.repeat(5000)}`, `${'%'.repeat(3000)}${'3235'.repeat(3000)}`, `${'%2'.repeat(4000)}${'%35'.repeat(2600)}`]
  for (const prefix of ['/api/', '/api/items/']) {
    const plain = fastest(`${prefix}${'%41'.repeat(5300)}`)
    for (const path of paths.filter(isReadable)) {
      const taken = fastest(prefix + path)
      t.ok(taken < 50 * plain, `${prefix}${path.slice(0, 12)}...: ${taken} ms, a plain one ${plain} ms`)
    }
  }
})

function isReadable (path: string): boolean {
  try { return decodeURIComponent(path) !== '' } catch { return false }
}

t.test('a folded path folds to itself, and random spellings of one path to one fold', async t => {
  let state = Number(process.env['KEYGATE_SEED'] ?? 7)
  const random = (below: number): number => { state = (Math.imul(state, 1103515245) + 12345) >>> 0; return (state >>> 8) % below }
  const twist: Array<(segment: string) => string> = [
    segment => segment.toUpperCase(),
    segment => segment.replace(/./, letter => `%${letter.charCodeAt(0).toString(16)}`),
    segment => segment.replace(/.$/, letter => `%25${letter.charCodeAt(0).toString(16)}`),
    segment => `${segment};a=b`,
    segment => `${segment}%20`,
    segment => `${segment}.`,
    segment => `${segment}/`.replace('//', '/')
  ]
  for (let round = 0; round < 2000; round++) {
    const segments = Array.from({ length: 1 + random(4) }, () => Array.from({ length: 1 + random(6) }, () => 'abcxyz0'[random(7)]).join(''))
    const spelled = segments.map(segment => random(2) === 0 ? segment : (twist[random(twist.length)] as typeof twist[number])(segment)).join('/').replaceAll('//', '/')
    const plain = `/${segments.join('/')}`
    if (!fold(`/${spelled}`).includes(plain)) t.fail(`/${spelled} is not folded to ${plain}`)
    if (!fold(plain).includes(plain)) t.fail(`${plain} is not folded to itself`)
  }
})
