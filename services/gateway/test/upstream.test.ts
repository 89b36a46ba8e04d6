import { once } from 'node:events'
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { call, openGatewayHouse, type Answer } from './house.ts'
import { during, exchange, isProblem, ok, plain, rawApi, rawClient, say, startRawUpstream, type Behaviour, type Seen } from './raw.ts'

const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-upstream-'))
t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
const upstream = await startRawUpstream()
t.teardown(upstream.close)
const house = await openGatewayHouse(() => `apis:${rawApi(dir, upstream.url)}`, { KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_MAX_EVENT_LOOP_DELAY_MS: '0' })
t.teardown(house.stop)
const [one] = house.gateways as [string]
const project = await house.createProject()
const { id: keyId, secret } = await project.createKey()
const keyed = `X-API-Key: ${secret}\r\n`

const open = '/raw/open/1'
const things = '/raw/things/1'
const get = async (path = open, headers: string[] = [], gateway = one): Promise<Answer> => await call(gateway, { path, headers })

t.test('B3-13: 100 Continue comes after admission alone, the body passes, another expectation is 417', async t => {
  const head = (headers: string, expect = '100-continue', version = '1.1', length = 4): string => `POST ${things} HTTP/${version}\r\nHost: a\r\n${headers}Expect: ${expect}\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n`
  const body = 'one of two million bytes\n'.repeat(80_000)
  const admitted = await during(upstream, seen => { seen.whole.then(() => { ok('thanks')(seen) }, t.fail) }, async () => {
    const client = rawClient(one, head(keyed, '100-continue', '1.1', body.length))
    await client.until('HTTP/1.1 100 Continue\r\n\r\n')
    client.socket.write(body)
    return await client.closed
  })
  t.match(admitted.result.text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 [^]*thanks$/)
  t.equal(admitted.seen[0]?.bodyBytes, body.length)
  t.ok(body.endsWith(admitted.seen[0]?.body || 'nothing'))
  t.strictSame(admitted.seen[0]?.all('expect'), [], 'the expectation was ours to meet')

  const refused = await during(upstream, ok(), async () => await exchange(one, head('X-API-Key: wrong\r\n')))
  t.match(refused.result.text, /^HTTP\/1\.1 401 /)
  t.notMatch(refused.result.text, '100 Continue')
  const odd = await during(upstream, ok(), async () => await exchange(one, head(keyed, '200-ok')))
  t.ok(isProblem(odd.result, 417, 'expectation_failed'))
  t.equal(refused.seen.length + odd.seen.length, 0)
  const old = await during(upstream, ok(), async () => await exchange(one, `${head(keyed, '100-continue', '1.0')}body`))
  t.match(old.result.text, /^HTTP\/1\.1 200 /, 'HTTP/1.0 has no interim answers (RFC 9110 section 15.2)')
})

t.test('B3-14: interim answers of the upstream are dropped', async t => {
  const { result } = await during(upstream, ({ socket }) => {
    socket.write('HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
  }, async () => await exchange(one, plain(open)))
  t.match(result.text, /^HTTP\/1\.1 200 [^]*ok$/)
  t.notMatch(result.text, /103|preload/)
  const unasked = await during(upstream, say('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'), async () => await exchange(one, plain(open, { method: 'DELETE' })))
  t.ok(isProblem(unasked.result, 502, 'upstream_unreachable'), 'a 100 that nobody asked for is a fault to undici: known, and an answer all the same')
  t.equal(unasked.seen.length, 1)
})

t.test('B3-15: what is not HTTP is 502, once begun it is cut; the gateway goes on', async t => {
  const malformed: Record<string, string> = {
    'not HTTP': 'hello there\r\n\r\n',
    'a length that is none': 'HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok',
    'two lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!',
    'length and coding': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    'a lone CR in a header': 'HTTP/1.1 200 OK\r\nX-A: a\rX-B: b\r\nContent-Length: 2\r\n\r\nok',
    'NUL in a header': 'HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok',
    'another control character': 'HTTP/1.1 200 OK\r\nX-A: a\x01b\r\nContent-Length: 2\r\n\r\nok',
    DEL: 'HTTP/1.1 200 OK\r\nX-A: a\x7fb\r\nContent-Length: 2\r\n\r\nok',
    'a name with a space': 'HTTP/1.1 200 OK\r\nX A: a\r\nContent-Length: 2\r\n\r\nok',
    'no name': 'HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 2\r\n\r\nok',
    'a status of one digit': 'HTTP/1.1 2 OK\r\nContent-Length: 2\r\n\r\nok',
    'a status of four digits': 'HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok',
    'headers without end': `HTTP/1.1 200 OK\r\nX-A: ${'a'.repeat(100_000)}\r\nContent-Length: 2\r\n\r\nok`
  }
  for (const [name, bytes] of Object.entries(malformed)) {
    const { result } = await during(upstream, say(bytes, 'end'), async () => await exchange(one, plain(open)))
    t.match(result.text, /^HTTP\/1\.1 502 [^]*"code":"upstream_(?:malformed|unreachable)"/, name)
  }
  const badChunk = await during(upstream, say('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nmore\r\n'), async () => await exchange(one, plain(open)))
  t.match(badChunk.result.text, /^HTTP\/1\.1 200 /)
  t.notMatch(badChunk.result.text, '\r\n0\r\n\r\n', 'cut')
  const tooMuch = await during(upstream, say('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'), async () => await exchange(one, plain(open)))
  t.match(tooMuch.result.text, /\r\n\r\nok$/)
  t.equal((await during(upstream, ok('mine'), async () => await get())).result.body, 'mine', 'what nobody asked for answers nobody')
})

t.test('B3-15 GX-04: fields of the upstream\'s hop and its own RateLimit stay there, all others pass as they are', async t => {
  const { result } = await during(upstream, ok('ok', ['Connection: keep-alive, X-Hop', 'Connection: keep-alive', 'X-Hop: 1', 'Keep-Alive: timeout=5', 'Proxy-Authenticate: Basic', 'Trailer: X-T', 'Upgrade: h2c', 'RateLimit: limit=1, remaining=0, reset=1', 'RateLimit-Policy: 1;w=1', 'X-RateLimit-Limit: 1',
    'X-Request-Id: theirs', 'Set-Cookie: a=1; Path=/', 'Set-Cookie: b=2', 'X-Bytes: caf\xe9', 'X-Empty:', 'ETag: "1"', ''].join('\r\n')), async () => await exchange(one, plain(things, { headers: keyed })))
  const head = result.text.split('\r\n\r\n')[0] ?? ''
  t.notMatch(head, /^(?:x-hop|keep-alive|proxy-authenticate|trailer|upgrade|x-ratelimit-limit):/im)
  t.notMatch(head, 'theirs')
  t.match(head, /^Set-Cookie: a=1; Path=\/\r\nSet-Cookie: b=2\r$/m, 'two cookies stay two lines')
  t.match(head, 'X-Bytes: caf\xe9')
  t.match(head, /^X-Empty: ?\r$/m)
  t.strictSame(head.match(/^ratelimit: .*$/gim), [head.match(/^ratelimit: limit=\d+, remaining=\d+, reset=\d+$/im)?.[0]], 'one RateLimit, ours')
})

t.test('B3-16: an upstream\'s own 429 and 503 pass as they are, and count as its answers', async t => {
  const refused = await house.metric('gateway_refusals_total')
  for (const status of [429, 503]) {
    const { result } = await during(upstream, ({ socket }) => { socket.write(`HTTP/1.1 ${status} Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy`) }, async () => await get(things, ['x-api-key', secret]))
    t.match([result.status, result.headers['retry-after'], result.body], [status, '7', 'busy'])
    t.match(result.headers['ratelimit'], /^limit=100000, remaining=[1-9]/, 'which says that the limit is not what refused')
  }
  t.equal(await house.metric('gateway_refusals_total'), refused)
})

t.test('GX-08 A4: who a request is from, the gateway says alone, however a client writes it', async t => {
  const spoofed = ['X-Keygate-Project', 'X-Keygate-Key', 'X-Keygate-Scopes', 'X-Consumer-ID', 'X-Credential-Identifier', 'X-User-Id', 'X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Host', 'X-Forwarded-Port', 'X-Forwarded-Prefix', 'Forwarded', 'X-Real-IP', 'X-Request-Id', 'Via']
  const casings = [(name: string) => name, (name: string) => name.toLowerCase(), (name: string) => name.toUpperCase(), (name: string) => [...name].map((letter, i) => i % 2 === 0 ? letter.toLowerCase() : letter.toUpperCase()).join('')]
  for (const casing of casings) {
    const headers = spoofed.map(name => `${casing(name)}: spoofed id\r\n`).join('')
    for (const connection of ['keep-alive', spoofed.map(casing).join(', ')]) {
      const ours = { 'x-keygate-project': project.id, 'x-keygate-key': keyId, 'x-keygate-scopes': '*', 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'http', 'x-forwarded-host': 'gateway', 'x-request-id': /^[0-9a-f-]{36}$/ }
      const { result, seen: [seen] } = await during(upstream, ok(), async () => {
        const client = rawClient(one, `GET ${things} HTTP/1.1\r\nHost: gateway\r\n${keyed}${headers}Connection: ${connection}\r\n\r\n`)
        const text = await client.until('\r\n\r\nok')
        client.socket.destroy()
        return text
      })
      t.match(result, /^HTTP\/1\.1 200 /)
      for (const name of spoofed) {
        const wanted = (ours as Record<string, string | RegExp>)[name.toLowerCase()]
        t.match(seen?.all(name), wanted === undefined ? [] : [wanted], `${casing(name)}, Connection: ${connection.slice(0, 20)}`)
        t.equal(seen?.all(name).length, wanted === undefined ? 0 : 1)
      }
      t.strictSame(seen?.all('x-api-key'), [], 'the key stays here')
    }
  }
  const { seen: [anonymous] } = await during(upstream, ok(), async () => await exchange(one, plain(open, { headers: 'X-Keygate-Project: mine\r\nX-Forwarded-For: 9.9.9.9\r\n' })))
  t.strictSame([anonymous?.all('x-keygate-project'), anonymous?.all('x-forwarded-for')], [[], ['127.0.0.1']], 'without a key as well')
})

t.test('GX-04: Connection names fields of its hop, never ours, and what is of one hop does not go on', async t => {
  const { seen: [seen] } = await during(upstream, ok(), async () => await exchange(one, `GET ${things} HTTP/1.1\r\nHost: gateway\r\n${keyed}Connection: close, X-Mine, x-keygate-key\r\nConnection: X-Also, X-Request-Id, X-Forwarded-For, Host\r\nX-Mine: 1\r\nX-Also: 1\r\nX-Stays: 1\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nTrailer: X-T\r\n\r\n`))
  for (const name of ['x-mine', 'x-also', 'te', 'keep-alive', 'proxy-authorization', 'proxy-connection', 'upgrade', 'http2-settings', 'trailer']) t.strictSame(seen?.all(name), [], name)
  t.strictSame([seen?.all('x-stays'), seen?.all('x-keygate-key'), seen?.all('x-forwarded-for'), seen?.all('x-request-id').length, seen?.all('host').length], [['1'], [keyId], ['127.0.0.1'], 1, 1])
  t.match(seen?.all('host'), [new URL(upstream.url).host])
})

t.test('a trace goes on if it is one, and begins here if not', async t => {
  const trace = async (headers: string): Promise<{ traceparent: string[] | undefined, tracestate: string[] | undefined, id: string }> => {
    const { seen: [seen] } = await during(upstream, ok(), async () => await exchange(one, plain(open, { headers })))
    return { traceparent: seen?.all('traceparent'), tracestate: seen?.all('tracestate'), id: (seen?.all('x-request-id')[0] ?? '').replaceAll('-', '') }
  }
  const parent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  t.match(await trace(`traceparent: ${parent}\r\ntracestate: a=1\r\nTraceState: b=2\r\n`), { traceparent: [parent], tracestate: ['a=1, b=2'] })
  for (const headers of ['', 'traceparent: garbage\r\ntracestate: a=1\r\n', `traceparent: ${parent}\r\nTraceparent: ${parent}\r\ntracestate: a=1\r\n`, `traceparent: 00-${'0'.repeat(32)}-b7ad6b7169203331-01\r\n`]) {
    const { traceparent, tracestate, id } = await trace(headers)
    t.match([traceparent?.length, traceparent?.[0], tracestate], [1, new RegExp(`^00-${id}-[0-9a-f]{16}-00$`), []], JSON.stringify(headers))
  }
})

t.test('what the upstream is asked for is what the client asked for', async t => {
  const query = await during(upstream, ok(), async () => await exchange(one, plain(`${open}?a=%2F&b=[x]&c=%zz&d='"|&=&&e`)))
  t.equal(query.seen[0]?.target, '/open/1?a=%2F&b=[x]&c=%zz&d=\'"|&=&&e')
  const bytes = await during(upstream, ok(), async () => await exchange(one, Buffer.from(plain(open, { headers: 'X-Bytes: caf\xe9 \xff\tend\r\nX-Two: 1\r\nx-two: 2\r\nX-Empty:\r\nCookie: a=1\r\nCookie: b=2\r\n' }), 'latin1')))
  const [seen] = bytes.seen
  t.strictSame([seen?.all('x-bytes'), seen?.all('x-two'), seen?.all('x-empty'), seen?.all('cookie')], [['caf\xe9 \xff\tend'], ['1', '2'], [''], ['a=1', 'b=2']])
  const huge = await during(upstream, ok(), async () => await exchange(one, plain(open, { headers: `X-Long: ${'x'.repeat(40_000)}\r\n` })))
  t.match([huge.result.text.slice(0, 12), huge.seen.length], ['HTTP/1.1 431', 0])
})

t.test('bodies come as they were sent: with a length, in chunks, empty; trailers are dropped', async t => {
  const echo: Behaviour = seen => { seen.whole.then(() => { ok()(seen) }, t.fail) }
  const post = async (rest: string, method = 'POST'): Promise<Seen | undefined> => (await during(upstream, echo, async () => await exchange(one, `${method} ${open} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${rest}`))).seen[0]
  const sized = await post('Content-Length: 5\r\n\r\nhello')
  t.strictSame([sized?.all('content-length'), sized?.all('transfer-encoding'), sized?.body], [['5'], [], 'hello'])
  const empty = await post('Content-Length: 0\r\n\r\n')
  t.strictSame([empty?.all('content-length'), empty?.body], [['0'], ''])
  const none = await post('\r\n')
  t.strictSame([none?.all('transfer-encoding'), none?.body], [[], ''])
  t.strictSame([none?.all('content-length').filter(length => length !== '0')], [[]])
  for (const method of ['GET', 'DELETE', 'OPTIONS', 'PUT']) t.match((await post('Content-Length: 5\r\n\r\nhello', method))?.body, 'hello', method)
  const trailed = await post('Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nX-T: smuggled\r\n\r\n')
  t.notMatch(trailed?.body, 'smuggled')
  t.match(trailed?.all('content-length')[0] === '5' ? trailed.body : trailed?.body.replace(/^[0-9a-f]+\r\n|\r\n[0-9a-f]+\r\n(?:\r\n)?/gi, ''), 'hello')
  const late = await during(upstream, echo, async () => {
    const before = upstream.seen.length
    const client = rawClient(one, `POST ${open} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n`)
    while (!client.socket.closed && !upstream.seen[before]?.body.includes('hel')) await new Promise(setImmediate) // a part is not kept until the next is there
    client.socket.write('2\r\nlo\r\n0\r\n\r\n')
    return await client.closed
  })
  t.match(late.result.text, /^HTTP\/1\.1 200 /)
  t.strictSame(late.seen[0]?.all('content-length'), [])
  t.match(late.seen[0]?.body.replace(/\r\n?|\d/g, ''), 'hello')
  const nothing = await post('Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n')
  t.match(nothing?.body, /^(?:0\r\n\r\n)?$/)
})

t.test('an answer that comes before the body is read through reaches the client', async t => {
  for (const then of ['stay', 'end'] as const) {
    const { result } = await during(upstream, say(`HTTP/1.1 413 Too Large\r\n${then === 'end' ? 'Connection: close\r\n' : ''}Content-Length: 9\r\n\r\ntoo large`, then), async () => {
      const client = rawClient(one, `POST ${open} HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n${'x'.repeat(1000)}`)
      const part = Buffer.alloc(59_980)
      await client.until('too large')
      // It sends on, as clients do that look for an answer only when they are done.
      for (let i = 0; i < 3_000_000 - 1000; i += part.length) if (!client.socket.write(part)) await Promise.race([once(client.socket, 'drain'), client.closed])
      upstream.behave = ok('next')
      client.socket.write(plain(`${open}?next`))
      return await client.closed
    })
    t.match(result.text, /^HTTP\/1\.1 413 [^]*too large/, then)
    t.match(result.text, /too largeHTTP\/1\.1 200 [^]*next$/, `${then}: and its connection serves on`)
  }
})

t.test('answers without a body, and HTTP/1.0', async t => {
  const head = await during(upstream, ({ socket }) => { socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: "1"\r\n\r\n') }, async () => await exchange(one, plain(open, { method: 'HEAD' })))
  t.match(head.result.text, /Content-Length: 1234\r\n[^]*\r\n\r\n$/)
  t.equal(head.seen[0]?.method, 'HEAD')
  const none = await during(upstream, ({ socket }) => { socket.write('HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n') }, async () => await exchange(one, plain(open)))
  t.match(none.result.text, /^HTTP\/1\.1 204 [^]*X-A: 1[^]*\r\n\r\n$/)
  t.notMatch(none.result.text, /transfer-encoding|content-length/i)
  const same = await during(upstream, ({ socket }) => { socket.write('HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n') }, async () => await exchange(one, plain(open, { headers: 'If-None-Match: "1"\r\n' })))
  t.match(same.result.text, /^HTTP\/1\.1 304 [^]*\r\n\r\n$/)
  t.strictSame(same.seen[0]?.all('if-none-match'), ['"1"'])
  const old = await during(upstream, say('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'), async () => await exchange(one, `GET ${open} HTTP/1.0\r\nHost: a\r\n\r\n`))
  t.match([old.result.text, old.result.isReset], [/\r\n\r\nhello$/, false], 'no chunks for HTTP/1.0')
  const ancient = await during(upstream, say('HTTP/1.0 200 OK\r\n\r\nhello', 'end'), async () => await get())
  t.match([ancient.result.status, ancient.result.body], [200, 'hello'])
  t.equal((await get()).body, 'hello', 'and the next request has a connection of its own')
})

t.test('answers that have no body, with a length (RFC 9110 section 8.6) or a body nevertheless', async t => {
  const answers: Array<[string, RegExp]> = [
    ['HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nX-A: 1\r\n\r\n', /^HTTP\/1\.1 204 (?:(?!content-length|transfer-encoding)[^])*X-A: 1(?:(?!content-length|transfer-encoding)[^])*\r\n\r\n$/i],
    ['HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello', /^HTTP\/1\.1 204 (?:(?!content-length|hello)[^])*\r\n\r\n$/i],
    ['HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: "1"\r\n\r\n', /^HTTP\/1\.1 304 [^]*Content-Length: 1234\r\n[^]*\r\n\r\n$/],
    ['HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\nETag: "1"\r\n\r\n', /^HTTP\/1\.1 304 (?:(?!transfer-encoding)[^])*\r\n\r\n$/i]
  ]
  for (const [text, wanted] of answers) {
    upstream.behave = ({ socket }) => { socket.write(text) }
    const client = rawClient(one, `GET ${open} HTTP/1.1\r\nHost: a\r\n\r\n`)
    await client.until('\r\n\r\n')
    t.match(client.text(), wanted, text)
    upstream.behave = ok('next')
    client.socket.write(plain(open))
    const { text: whole, isReset } = await client.closed
    t.match([whole.slice(-4), isReset], ['next', false], 'and the connection serves on')
  }
})
