import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { startNginx } from '../src/index.ts'
import { hostOf, keptAlive, send as sendTo, shippedConfig, type Answer, type Call } from './behind-nginx.ts'
import { basic, openHouse } from './house.ts'

// Which fields pass an nginx that only asks a gateway, and how large all may be: before an API that shows what reaches it.
const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-fields-'))
const short = Array.from({ length: 150 }, (_, i) => `scope-${i}`.padEnd(35, '-'))
const long = Array.from({ length: 300 }, (_, i) => `scope-${i}-`.padEnd(200, 'x'))
const responses = { 200: { description: 'ok' } }
const keyed = [{ key: [] }, { basic: [] }]
const api = join(dir, 'api.json')
writeFileSync(api, JSON.stringify({
  openapi: '3.0.3',
  info: { title: 'Fields', version: '1' },
  paths: {
    '/things': { get: { security: keyed, tags: [short[0], long[0]], responses }, post: { security: keyed, tags: [short[0]], responses } },
    '/both': { get: { security: [{ key: [], token: [] }], tags: [short[0]], responses } },
    '/open': { get: { security: [], responses } },
    '/more': { get: { security: keyed, tags: [...short, ...long], responses } }
  },
  components: { securitySchemes: { key: { type: 'apiKey', in: 'header', name: 'X-API-Key' }, basic: { type: 'http', scheme: 'basic' }, token: { type: 'http', scheme: 'bearer' } } }
}))
const other = join(dir, 'other.json')
writeFileSync(other, JSON.stringify({ openapi: '3.0.3', info: { title: 'Other', version: '1' }, paths: { '/things': { get: { security: [{ key: [] }], responses } } }, components: { securitySchemes: { key: { type: 'apiKey', in: 'header', name: 'X-Other-Key' } } } }))

/** The API's next answers: their fields, raw pairs; or none. */
let said: string[] | 'hangs up' | 'is silent' = []
const reached: Array<{ method: string, url: string, fields: string[][], length: number }> = []
const upstream = createServer({ maxHeaderSize: 200_000 }, (request, response) => {
  const { method = '', url = '', rawHeaders } = request
  const one = { method, url, fields: rawHeaders.flatMap((name, i) => i % 2 === 0 ? [[name.toLowerCase(), rawHeaders[i + 1] ?? '']] : []), length: 0 }
  reached.push(one)
  request.on('data', (chunk: Buffer) => { one.length += chunk.length }).on('end', () => {
    if (said === 'hangs up') request.socket.destroy()
    else if (said !== 'is silent') response.writeHead(200, said).end('ok')
  })
})
await new Promise<void>(resolve => { upstream.listen(0, '127.0.0.1', resolve) })
const address = `127.0.0.1:${(upstream.address() as AddressInfo).port}`
const entry = (name: string, openapi: string): string => `
  - name: ${name}
    prefix: /${name}
    upstream: http://${address}
    openapi: ${openapi}
    scopes: tags
    policies: [{ name: default, limit: 100000, window: 60s }]
    anonymousPolicies: [{ name: anonymous, limit: 100000, window: 60s, partition: address }]`
const house = await openHouse({ gateways: 1, apis: `apis:${entry('api', api)}${entry('other', other)}\n`, env: { gateway: { KEYGATE_TRUST_PROXY: '127.0.0.1', KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_IMPORT_FORMS: 'uuid' } } })
const gateway = house.stack.gateways[0]?.url ?? ''
const start = async (file: 'balancer.conf' | 'forward-auth.conf', edit = (config: string): string => config) => await startNginx({
  config: port => edit(shippedConfig(['gateways.conf', file], { KEYGATE_LISTEN: `127.0.0.1:${port}`, KEYGATE_API: address, KEYGATE_GATEWAY_1: hostOf(gateway), KEYGATE_GATEWAY_2: hostOf(gateway), KEYGATE_GATEWAY_3: hostOf(gateway) }))
})
const [nginx, balancer] = await Promise.all([start('forward-auth.conf'), start('balancer.conf')])
t.teardown(async () => {
  keptAlive.destroy()
  await Promise.all([nginx.stop(), balancer.stop(), house.stop()])
  upstream.closeAllConnections()
  upstream.close()
  rmSync(dir, { recursive: true })
})

const send = async (call: Call, base = nginx.url): Promise<Answer & { code: string | undefined }> => {
  const answer = await sendTo(base, call)
  return { ...answer, code: answer.headers['content-type'] === 'application/problem+json' ? (JSON.parse(answer.body) as { code: string }).code : undefined }
}
/** What reaches the API of a request that is admitted. */
async function pass (call: Call): Promise<typeof reached[number]> {
  reached.length = 0
  const { status, body } = await send(call)
  if (status !== 200 || reached.length !== 1) throw new Error(`${call.path ?? ''} ${(call.headers ?? []).join(' ')}: ${status} ${body}`)
  return reached[0] as typeof reached[number]
}
const valuesOf = (fields: string[][], name: string): string[] => fields.flatMap(([found, value = '']) => found === name ? [value] : [])
const key = await house.createKey()

t.test('a key with many long scopes passes; one with more than a header may carry is told so, and no gateway is taken for lost', async t => {
  const make = async (scopes: string[]): Promise<string[]> => ['X-API-Key', (await house.createKey({ allowedForAll: false, scopes })).secret]
  for (const scopes of [short, long.slice(0, 290)]) {
    const { fields } = await pass({ path: '/api/things', headers: await make(scopes) })
    t.strictSame((valuesOf(fields, 'x-keygate-scopes')[0] ?? '').split(' ').map(decodeURIComponent).sort(), [...scopes].sort(), `${scopes.length} of ${scopes[0]?.length ?? 0} characters`)
  }
  const headers = await make(long)
  for (let i = 0; i < 3; i++) t.match(await send({ path: '/api/things', headers }), { status: 403, code: 'scopes_too_long' })
  await pass({ path: '/api/things', headers: ['X-API-Key', key.secret] })
})

t.test('headers that are too large are 431 as at the gateway, never 503', async t => {
  const fields = (bytes: number, each: number): string[] => Array.from({ length: Math.floor(bytes / each) }, (_, i) => [`X-Filler-${i}`, 'a'.repeat(each - 20)]).flat()
  for (const base of [nginx.url, balancer.url]) {
    for (const [bytes, each] of [[7000, 7000], [13_000, 13_000], [13_500, 500]] as const) t.match(await send({ path: '/api/things', headers: ['X-API-Key', key.secret, ...fields(bytes, each)] }, base), { status: 200 }, `${bytes}`)
    for (const [bytes, each] of [[15_500, 15_500], [16_000, 1000], [17_000, 1000], [20_000, 500], [20_000, 10_000], [60_000, 1000]] as const) t.match(await send({ path: '/api/things', headers: ['X-API-Key', key.secret, ...fields(bytes, each)] }, base), { status: 431, code: 'headers_too_large' }, `${bytes}`)
    t.match(await send({ path: `/api/things?q=${'a'.repeat(13_000)}`, headers: ['X-API-Key', key.secret] }, base), { status: 200 })
    t.match(await send({ path: `/api/things?q=${'a'.repeat(15_000)}`, headers: ['X-API-Key', key.secret] }, base), { status: 414, code: 'target_too_long' })
  }
  t.match(await send({ path: '/api/things', headers: fields(17_000, 1000) }, gateway), { status: 431 })
})

t.test('GX-08: only named fields go on: nothing that a client says of itself, no other method or target, no hop-by-hop field, no key', async t => {
  const spoofed = ['X-Consumer-ID', 'X-Consumer-Groups', 'X-Credential-Identifier', 'X-User-Id', 'X-User', 'X-Forwarded-User', 'X-Forwarded-Port', 'X-Forwarded-Prefix', 'X-Forwarded-Method', 'X-Forwarded-Uri', 'X-Forwarded', 'Forwarded', 'Via', 'X-Real-IP', 'X-Client-IP', 'True-Client-IP', 'X-Keygate-Project', 'X-Keygate-Key', 'X-Keygate-Scopes', 'X-Keygate-Anything', 'X_Keygate_Project',
    'X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override', 'X-Original-URL', 'X-Original-URI', 'X-Original-Method', 'X-Original-Host', 'X-Rewrite-URL', 'Proxy-Authorization', 'TE', 'Upgrade', 'X-Other-Key', 'Api-Key', 'X-Auth-Token', 'X-Mine']
  const kept = { accept: 'text/html', 'accept-language': 'en', 'content-type': 'text/plain', cookie: 'a=1; b=2', 'if-none-match': '"x"', 'idempotency-key': 'once', range: 'bytes=0-1', referer: 'https://x.example/', 'user-agent': 'test', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' }
  for (const casing of [(name: string) => name, (name: string) => name.toUpperCase()]) {
    for (const [path, credentials] of [['/api/open', []], ['/api/things', ['X-API-Key', key.secret]], ['/api/things', basic(house.projectId, key.secret)]] as const) {
      const { method, url, fields } = await pass({ path, headers: [...credentials, ...spoofed.flatMap(name => [casing(name), 'spoofed']), ...Object.entries(kept).flat()] })
      t.strictSame([method, url], ['GET', path])
      t.strictSame(fields.filter(([, value]) => value === 'spoofed'), [])
      for (const [name, value] of Object.entries(kept)) t.strictSame(valuesOf(fields, name), [value], name)
      t.strictSame(valuesOf(fields, 'x-keygate-project'), credentials.length === 0 ? [] : [house.projectId])
      const allowed = new Set([...Object.keys(kept), 'host', 'connection', 'x-keygate-project', 'x-keygate-key', 'x-keygate-scopes', 'x-request-id', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host'])
      t.strictSame(fields.flatMap(([name = '']) => allowed.has(name) ? [] : [name]), [])
    }
  }
  const body = 'x'.repeat(50_000)
  for (const framing of [['content-length', String(body.length)], ['transfer-encoding', 'chunked']]) t.match(await pass({ method: 'POST', path: '/api/things', headers: ['X-API-Key', key.secret, ...framing], body }), { method: 'POST', length: body.length })
})

t.test('P4: no key reaches the API: in fields that are not named it stays, elsewhere it is refused', async t => {
  const imported = crypto.randomUUID()
  const b64 = (secret: string): string => Buffer.from(`${house.projectId}:${secret}`).toString('base64')
  const inText = (secret: string): string[] => [secret, b64(secret)]
  for (const secret of [key.secret, imported]) {
    for (const headers of [['X-API-Key', secret], ['X-Other-Key', secret], ['Authorization', `Basic ${b64(secret)}`], ['authorization', `bAsic  ${b64(secret)}`]]) {
      const text = JSON.stringify(await pass({ path: '/api/open', headers }))
      t.notOk(inText(secret).some(part => text.includes(part)), headers[0] ?? '')
    }
    t.match(await send({ path: '/api/open', headers: ['Authorization', `Bearer x, Basic ${b64(secret)}`] }), { status: 400, code: 'key_in_header' })
  }
  for (const headers of [['Authorization', `Bearer ${key.secret}`], ['Cookie', `key=${key.secret}`], ['Referer', `https://x.example/?k=${key.secret}`], ['User-Agent', key.secret], ['X-Mine', key.secret]]) t.match(await send({ path: '/api/open', headers }), { status: 400, code: 'key_in_header' }, headers[0] ?? '')
  t.match(await send({ path: `/api/open?k=${key.secret.replaceAll('_', '%5F')}` }), { status: 400, code: 'key_in_query' })
})

t.test('an operation that needs a Bearer beside the key: the API gets it, and who leaves it out is asked for it', async t => {
  const { fields } = await pass({ path: '/api/both', headers: ['X-API-Key', key.secret, 'Authorization', 'Bearer for.the.API'] })
  t.strictSame([valuesOf(fields, 'authorization'), valuesOf(fields, 'x-keygate-key'), valuesOf(fields, 'x-api-key')], [['Bearer for.the.API'], [key.id], []])
  for (const base of [nginx.url, gateway]) {
    t.match(await send({ path: '/api/both', headers: ['X-API-Key', key.secret] }, base), { status: 401, code: 'bearer_missing', headers: { 'www-authenticate': 'Bearer realm="Keygate"' } })
    t.match(await send({ path: '/other/things' }, base), { status: 401, headers: { 'www-authenticate': 'ApiKey realm="Keygate", header="x-other-key"' } })
    t.match(await send({ path: '/api/both', headers: [...basic(house.projectId, key.secret)] }, base), { status: 403, code: 'carrier_not_offered' })
  }
})

t.test('what the API says of limits or of a secret\'s end is not told beside what the gateway says', async t => {
  t.teardown(() => { said = [] })
  const limits = ['RateLimit', 'RateLimit-Policy', ...['', 'X-'].flatMap(start => ['Limit', 'Remaining', 'Reset'].map(part => `${start}RateLimit-${part}`)), 'x-ratelimit', 'X-RateLimit-Policy', 'X-RateLimit-Used', 'X-RateLimit-Limit-Minute', 'X-RateLimit-Remaining-Minute', 'X-RateLimit-Reset-After', 'X-RateLimit-Retry-After', 'X-Request-Id']
  const end = { Deprecation: '@1', Sunset: 'Sat, 01 Jan 2050 00:00:00 GMT' }
  said = [...limits.flatMap(name => [name, 'the API\'s']), ...Object.entries(end).flat(), 'X-Own', 'the API\'s', 'X-Rate', 'the API\'s']
  const rotated = await house.createKey()
  await house.change(rotated, 'POST', '/rotate', { gracePeriodSeconds: 3600 })
  for (const base of [nginx.url, gateway]) {
    const [fresh, retiring] = [await send({ path: '/api/things', headers: ['X-API-Key', key.secret] }, base), await send({ path: '/api/things', headers: ['X-API-Key', rotated.secret] }, base)]
    for (const { status, rawHeaders, headers } of [fresh, retiring]) {
      t.equal(status, 200)
      t.strictSame(rawHeaders.filter((_, i) => rawHeaders[i + 1] === 'the API\'s').map(name => name.toLowerCase()), ['x-own', 'x-rate'])
      t.match(headers, { ratelimit: /^limit=/, 'ratelimit-policy': /;w=/ })
    }
    const endOf = ({ rawHeaders }: Answer): string[] => rawHeaders.filter((_, i) => /^(?:deprecation|sunset)$/i.test(rawHeaders[i - 1] ?? ''))
    t.strictSame(endOf(fresh), Object.values(end), 'of the operation, since the secret does not end')
    t.match(endOf(retiring).length, 2)
    t.notOk(endOf(retiring).some(value => Object.values(end).includes(value)), 'of the secret alone')
  }
  t.notMatch(nginx.log(), 'headers_hash')
})

t.test('R17: what the API does not answer, or breaks off later, bears numbers and request id, for it was counted', async t => {
  t.teardown(() => { said = [] })
  const hasty = await start('forward-auth.conf', config => config.replace('proxy_read_timeout 300s', 'proxy_read_timeout 1s'))
  t.teardown(hasty.stop)
  const { id, secret } = await house.createKey({ policies: [{ name: 'few', limit: 20, windowSeconds: 3600 }] })
  await house.change({ id, secret } as Awaited<ReturnType<typeof house.createKey>>, 'POST', '/rotate', { gracePeriodSeconds: 3600 })
  const told = { 'ratelimit-policy': '20;w=3600', 'x-request-id': 'req-9', 'cache-control': 'no-store', deprecation: /^@/, sunset: /GMT$/ }
  const call = { path: '/api/things', headers: ['X-API-Key', secret, 'X-Request-Id', 'req-9'] }
  said = 'hangs up'
  t.match(await send({ ...call, method: 'POST' }), { status: 502, code: 'upstream_unreachable', headers: { ...told, ratelimit: /^limit=20, remaining=19, / } })
  t.match(await send(call, gateway), { status: 502, headers: { ...told, ratelimit: /^limit=20, remaining=18, / } }, 'as the gateway does')
  said = 'is silent'
  t.match(await send(call, hasty.url), { status: 504, code: 'upstream_timeout', headers: { ...told, ratelimit: /^limit=20, remaining=17, / } })
  said = []
  const broken = await exchange(nginx.url, `POST /api/things HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nX-API-Key: ${secret}\r\nX-Request-Id: req-9\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`)
  t.match(broken, /^HTTP\/1\.1 400 [^]*"code":"malformed_request"/)
  t.match(broken, /\r\nratelimit: limit=20, remaining=16, [^]*\r\nx-request-id: req-9\r\n/i)
  t.match(await send({ path: '/api/open', headers: ['X-Request-Id', 'req-9'] }), { status: 200, headers: { 'x-request-id': 'req-9' } })
})

t.test('what nginx refuses by itself is a problem too', async t => {
  const host = 'Host: a.example\r\nConnection: close\r\n'
  const cases: Array<[name: string, status: number, code: string, bytes: string]> = [
    ['an escape that is none', 400, 'malformed_request', `GET /%zz HTTP/1.1\r\n${host}\r\n`],
    ['NUL', 400, 'malformed_request', `GET /%00 HTTP/1.1\r\n${host}\r\n`],
    ['out of the root', 400, 'malformed_request', `GET /../x HTTP/1.1\r\n${host}\r\n`],
    ['TRACE', 405, 'method_not_allowed', `TRACE /api/open HTTP/1.1\r\n${host}\r\n`],
    ['two Authorization lines', 400, 'malformed_request', `GET /api/open HTTP/1.1\r\n${host}Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n`],
    ['a length and a coding', 400, 'malformed_request', `POST /api/things HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nab\r\n0\r\n\r\n`],
    ['another coding', 501, 'malformed_request', `POST /api/things HTTP/1.1\r\n${host}Transfer-Encoding: gzip\r\n\r\n`],
    ['no Host', 400, 'malformed_request', 'GET /api/open HTTP/1.1\r\nConnection: close\r\n\r\n'],
    ['two Hosts', 400, 'malformed_request', `GET /api/open HTTP/1.1\r\n${host}Host: b.example\r\n\r\n`],
    ['absolute form with another Host', 400, 'malformed_request', `GET http://b.example/api/open HTTP/1.1\r\n${host}\r\n`],
    ['absolute form with another port', 400, 'malformed_request', `GET http://a.example:81/api/open HTTP/1.1\r\n${host}\r\n`],
    ['no version', 400, 'malformed_request', 'GET / HTTP/x\r\n\r\n'],
    ['another version', 505, 'invalid_version', `GET / HTTP/3.1\r\n${host}\r\n`],
    ['no address', 404, 'not_found', `GET /.keygate/problem HTTP/1.1\r\n${host}\r\n`]
  ]
  for (const { url } of [nginx, balancer]) {
    reached.length = 0
    for (const [name, status, code, bytes] of cases) {
      const text = await exchange(url, bytes)
      const [head = '', body = ''] = text.split('\r\n\r\n')
      t.match(head, new RegExp(`^HTTP/1\\.1 ${status} [^]*content-type: application/problem\\+json`, 'i'), name)
      t.match(JSON.parse(body), { status, code }, name)
      if (status === 405) t.match(head, /\r\nallow: GET, /i)
    }
    t.strictSame(reached, [])
    t.match(await exchange(url, `GET http://A.example/api/open HTTP/1.1\r\n${host}\r\n`), /^HTTP\/1\.1 200 /, 'our own host in absolute form')
  }
  upstream.closeAllConnections()
  await new Promise(resolve => { upstream.close(resolve) })
  t.match(await send({ path: '/api/open' }), { status: 502, code: 'upstream_unreachable' })
})

/** Sends bytes and takes what comes until the connection is closed. */
async function exchange (url: string, bytes: string): Promise<string> {
  const { hostname, port } = new URL(url)
  return await new Promise((resolve, reject) => {
    let text = ''
    connect(Number(port), hostname).setEncoding('latin1').on('data', (chunk: string) => { text += chunk }).on('error', reject).on('close', () => { resolve(text) }).write(bytes)
  })
}
