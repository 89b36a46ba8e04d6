import { connect } from 'node:net'
import t from 'tap'
import { answersOn, openIngressHouse, type Reply } from './ingress-house.ts'

const house = await openIngressHouse()
t.teardown(house.stop)
const { auth, exchange, get, path, post, project, refuseAll, upstream } = house

t.test('GX-06: Host: exactly one name or address, with at most a port', async t => {
  const host = (...lines: string[]): string => `GET ${path} HTTP/1.1\r\n${lines.map(line => `${line}\r\n`).join('')}${auth}\r\n\r\n`
  const bad = ['', ' ', 'a/b', 'u@h', 'u:p@h', 'a, b', 'a b', 'a,b', 'a:b', 'a:80:80', 'a:-1', 'a:99999', 'a:65536', ':80', 'a?b', 'a#b', 'a\\b', 'a%41', '%61pi.example.com', 'example.com#@evil.com', 'a@b', '[::1', '::1', '[::1]x', '[:::]', '[fe80::1%25eth0]', '[v1.x]', 'a<b', 'a"b', 'a|b', 'a{b}', 'a^b', 'a`b', 'http://a',
    // A4-H as bytes of UTF-8 and of Latin-1: full width, ideographic full stop, zero width space, soft hyphen, Cyrillic a, circled digits
    ...['ａｐｉ.example.com', 'api。example。com', 'api．example．com', 'a\u200bpi.example.com', 'a\u00adpi.example.com', '\u0430pi.example.com', '１２７.０.０.１', '①②⑦.⓪.⓪.①', '℀.example.com'].map(text => Buffer.from(text).toString('latin1')), '\xe9']
  await refuseAll(t, {
    'no Host': host(),
    'two Hosts': host('Host: a', 'Host: b'),
    'two equal Hosts': host('Host: a', 'Host: a'),
    'two Hosts, one empty': host('Host: a', 'Host:'),
    'two Hosts in other cases': host('Host: a', 'HOST: b'),
    ...Object.fromEntries(bad.map(value => [`Host: ${JSON.stringify(value)}`, host(`Host: ${value}`)]))
  })
  // What it says decides nothing here: numeric spellings of an address are names like any other (A4-H).
  for (const good of ['gw', 'GW.example.com', 'api.example.com.', '127.0.0.1', '127.0.0.1:8080', '[::1]', '[::1]:8080', '[::ffff:127.0.0.1]', '2130706433', '0x7f.1', '127.1', 'xn--pi-6kc.example.com', 'a_b']) {
    const replies = await exchange(host(`Host: ${good}`, 'Connection: close'))
    t.strictSame(replies.map(({ status }) => status), [200], good)
  }
})

t.test('GX-07: header names with an underscore do not go on, or are refused where the operator says so', async t => {
  upstream.arrivals = []
  await exchange(get('X_Keygate_Project: evil\r\nX_Consumer_ID: 1\r\nContent_Length: 5\r\n_: x\r\nX-Fine: yes\r\nConnection: close'))
  const names = (upstream.arrivals[0]?.headers ?? []).filter((_, i) => i % 2 === 0)
  t.notOk(names.some(name => name.includes('_')), names.join())
  t.ok(names.some(name => name.toLowerCase() === 'x-fine'))
  const strict = await house.openGateway({ KEYGATE_UNDERSCORE_HEADERS: 'refuse' })
  upstream.arrivals = []
  const [refused] = await exchange(get('X_Consumer_ID: 1\r\nConnection: close'), strict.url)
  t.match([refused?.status, JSON.parse(refused?.body ?? '{}')], [400, { code: 'invalid_header' }])
  t.strictSame(upstream.arrivals, [])
  t.strictSame((await exchange(get('X-Consumer-ID: 1\r\nConnection: close'), strict.url)).map(({ status }) => status), [200])
})

t.test('the form of the target: a path, our own host in absolute form, or * of OPTIONS; nothing else', async t => {
  const ask = async (line: string, host = 'gw'): Promise<Reply | undefined> => {
    upstream.arrivals = []
    return (await exchange(`${line} HTTP/1.1\r\nHost: ${host}\r\n${auth}\r\nConnection: close\r\n\r\n`))[0]
  }
  for (const [target, host] of [[`http://gw${path}`, 'gw'], [`HTTP://GW${path}`, 'gw'], [`http://gw:8080${path}`, 'gw:8080'], [`https://gw${path}`, 'gw']] as Array<[string, string]>) {
    t.equal((await ask(`GET ${target}`, host))?.status, 200, target)
    t.strictSame(upstream.arrivals.map(({ line }) => line), [`GET /forms/${project.id}`], 'as the path that it names')
  }
  const refused = [`http://evil.example${path}`, `http://gw@evil.example${path}`, `http://u@gw${path}`, `http://gw:81${path}`, `http://gw.evil.example${path}`, `http://${path}`, `http:${path}`, `http:///${path}`, `ftp://gw${path}`, `ws://gw${path}`, `file://${path}`, 'gw', 'gw:80',
    '*', `${path}#fragment`, `${path}?a#fragment`, `#${path}`, `http://gw${path}#fragment`, `?${path}`, `\\${path}`, `/${path}`, `//evil.example${path}`, `${path}\\echo`, `${path}?a=\x7f`, '/\xe9', `${path}?\xe9`, `${path}?a=\xc3\xa9`]
  for (const target of refused) {
    const reply = await ask(`GET ${target}`)
    t.equal(reply?.status, 400, `${JSON.stringify(target)}: ${reply?.body}`)
    t.strictSame(upstream.arrivals, [], target)
  }
  const about = await ask('OPTIONS *')
  t.match([about?.status, about?.head], [204, /allow: get, head, post, put, patch, delete, options/])
  t.strictSame(upstream.arrivals, [])
  for (const target of ['*?', '*/', `*${path}`]) t.equal((await ask(`OPTIONS ${target}`))?.status, 400, target)
})

t.test('paths that two readers may read differently are refused, dot segments with a parameter too', async t => {
  upstream.arrivals = []
  for (const rest of ['//echo', '/./echo', '/../echo', '/%2e%2E/echo', '/.', '/..', '/..;/echo', '/..;a=b/echo', '/.;/echo', '/%2e%2e;/echo', '/..%3b/echo', '/.%2E%3Bx', '/..;', '/a%2fb', '/a%5cb', '/a%00', '/%zz', '/%ff']) {
    const [reply] = await exchange(get('Connection: close', path + rest))
    t.match([reply?.status, JSON.parse(reply?.body ?? '{}')], [400, { code: 'ambiguous_path' }], rest)
  }
  t.strictSame(upstream.arrivals, [])
  // A segment that only begins with dots is a name, and a parameter behind a name is no dot segment.
  for (const rest of ['/versions/..x', '/versions/v;..', '/versions/.well-known', '/versions/a..;b']) {
    t.equal((await exchange(get('Connection: close', path + rest)))[0]?.status, 200, rest)
  }
  t.equal((await exchange(get('Connection: close', `${path}/versions/...`)))[0]?.status, 404, 'to some it is /versions, which is another operation')
})

t.test('GX-30: TRACE, CONNECT and methods that nobody here has: 405 with Allow or 400, and the upstream sees none', async t => {
  const ask = async (method: string, target = path): Promise<Reply | undefined> => (await exchange(`${method} ${target} HTTP/1.1\r\nHost: gw\r\n${auth}\r\nConnection: close\r\n\r\n`))[0]
  upstream.arrivals = []
  for (const method of ['TRACE', 'PROPFIND', 'PURGE', 'SEARCH', 'LINK', 'MKCOL', 'COPY', 'LOCK', 'REPORT', 'M-SEARCH', 'NOTIFY', 'SUBSCRIBE']) {
    const reply = await ask(method)
    t.match([reply?.status, reply?.head], [405, /allow: get, head, post, put, patch, delete, options/], method)
  }
  for (const target of [path, 'gw:80', 'evil.example:443']) {
    const tunnel = await ask('CONNECT', target)
    t.match([tunnel?.status, tunnel?.head], [405, /allow: get, head/], `CONNECT ${target}`)
  }
  for (const method of ['FOO', 'get', 'Get', 'GETX', 'G', 'GET\t', 'GET\0', 'X-HTTP', '']) t.equal((await ask(method))?.status, 400, JSON.stringify(method))
  const overridden = await exchange(`POST ${path} HTTP/1.1\r\nHost: gw\r\n${auth}\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`)
  t.equal(overridden[0]?.status, 404, 'a header does not change the method')
  t.strictSame(upstream.arrivals, [])
})

t.test('GX-18: slow senders are ended by the deadlines of the gateway, and the others are served meanwhile', async t => {
  const thorough = process.env['KEYGATE_THOROUGH'] === '1'
  const strict = await house.openGateway({ KEYGATE_HEADERS_TIMEOUT_MS: '1500', KEYGATE_REQUEST_TIMEOUT_MS: '2500' })
  const port = Number(new URL(strict.url).port)
  const slow = Array.from({ length: thorough ? 200 : 60 }, () => {
    const socket = connect(port, '127.0.0.1', () => { socket.write(`GET ${path} HTTP/1.1\r\nHost: gw\r\n`) })
    const timer = setInterval(() => { socket.write('x') }, 100)
    socket.on('close', () => { clearInterval(timer) })
    return answersOn(socket)
  })
  const body = connect(port, '127.0.0.1', () => { body.write(`${post('Content-Length: 1000000', 'x')}`) })
  const drip = setInterval(() => { body.write('x') }, 100)
  body.on('close', () => { clearInterval(drip) })
  upstream.arrivals = []
  const slowBody = answersOn(body)

  const reaped = { all: false }
  const ended = Promise.all(slow).finally(() => { reaped.all = true })
  const good: number[] = []
  while (!reaped.all) good.push((await exchange(get('Connection: close'), strict.url))[0]?.status ?? 0)
  t.ok(good.length > 0)
  t.strictSame([...new Set(good)], [200], `${good.length} good requests beside the slow ones`)
  for (const replies of await ended) t.strictSame(replies.map(({ status }) => status), [408])
  const [late] = await slowBody
  t.equal(late?.status, 408, 'a slow body')
  t.strictSame(upstream.arrivals.filter(({ line, isWhole }) => line.startsWith('POST') && isWhole), [], 'and the upstream never takes it for whole')
})

t.test('GX-18: a parameter of a path that is too long names nothing', async t => {
  const ask = async (target: string): Promise<Reply | undefined> => (await exchange(get('Connection: close', target)))[0]
  upstream.arrivals = []
  t.match([(await ask(`/probe/forms/${'a'.repeat(1001)}`))?.status, (await ask(`${path}/versions/${'1'.repeat(1001)}`))?.status], [404, 404])
  t.strictSame(upstream.arrivals, [])
  t.equal((await ask(`${path}/versions/${'1'.repeat(900)}`))?.status, 200)
})
