import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { paragraphs } from '../src/docs/operation.ts'
import { LiveCatalogue } from '../src/routing/live-catalogue.ts'
import { mainPaths, openCatalogueHouse } from './catalogue-house.ts'

const house = await openCatalogueHouse(t.testdir())
t.teardown(house.stop)
const { ask, upstreamUrl } = house

t.test('<prefix>/openapi.json is the document as it is enforced, without a key', async t => {
  const answer = await ask('/main/openapi.json')
  t.match(answer, { status: 200, headers: { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-cache', 'ratelimit-policy': '900;w=3600', etag: /^"[\w-]{43}"$/ } })
  const document = JSON.parse(answer.body) as { servers: object, paths: Record<string, { get: Record<string, object> }> }
  t.strictSame(document.servers, [{ url: 'https://api.example.org/main' }])
  t.strictSame(Object.keys(document.paths), mainPaths)
  t.match(document.paths['/forms/{formId}/export']?.get['x-keygate'], { access: 'key', scopes: ['forms'], policies: [{ name: 'default', limit: 1000 }, { name: 'export', limit: 1 }] })
  t.match(document.paths['/forms/{formId}/files']?.get['x-keygate'], { access: 'key', optIn: ['files'] })
  t.match(document.paths['/both']?.get['x-keygate'], { access: 'key', forwardsBearer: true, policies: [{ name: 'default' }], anonymousPolicies: [{ name: 'anonymous', limit: 900, partition: 'address' }] }, 'both of who may call')
  t.notOk('anonymousPolicies' in (document.paths['/forms/{formId}']?.get['x-keygate'] ?? {}))
  t.match(document.paths['/people']?.get['x-keygate'], { access: 'other', forwardsBearer: true })
  t.match(document.paths['/status']?.get['x-keygate'], { access: 'public' })
  t.notOk(answer.body.includes(upstreamUrl.slice('http://'.length)), 'the upstream is not in it')
  t.match(answer.body, 'Ask https://api.example.org/main.')
  t.equal((await ask('/main/openapi.json', [], { method: 'POST' })).status, 404)
  t.match(JSON.parse((await ask('/hostile/openapi.json')).body), { servers: [{ url: '/hostile' }] }, 'several APIs by prefix')
})

t.test('document and page: a strong tag, 304 for who holds it, HEAD without a body', async t => {
  for (const path of ['/main/openapi.json', '/main/docs']) {
    const { headers: { etag = '' }, body } = await ask(path)
    for (const held of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const answer = await ask(path, ['if-none-match', held])
      t.match(answer, { status: 304, body: '', headers: { etag, 'cache-control': 'no-cache' } }, held)
    }
    t.equal((await ask(path, ['if-none-match', '"other"'])).status, 200)
    const head = await ask(path, [], { method: 'HEAD' })
    t.match(head, { status: 200, body: '', headers: { etag, 'content-length': String(Buffer.byteLength(body)) } })
  }
})

/** Elements and attributes that the page is made of: none runs anything or loads anything. */
const elements = new Set('html head meta title style body header h1 h2 h3 h4 p a main ul li nav article dl dt dd code strong wbr pre span footer'.split(' '))
const attributes = new Set('lang charset name content href id class aria-label aria-labelledby'.split(' '))

t.test('<prefix>/docs says how to call, without a script; hostile texts stay texts', async t => {
  const { status, headers, body } = await ask('/main/docs')
  t.match([status, headers['content-type'], headers['x-content-type-options']], [200, 'text/html; charset=utf-8', 'nosniff'])
  const text = body.replace(/<style>.*?<\/style>/s, '').replaceAll('<wbr>', '').replace(/<[^>]*>/g, ' ').replaceAll('&quot;', '"').replaceAll('&lt;', '<').replace(/\s+/g, ' ')
  for (const part of ['The user name is the id of your project', 'curl --user "$PROJECT_ID:$KEY" "https://api.example.org/main/forms/$PROJECT_ID"', 'curl --header "x-api-key: $KEY"',
    'GET /main/forms/{formId}', 'Read a form', 'the id of the key\'s project', 'Which form.', 'key: Basic or x-api-key', 'Not open to keys', 'Open to everybody', '1 in 3600 seconds per key (export)', 'must be given by name',
    'key: Basic or x-api-key; or Bearer, checked by the API', '1000 in 3600 seconds per key (default). Without a key: 900 in 3600 seconds per address (anonymous)']) {
    t.ok(text.includes(part.replaceAll('\'', '&#39;')), part)
  }
  t.match(body, '<a href="/main/openapi.json">')
  t.match(body, /^<!DOCTYPE html>\n<html lang="en">/)
  t.match(body, '<meta name="viewport" content="width=device-width, initial-scale=1">')
  const levels = [...body.matchAll(/<h(\d)/g)].map(([, level]) => Number(level))
  t.equal(levels.filter(level => level === 1).length, 1)
  t.ok(levels.every((level, i) => i === 0 ? level === 1 : level <= (levels[i - 1] as number) + 1), 'no level is left out')
  t.notOk(body.includes(upstreamUrl.slice('http://'.length)))

  for (const path of ['/main/docs', '/hostile/docs']) {
    const page = await ask(path)
    const style = /<style>(.*?)<\/style>/s.exec(page.body)?.[1] ?? ''
    t.match(page.headers['content-security-policy'], 'default-src \'none\'; style-src \'sha256-')
    t.ok(page.headers['content-security-policy']?.includes(`'sha256-${createHash('sha256').update(style).digest('base64')}'`), 'the style is the one that the policy allows')
    for (const [, name = '', rest = ''] of page.body.matchAll(/<([a-z][\w-]*)([^>]*)>/gi)) {
      const names = [...rest.matchAll(/([\w-]+)="[^"<>]*"/g)].map(([, attribute]) => attribute as string)
      if (!elements.has(name) || names.some(attribute => !attributes.has(attribute)) || rest.replace(/\s+[\w-]+="[^"<>]*"/g, '') !== '') t.fail(`${path}: <${name}${rest}>`)
    }
  }
  const { body: page } = await ask('/hostile/docs')
  t.match(page, '&lt;script&gt;alert(1)&lt;/script&gt;')
  t.notOk(page.includes('\u0000'))
  t.match(page, '\\$(id)', 'a shell runs nothing of a copied line')
})

t.test('the page\'s colours can be read in either scheme (WCAG 2.2, 1.4.3)', async t => {
  const luminance = (colour: string): number => {
    const [r, g, b] = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16) / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4) as [number, number, number]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const { body } = await ask('/main/docs')
  const schemes = [...body.matchAll(/:root \{([^}]*)\}/g)].map(([, rules = '']) => Object.fromEntries([...rules.matchAll(/--(\w+): (#\w{6})/g)].map(([, name, colour]) => [name, colour])) as Record<string, string>)
  t.equal(schemes.length, 2)
  for (const scheme of schemes) {
    for (const text of ['text', 'quiet', 'link', 'closed', 'open']) {
      for (const ground of ['ground', 'raised']) {
        const [light, dark] = [luminance(scheme[text] as string), luminance(scheme[ground] as string)].sort((a, b) => b - a) as [number, number]
        t.ok((light + 0.05) / (dark + 0.05) >= 4.5, `${text} on ${ground}`)
      }
    }
  }
})

t.test('a text\'s Markdown: code and strong emphasis are shown so, what they hold is escaped, and the rest stays as it is written', async t => {
  const shown = (text: string): string => paragraphs(text).map(({ text }) => text).join('')
  t.equal(shown('a `b<c` **d & `e`** f\n\n**g** *h* ** i** `j'), '<p>a <code>b&lt;c</code> <strong>d &amp; `e`</strong> f</p><p><strong>g</strong> *h* ** i** `j</p>')
  t.equal(shown('**<b>"x"**'), '<p><strong>&lt;b&gt;&quot;x&quot;</strong></p>')
})

t.test('page and document are made once: a request sends what is there', async t => {
  const dir = t.testdir({ 'apis.yaml': readFileSync(house.stack.apisFile, 'utf8') })
  const live = await LiveCatalogue.open({ file: `${dir}/apis.yaml` })
  const { apis } = live.table.catalogue
  for (const api of apis) {
    const { docs, document } = live.textsOf(api)
    t.equal(live.textsOf(api).docs.body, docs.body, 'the very bytes')
    t.equal((await ask(`${api.prefix}/docs`)).headers['etag'], docs.etag)
    t.equal((await ask(`${api.prefix}/openapi.json`)).headers['etag'], document.etag)
    t.strictSame(api.document, {}, 'what they were made of is not kept')
  }
  t.throws(() => live.textsOf({ ...apis[0]! }), /not of this catalogue/)
})
