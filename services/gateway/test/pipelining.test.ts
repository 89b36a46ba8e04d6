import { once } from 'node:events'
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { call, openGatewayHouse } from './house.ts'
import { MiB, ended, pourInto, stalled, startMeasuredGateway, until } from './process.ts'
import { ok, plain, rawApi, rawClient, startRawUpstream, type Seen } from './raw.ts'

const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-pipelining-'))
t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
const upstream = await startRawUpstream()
t.teardown(upstream.close)
const house = await openGatewayHouse(() => `apis:${rawApi(dir, upstream.url)}`)
t.teardown(house.stop)
const { stack } = house
const project = await house.createProject()
const { secret } = await project.createKey()
const gateway = await startMeasuredGateway(house)
const open = '/raw/open/1'
const stream = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'
const get = (query: string): string => `GET ${open}?${query} HTTP/1.1\r\nHost: a\r\n\r\n`

/** Fulfils with the next request that reaches the upstream. */
const arrival = async (behave: (seen: Seen) => void = () => {}): Promise<Seen> => await new Promise(resolve => {
  upstream.behave = seen => { behave(seen); resolve(seen) }
})

t.test('B3-10 B3-11: of a client that pipelined and left nothing goes on, and each of its requests has its line', async t => {
  const before = await ended(gateway, 499)
  const first = arrival(({ socket }) => { socket.write(stream) })
  const from = upstream.seen.length
  const client = rawClient(gateway.url, get('pipelined').repeat(258))
  await client.until('hello')
  t.equal(upstream.seen.length, from + 1, 'one is forwarded, the others wait for their turn')
  client.socket.destroy()
  await (await first).closed
  await until('all have ended', async () => await ended(gateway, 499) === before + 258)
  upstream.behave = ok()
  t.equal((await call(gateway.url, { path: open })).status, 200)
  t.strictSame(upstream.seen.slice(from + 1).filter(({ target }) => target.includes('pipelined')), [], 'and none of them comes later')
})

t.test('pipelined requests reach the upstream in their order, each when the one before it has its answer (RFC 9112 section 9.3.2)', async t => {
  const events: string[] = []
  upstream.behave = seen => {
    const name = seen.target.slice(-1)
    events.push(`${seen.method} ${name}`)
    seen.whole.then(body => setTimeout(() => { events.push(`answered ${name}`); ok(`<${name}${body}>`)(seen) }, name === '1' ? 100 : 0), t.fail)
  }
  const post = (query: string, body: string): string => `POST ${open}?${query} HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`
  const refused = 'GET /raw/things/1 HTTP/1.1\r\nHost: a\r\n\r\n'
  const { text } = await rawClient(gateway.url, post('1', 'a') + post('2', 'b'.repeat(50)) + refused + get('3') + plain(`${open}?4`)).closed
  t.strictSame(events, ['POST 1', 'answered 1', 'POST 2', 'answered 2', 'GET 3', 'answered 3', 'GET 4', 'answered 4'])
  t.strictSame(text.match(/HTTP\/1\.1 \d+|<[^>]*>/g), ['HTTP/1.1 200', '<1a>', 'HTTP/1.1 200', `<2${'b'.repeat(50)}>`, 'HTTP/1.1 401', 'HTTP/1.1 200', '<3>', 'HTTP/1.1 200', '<4>'])
})

t.test('what one connection may have waiting has an end: 503 in its turn, and the connection ends', async t => {
  const first = arrival()
  const client = rawClient(gateway.url, get('1').repeat(100) + plain(`${open}?last`))
  const seen = await first
  upstream.behave = ok()
  ok()(seen)
  const { text } = await client.closed
  const statuses = text.match(/HTTP\/1\.1 \d+/g) ?? []
  t.strictSame(statuses, [...Array<string>(65).fill('HTTP/1.1 200'), 'HTTP/1.1 503'])
  const last = text.slice(text.lastIndexOf('HTTP/1.1'))
  for (const part of [/^retry-after: 1\r$/im, /^connection: close\r$/im, /"code":"too_many_pipelined"/]) t.match(last, part)
  t.equal((await call(gateway.url, { path: open })).status, 200)
})

t.test('a client that ends its side behind its request and reads on has its answer', async t => {
  const late = (seen: Seen): void => { setTimeout(() => { ok('late')(seen) }, 150) }
  const requests = {
    'a GET': get('a'),
    'with a body': `POST ${open} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody`
  }
  for (const [name, request] of Object.entries(requests)) {
    upstream.behave = late
    const client = rawClient(gateway.url, request)
    client.socket.end()
    const { text, isReset } = await client.closed
    t.match(text, /^(?:HTTP\/1\.1 100 Continue\r\n\r\n)+HTTP\/1\.1 200 [^]*late$/, name)
    t.notOk(isReset, name)
  }
  upstream.behave = late
  const two = rawClient(gateway.url, get('a').repeat(2))
  two.socket.end()
  t.equal((await two.closed).text.match(/late/g)?.length, 2, 'two of them as well')
  const idle = rawClient(gateway.url, '')
  idle.socket.end()
  t.equal((await idle.closed).text, '', 'and with nothing to answer the connection ends')
})

t.test('B3-10: one that has gone looks the same, and is found out before the answer; in the middle of an answer it has left', async t => {
  for (const behave of [() => {}, ({ socket }: Seen) => { socket.write(stream) }]) {
    const arrived = arrival(behave)
    const client = rawClient(gateway.url, get('a'))
    const seen = await arrived
    const begun = performance.now()
    if (behave.length === 1) await client.until('hello')
    client.socket.destroy()
    await seen.closed
    t.pass(`${(performance.now() - begun).toFixed(0)} ms until the upstream is let go`)
  }
  const arrived = arrival()
  const old = rawClient(gateway.url, `GET ${open} HTTP/1.0\r\nHost: a\r\n\r\n`)
  const seen = await arrived
  old.socket.end()
  await seen.closed
  t.equal((await old.closed).text, '', 'HTTP/1.0 has no interim answers to find out by: its end is its leave')
})

t.test('B3-10: who left while the key was being checked is not forwarded', async t => {
  const cold = await project.createKey()
  const keyed = `X-API-Key: ${cold.secret}\r\n`
  const before = await ended(gateway, 499)
  const from = upstream.seen.length
  upstream.behave = ok()
  process.kill(stack.keyService.pid, 'SIGSTOP')
  try {
    const client = rawClient(gateway.url, `GET /raw/things/1?left HTTP/1.1\r\nHost: a\r\n${keyed}\r\n`)
    await once(client.socket, 'connect')
    t.equal((await call(gateway.url, { path: open })).status, 200, 'it has been read by now')
    client.socket.resetAndDestroy()
    await until('it has gone', async () => await ended(gateway, 499) === before + 1)
  } finally {
    process.kill(stack.keyService.pid, 'SIGCONT')
  }
  t.equal((await call(gateway.url, { path: '/raw/things/1', headers: ['x-api-key', cold.secret] })).status, 200)
  t.strictSame(upstream.seen.slice(from).filter(({ target }) => target.includes('left')), [])
})

t.test('what a client still sends is read away when the upstream has answered while it did not read', async t => {
  const size = 32 * MiB
  const arrived = arrival(({ socket }) => { socket.pause() })
  const client = rawClient(gateway.url, '')
  const pour = pourInto(client.socket, `POST /raw/things/1 HTTP/1.1\r\nHost: a\r\nX-API-Key: ${secret}\r\nContent-Length: ${size}\r\n\r\n`, size)
  const { socket } = await arrived
  t.ok(await stalled(pour.sent) < size, 'nobody reads')
  socket.write('HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large')
  await client.until('too large')
  await until('all is sent', () => pour.sent() === size)
  upstream.behave = ok('next')
  client.socket.write(plain(`${open}?next`))
  t.match((await client.closed).text, /too largeHTTP\/1\.1 200 [^]*next$/)
})
