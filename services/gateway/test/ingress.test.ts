import { once } from 'node:events'
import { connect } from 'node:net'
import t from 'tap'
import { answersOn, openIngressHouse } from './ingress-house.ts'

const house = await openIngressHouse()
t.teardown(house.stop)
const { auth, exchange, gateway, get, path, post, project, refuseAll, second, upstream } = house
const chunked = '5\r\nhello\r\n0\r\n\r\n'

t.test('GX-05: whatever leaves the end of a request in doubt is refused with the connection, and so is what stands behind it', async t => {
  await refuseAll(t, {
    'Content-Length and Transfer-Encoding': post('Content-Length: 5\r\nTransfer-Encoding: chunked', chunked),
    'Transfer-Encoding and Content-Length': post('Transfer-Encoding: chunked\r\nContent-Length: 5', chunked),
    'Content-Length 0 and Transfer-Encoding': post('Content-Length: 0\r\nTransfer-Encoding: chunked', chunked),
    'Transfer-Encoding twice': post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked', chunked),
    'Transfer-Encoding twice, the second identity': post('Transfer-Encoding: chunked\r\nTransfer-Encoding: identity', chunked),
    'Transfer-Encoding twice, the first identity': post('Transfer-Encoding: identity\r\nTransfer-Encoding: chunked', chunked),
    'identity, chunked': post('Transfer-Encoding: identity, chunked', chunked),
    'gzip, chunked': post('Transfer-Encoding: gzip, chunked', chunked),
    'chunked, chunked': post('Transfer-Encoding: chunked, chunked', chunked),
    'chunked, gzip': post('Transfer-Encoding: chunked, gzip', chunked),
    'identity alone': post('Transfer-Encoding: identity', ''),
    'gzip alone': post('Transfer-Encoding: gzip', chunked),
    quoted: post('Transfer-Encoding: "chunked"', chunked),
    xchunked: post('Transfer-Encoding: xchunked', chunked),
    chunkedx: post('Transfer-Encoding: chunkedx', chunked),
    'a parameter': post('Transfer-Encoding: chunked;q=1', chunked),
    'a comma before': post('Transfer-Encoding: ,chunked', chunked),
    'a comma behind': post('Transfer-Encoding: chunked,', chunked),
    'vertical tab': post('Transfer-Encoding: \x0bchunked', chunked),
    'form feed': post('Transfer-Encoding: chunked\x0c', chunked),
    'no-break space': post('Transfer-Encoding: \xa0chunked', chunked),
    'NUL behind': post('Transfer-Encoding: chunked\0', chunked),
    empty: post('Transfer-Encoding:', ''),
    'empty, with a length': post('Transfer-Encoding:\r\nContent-Length: 5', 'hello'),
    'space before the colon': post('Transfer-Encoding : chunked', chunked),
    'tab before the colon': post('Transfer-Encoding\t: chunked', chunked),
    'chunked on 1.0': post('Transfer-Encoding: chunked', chunked, '1.0'),
    'chunked on 1.0 with keep-alive': post('Transfer-Encoding: chunked\r\nConnection: keep-alive', chunked, '1.0'),
    'identity, chunked on a path whose escapes are broken': post('Transfer-Encoding: identity, chunked', chunked).replace(path, '/probe/%zz'),
    'identity, chunked on OPTIONS *': post('Transfer-Encoding: identity, chunked', chunked).replace(`POST ${path}/submissions`, 'OPTIONS *'),
    'identity, chunked to the health of the gateway': post('Transfer-Encoding: identity, chunked', chunked).replace(`POST ${path}/submissions`, 'GET /livez'),
    'identity, chunked where there is nothing': post('Transfer-Encoding: identity, chunked', chunked).replace(path, '/nowhere'),
    'two lengths that differ': post('Content-Length: 5\r\nContent-Length: 6', 'hello'),
    'two lengths that are equal': post('Content-Length: 5\r\nContent-Length: 5', 'hello'),
    'a list of lengths': post('Content-Length: 5, 5', 'hello'),
    'a negative length': post('Content-Length: -5', 'hello'),
    'a length with a plus': post('Content-Length: +5', 'hello'),
    'a hexadecimal length': post('Content-Length: 0x5', 'hello'),
    'a length with a fraction': post('Content-Length: 5.0', 'hello'),
    'a length with an exponent': post('Content-Length: 5e0', 'hello'),
    'a length with a space inside': post('Content-Length: 1 5', 'hello'),
    'a length beyond 64 bits': post('Content-Length: 18446744073709551621', 'hello'),
    'an empty length': post('Content-Length:', ''),
    'a length that is a word': post('Content-Length: five', 'hello')
  })
})

t.test('GX-05: a broken chunked body is refused, and the upstream gets no whole request of it', async t => {
  const vectors: Record<string, string> = {
    'a size with a minus': '-5\r\nhello\r\n0\r\n\r\n',
    'a size with a plus': '+5\r\nhello\r\n0\r\n\r\n',
    'a size with 0x': '0x5\r\nhello\r\n0\r\n\r\n',
    'a size that overflows': '10000000000000005\r\nhello\r\n0\r\n\r\n',
    'a size with an underscore': '0_5\r\nhello\r\n0\r\n\r\n',
    'a space before the size': ' 5\r\nhello\r\n0\r\n\r\n',
    'no size': '\r\nhello\r\n0\r\n\r\n',
    'more than the size': '3\r\nhello\r\n0\r\n\r\n',
    'less than the size': '7\r\nhello\r\n0\r\n\r\n',
    'LF behind the size': '5\nhello\r\n0\r\n\r\n',
    'CR behind the size': '5\rhello\r\n0\r\n\r\n',
    'LF behind the chunk': '5\r\nhello\n0\r\n\r\n',
    'LF in an extension': '5;a\nb\r\nhello\r\n0\r\n\r\n',
    'NUL in an extension': '5;a\0\r\nhello\r\n0\r\n\r\n',
    'LF behind the last chunk': '5\r\nhello\r\n0\n\n',
    'a trailer without a colon': '5\r\nhello\r\n0\r\ntrailer\r\n\r\n',
    'LF behind a trailer': '5\r\nhello\r\n0\r\nx: y\n\r\n'
  }
  for (const [name, body] of Object.entries(vectors)) {
    upstream.arrivals = []
    const replies = await exchange(post('Transfer-Encoding: chunked', body) + second)
    t.strictSame(replies.map(({ status }) => status), [400], name)
    t.match(replies[0]?.head, 'connection: close', name)
    t.strictSame(upstream.arrivals.filter(({ isWhole }) => isWhole), [], `${name}: nothing whole`)
    t.notOk(upstream.arrivals.some(({ line }) => line.includes('second')), name)
  }
})

t.test('GX-05: lines that only some readers take for lines', async t => {
  const line = `GET ${path} HTTP/1.1`
  await refuseAll(t, {
    'obs-fold': get('X-Fold: a\r\n b'),
    'obs-fold with a tab': get('X-Fold: a\r\n\tb'),
    'a fold at the beginning': `${line}\r\n Host: gw\r\n${auth}\r\n\r\n`,
    'LF behind the request line': `${line}\nHost: gw\r\n${auth}\r\n\r\n`,
    'LF behind a header': `${line}\r\nHost: gw\nX: y\r\n${auth}\r\n\r\n`,
    'LF at the end': `${line}\r\nHost: gw\r\n${auth}\r\n\n`,
    'CR behind the request line': `${line}\rHost: gw\r\n${auth}\r\n\r\n`,
    'CR in a value': get('X: a\rb'),
    'CR in a value, and a header behind it': get('X: a\rX-Api-Key: b'),
    'NUL in a value': get('X: a\0b'),
    'NUL in a name': get('X\0: a'),
    'a control character in a value': get('X: a\x01b'),
    'DEL in a value': get('X: a\x7fb'),
    'no name': get(': x'),
    'no colon': get('X-Header'),
    'a space in a name': get('X Header: a'),
    'a space behind a name': get('X-Header : a'),
    'a byte that is not ASCII in a name': get('X-\xe9: a'),
    'a bracket in a name': get('X[1]: a'),
    'HTTP/0.9': `GET ${path}\r\n\r\n`,
    'HTTP/1.2': get('').replace('HTTP/1.1', 'HTTP/1.2'),
    'HTTP/2.0': get('').replace('HTTP/1.1', 'HTTP/2.0'),
    'HTTP/01.1': get('').replace('HTTP/1.1', 'HTTP/01.1'),
    'HTTP/1.1 and more': get('').replace('HTTP/1.1', 'HTTP/1.1x'),
    'http/1.1': get('').replace('HTTP/1.1', 'http/1.1'),
    'the preface of HTTP/2': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'a tab in the request line': get('').replace(' HTTP', '\tHTTP'),
    'no target': 'GET HTTP/1.1\r\nHost: gw\r\n\r\n',
    TLS: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n'
  })
  // Without a request behind it: how long the header would go on nobody knows.
  const [huge] = await exchange(get(`X: ${'x'.repeat(17_000)}`))
  t.match([huge?.status, huge?.head], [431, /connection: close/], 'GX-18: headers above 16 KiB')
  const [many] = await exchange(get(Array.from({ length: 1500 }, (_, i) => `X${i}: 12345678`).join('\r\n')))
  t.equal(many?.status, 431, 'GX-18: also in many lines')
})

t.test('GX-05: what RFC 9112 lets a server take arrives as one request', async t => {
  const taken: Record<string, [bytes: string, body: string]> = {
    'empty lines before the request (2.2)': [`\r\n\r\n${post('Content-Length: 5', 'hello')}`, 'hello'],
    'optional white space before a value (5.1)': [post('Transfer-Encoding: \t chunked', chunked), 'hello'],
    'optional white space behind a value (5.1)': [post('X-Any: value \t \r\nContent-Length: 5 ', 'hello'), 'hello'],
    'a coding in another case (7)': [post('TRANSFER-ENCODING: Chunked', chunked), 'hello'],
    'chunk extensions (7.1.1)': [post('Transfer-Encoding: chunked', '5;a=b;c="d e"\r\nhello\r\n0;x\r\n\r\n'), 'hello'],
    'zeros before a size': [post('Transfer-Encoding: chunked', '0005\r\nhello\r\n000\r\n\r\n'), 'hello'],
    'a trailer (7.1.2)': [post('Transfer-Encoding: chunked', '5\r\nhello\r\n0\r\nX-Keygate-Project: evil\r\n\r\n'), 'hello'],
    'zeros before a length': [post('Content-Length: 005', 'hello'), 'hello'],
    'a GET with a body (RFC 9110 9.3.1)': [post('Content-Length: 5', 'hello').replace('POST', 'GET').replace('/submissions', ''), 'hello']
  }
  for (const [name, [bytes, body]] of Object.entries(taken)) {
    upstream.arrivals = []
    const replies = await exchange(bytes + second)
    t.strictSame(replies.map(({ status }) => status), [200, 200], name)
    t.equal(upstream.arrivals.length, 2, name)
    const first = upstream.arrivals.find(({ line }) => !line.includes('second'))
    t.match(first, { body, isWhole: true }, name)
    t.notOk(first?.headers.includes('evil'), name)
    t.equal(first?.headers.filter(header => /^(?:content-length|transfer-encoding)$/i.test(header)).length, 1, `${name}: one way to tell its end`)
  }
  const [old] = await exchange(`GET ${path} HTTP/1.0\r\nHost: gw\r\n${auth}\r\n\r\n`)
  t.equal(old?.status, 200, 'HTTP/1.0')
})

t.test('GX-05: requests in one write get their answers in order and go on once each, also behind one that is refused with its body', async t => {
  upstream.arrivals = []
  const replies = await exchange(`${get('', `${path}?first`)}${get('', `${path}/versions`)}${second}`)
  t.strictSame(replies.map(({ status, body }) => [status, body]), [[200, 'ok'], [200, 'ok'], [200, 'ok']])
  t.strictSame(upstream.arrivals.map(({ line }) => line).sort(), [`GET /forms/${project.id}/versions`, `GET /forms/${project.id}?first`, `GET /forms/${project.id}?second`].sort())

  const inside = `GET ${path}?inside HTTP/1.1\r\nHost: gw\r\n${auth}\r\n\r\n`
  const refused = (headers: string, body: string): string => `POST ${path}/submissions HTTP/1.1\r\nHost: gw\r\nX-API-Key: wrong\r\n${headers}\r\n\r\n${body}`
  for (const bytes of [refused(`Content-Length: ${inside.length}`, inside), refused('Transfer-Encoding: chunked', `${inside.length.toString(16)}\r\n${inside}\r\n0\r\n\r\n`)]) {
    upstream.arrivals = []
    const answers = await exchange(bytes + second)
    t.strictSame(answers.map(({ status }) => status), [401, 200], 'the body of the refused is no request')
    t.strictSame(upstream.arrivals.map(({ line }) => line), [`GET /forms/${project.id}?second`])
  }

  upstream.arrivals = []
  const behindClose = await exchange(get('Connection: close') + second)
  t.strictSame(behindClose.map(({ status }) => status), [200], 'RFC 9112 section 9.6: nothing is done behind Connection: close')
  t.strictSame(upstream.arrivals.map(({ line }) => line), [`GET /forms/${project.id}`])
})

t.test('GX-05: what is malformed behind a good request does not take its answer\'s place, nor break into it', async t => {
  const after = await exchange(`${get('')}garbage\r\n\r\n`)
  t.strictSame(after.map(({ status, body }) => [status, body.slice(0, 2)]), [[200, 'ok'], [400, '{"']])
  upstream.arrivals = []
  const socket = connect(Number(new URL(gateway).port), '127.0.0.1', () => { socket.write(get('', `${path}?slow`)) })
  const answers = answersOn(socket)
  await once(socket, 'data')
  await new Promise<void>(resolve => { socket.write('garbage\r\n\r\n', () => { resolve() }) })
  upstream.server.emit('go on')
  const [first, ...rest] = await answers
  t.match(first?.body, /^[\da-f]+\r\nfirst part\r\n[\da-f]+\r\nlast part\r\n0\r\n\r\n$/, 'the body is whole')
  t.strictSame(rest.map(({ status }) => status), [400])
})
