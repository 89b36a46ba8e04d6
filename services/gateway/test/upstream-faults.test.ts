import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Catalogue } from '@keygate/api-catalog'
import { startService } from '@keygate/local'
import t from 'tap'
import { Agent, request } from 'undici'
import { addressFault, guardedLookup } from '../src/proxy/addresses.ts'
import { upstreamConnector } from '../src/proxy/connector.ts'
import { LiveCatalogue } from '../src/routing/live-catalogue.ts'
import { upstreamFaults } from '../src/routing/upstream-faults.ts'
import { call, openGatewayHouse, type Answer } from './house.ts'
import { during, exchange, ok, plain, rawApi, rawClient, say, startRawUpstream, type Behaviour } from './raw.ts'

const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-faults-'))
t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
const upstream = await startRawUpstream()
t.teardown(upstream.close)
const house = await openGatewayHouse((_upstream, dead) => `apis:${rawApi(dir, upstream.url)}${rawApi(dir, dead, 'dead')}${rawApi(dir, 'http://nowhere.invalid', 'nowhere')}`, { KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_MAX_EVENT_LOOP_DELAY_MS: '0' })
t.teardown(house.stop)
const { stack } = house
const [one] = house.gateways as [string]
/** Deadlines turned down: undici looks at its timers twice a second. */
const hasty = await house.openGateway({ KEYGATE_UPSTREAM_TIMEOUT_MS: '400', KEYGATE_UPSTREAM_IDLE_TIMEOUT_MS: '400' })
const project = await house.createProject()
const { secret } = await project.createKey()

const open = '/raw/open/1'
const things = '/raw/things/1'
const get = async (path = open, headers: string[] = [], gateway = one): Promise<Answer> => await call(gateway, { path, headers })

t.test('B3-01: a port that refuses and a name that nobody has are 502, and nothing of the inside is told', async t => {
  for (const name of ['dead', 'nowhere']) {
    for (const method of ['GET', 'POST']) {
      const answer = await call(one, { method, path: `/${name}/open/1`, headers: method === 'POST' ? ['content-length', '4'] : [], ...(method === 'POST' && { body: 'body' }) })
      t.match([answer.status, answer.problem.code, answer.headers['content-type']], [502, 'upstream_unreachable', 'application/problem+json'], `${name} ${method}`)
      t.notMatch(answer.body, /127\.0\.0\.1|ECONN|ENOTFOUND|EAI_AGAIN|nowhere\.invalid|undici/, `${name} ${method}`)
    }
  }
})

t.test('B3-01 GX-14: no upstream is where only the inside is reached', async t => {
  const forbidden = ['http://169.254.169.254', 'http://[::ffff:127.0.0.1]', 'http://2130706433', 'http://0x7f.1', 'http://[::1]', 'http://10.1.2.3', 'http://[fd00:ec2::254]', 'http://0.0.0.0', 'http://[fe80::1]', 'http://100.64.0.1', 'http://[64:ff9b::7f00:1]', 'http://[::ffff:a9fe:a9fe]']
  const faults = (allowsPrivate: boolean): string => upstreamFaults({ KEYGATE_ALLOW_PRIVATE_UPSTREAM: allowsPrivate })({ apis: forbidden.map((upstream, i) => ({ name: `f${i}`, upstream })) } as Catalogue).join('\n')
  const [strict, lax] = [faults(false), faults(true)]
  for (const [i, url] of forbidden.entries()) t.match(strict, `the upstream of "f${i}" may not be called`, url)
  const never = [0, 6, 7, 8, 10, 11]
  for (const [i, url] of forbidden.entries()) t.equal(lax.includes(`"f${i}"`), never.includes(i), `with private ones allowed: ${url}`)
  const file = join(dir, 'forbidden.yaml')
  writeFileSync(file, `apis:${rawApi(dir, 'http://169.254.169.254', 'metadata')}`)
  await t.rejects(LiveCatalogue.open({ file, check: upstreamFaults({ KEYGATE_ALLOW_PRIVATE_UPSTREAM: true }) }), { message: /169\.254\.169\.254 is link-local/ }, 'such a catalogue is not loaded')
})

t.test('B3-01 GX-14: a name that leads inside is refused when it is looked up; what was checked is what is connected to', async t => {
  const look = async (name: string, allowsPrivate: boolean, all: boolean): Promise<unknown> => await new Promise(resolve => {
    guardedLookup({ allowsPrivate })(name, { all }, (error, address) => { resolve(error === null ? address : error.code) })
  })
  t.equal(await look('localhost', false, true), 'FORBIDDEN_ADDRESS')
  t.equal(await look('localhost', false, false), 'FORBIDDEN_ADDRESS')
  t.equal(await look('nowhere.invalid', true, true).then(code => typeof code === 'string'), true)
  const allowed = await look('localhost', true, true) as Array<{ address: string }>
  // The addresses that the connection takes are the ones that were judged: it gets numbers, so there is no second look-up that could flip.
  t.ok(allowed.length > 0 && allowed.every(({ address }) => isIP(address) !== 0 && addressFault(address, { allowsPrivate: true }) === undefined))
  t.match(await look('localhost', true, false), /^(?:127\.|::1$)/)

  const dispatcher = new Agent({ connect: upstreamConnector({ timeoutMs: 10_000, allowsPrivate: false }) })
  t.teardown(async () => { await dispatcher.destroy() })
  const before = upstream.connections
  const error = await request(upstream.url.replace('127.0.0.1', 'localhost'), { dispatcher }).then(() => null, (error: Error & { code?: string }) => error)
  t.match([error?.code, upstream.connections], ['FORBIDDEN_ADDRESS', before], 'nor is it connected to')
})

t.test('B3-01 GX-14: a redirect is the client\'s to follow', async t => {
  const { result, seen } = await during(upstream, ({ socket }) => { socket.write(`HTTP/1.1 302 Found\r\nLocation: ${upstream.url}/inside\r\nContent-Length: 0\r\n\r\n`) }, async () => await get())
  t.match([result.status, result.headers['location']], [302, `${upstream.url}/inside`])
  t.equal(seen.length, 1)
})

t.test('B3-02: a connection reset before any answer: a GET is sent once more, a POST never', async t => {
  const reset: Behaviour = seen => { seen.whole.then(() => { seen.socket.resetAndDestroy() }, t.fail) }
  const failed = await during(upstream, reset, async () => await get())
  t.match([failed.result.status, failed.result.problem.code, failed.seen.length], [502, 'upstream_unreachable', 2])
  const end = await during(upstream, ({ socket }) => { socket.end() }, async () => await get())
  t.match([end.result.status, end.seen.length], [502, 2], 'closed as well')
  let times = 0
  const once = await during(upstream, seen => { if (times++ === 0) reset(seen); else ok('second')(seen) }, async () => await get())
  t.match([once.result.status, once.result.body, once.seen.length], [200, 'second', 2], 'the second attempt counts')
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    for (const body of ['', 'body']) {
      const { result, seen } = await during(upstream, reset, async () => await call(one, { method, path: open, headers: ['content-length', String(body.length)], body }))
      t.match([result.status, seen.length], [502, 1], `${method} ${JSON.stringify(body)}: once`)
    }
  }
  const withBody = await during(upstream, reset, async () => await exchange(one, `GET ${open} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody`))
  t.match([withBody.result.text.slice(0, 12), withBody.seen.length], ['HTTP/1.1 502', 1], 'nor a GET whose body is gone')
})

t.test('B3-02: a reset in the middle of an upload is told to the client', async t => {
  const { result, seen } = await during(upstream, ({ socket }) => { setImmediate(() => { socket.resetAndDestroy() }) }, async () => {
    const client = rawClient(one, `POST ${open} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n${'x'.repeat(1000)}`)
    await client.until('"code":')
    upstream.behave = ok('next')
    client.socket.write(`${'x'.repeat(999_000)}${plain(open)}`)
    return (await client.closed).text
  })
  t.match(result, /^HTTP\/1\.1 502 [^]*HTTP\/1\.1 200 [^]*next$/, 'and what it still sends is read away')
  t.equal(seen.filter(({ method }) => method === 'POST').length, 1)
})

t.test('B3-09: retries add at most a tenth to an upstream that fails, and the start\'s savings', async t => {
  const fresh = await house.openGateway({})
  const requests = 400
  let arrivals = 0
  const { seen } = await during(upstream, seen => { if (arrivals++ % 2 === 0) seen.socket.resetAndDestroy(); else ok()(seen) }, async () => {
    for (let i = 0; i < requests; i += 10) await Promise.all(Array.from({ length: 10 }, async () => await get(open, [], fresh.url)))
  })
  const most = Math.ceil(requests * 1.1) + 10
  t.ok(seen.length <= most, `${seen.length} arrived of ${requests}, at most ${most}`)
  t.ok(seen.length > requests, 'and some were sent again')
  const posts = await during(upstream, ({ socket }) => { socket.resetAndDestroy() }, async () => {
    for (let i = 0; i < 10; i++) await call(fresh.url, { method: 'POST', path: open, headers: ['content-length', '0'] })
  })
  t.equal(posts.seen.length, 10)
})

t.test('B3-03: an upstream that hangs before its headers is 504', async t => {
  for (const method of ['GET', 'POST']) {
    const { result, seen } = await during(upstream, () => {}, async () => await call(hasty.url, { method, path: open, headers: method === 'POST' ? ['content-length', '2'] : [], ...(method === 'POST' && { body: '{}' }) }))
    t.match([result.status, result.problem.code, seen.length], [504, 'upstream_timeout', 1], method)
    await seen[0]?.closed
  }
})

t.test('B3-03: so is one whose connections are all in use; who left while it waited for one is not sent', async t => {
  const { url } = await house.openGateway({ KEYGATE_UPSTREAM_TIMEOUT_MS: '400', KEYGATE_UPSTREAM_CONNECTIONS: '1' })
  const { result: holder } = await during(upstream, say('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'), async () => {
    const client = rawClient(url, plain(open))
    await client.until('hello')
    return client
  })
  const { result, seen } = await during(upstream, ok(), async () => {
    rawClient(url, plain(`${open}?leaves`)).socket.end()
    const waiting = await get(`${open}?waits`, [], url)
    const stays = rawClient(url, plain(`${open}?stays`))
    holder.socket.destroy()
    return { waiting, stays: await stays.closed }
  })
  t.match([result.waiting.status, result.waiting.problem.code], [504, 'upstream_timeout'])
  t.match(result.stays.text, /^HTTP\/1\.1 200 /, 'a connection is free again')
  t.strictSame(seen.map(({ target }) => target), ['/open/1?stays'])
})

t.test('B3-05: an upstream that dies in the middle of its body: the answer is cut, never one that looks whole', async t => {
  const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n'
  const sized = 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n'
  const close = 'Connection: close\r\n'
  const parts: Record<string, string> = {
    chunked: `${chunked}\r\n5\r\nhello\r\n`,
    'chunked, closing': `${chunked}${close}\r\n5\r\nhello\r\n`,
    'in a chunk': `${chunked}\r\nff\r\nhello`,
    'before the last line': `${chunked}\r\n5\r\nhello\r\n0\r\n`,
    sized: `${sized}\r\nhello`,
    'sized, closing': `${sized}${close}\r\nhello`,
    'sized, without a byte': `${sized}\r\n`
  }
  for (const [name, part] of Object.entries(parts)) {
    for (const how of ['end', 'reset'] as const) {
      const { result, seen } = await during(upstream, seen => {
        // The reset must not overtake what was said.
        seen.socket.write(part, 'latin1', () => { setTimeout(() => { if (how === 'end') seen.socket.end(); else seen.socket.resetAndDestroy() }, 20) })
      }, async () => await exchange(one, plain(open)))
      t.match(result.text, /^HTTP\/1\.1 200 /, `${name}, ${how}`)
      if (part.includes('chunked')) t.notMatch(result.text, '\r\n0\r\n\r\n', `${name}, ${how}: no terminator`)
      else t.ok(result.text.split('\r\n\r\n', 2)[1]?.length as number < 1000, `${name}, ${how}: short of its length`)
      t.equal(seen.length, 1, `${name}, ${how}: asked once`)
    }
  }
  const untilClose = 'HTTP/1.1 200 OK\r\n\r\nhello'
  const whole = await during(upstream, say(untilClose, 'end'), async () => await exchange(one, plain(open)))
  t.match(whole.result.text, /5\r\nhello\r\n0\r\n\r\n$/, 'an end of the connection may be the body\'s end')
  const reset = await during(upstream, ({ socket }) => { socket.write(untilClose, () => { setTimeout(() => { socket.resetAndDestroy() }, 20) }) }, async () => await exchange(one, plain(open)))
  t.notMatch(reset.result.text, '\r\n0\r\n\r\n', 'a reset is not')
  const old = await during(upstream, ({ socket }) => { socket.write(`${chunked}\r\n5\r\nhello\r\n`, () => { setTimeout(() => { socket.destroy() }, 20) }) }, async () => await exchange(one, `GET ${open} HTTP/1.0\r\nHost: a\r\n\r\n`))
  t.match([old.result.text, old.result.isReset], [/hello/, true], 'to HTTP/1.0, where a plain end would be the body\'s end')
})

t.test('B3-12: an upstream that closes connections at the very moment of use: 200 rounds, no failed GET', async t => {
  const fresh = await house.openGateway({})
  let round = 0
  const closesInUse: Behaviour = seen => { if (seen.nth > 1 && round % 10 === 0) seen.socket.destroy(); else ok()(seen) }
  const { result: statuses, seen } = await during(upstream, closesInUse, async () => {
    const statuses: number[] = []
    for (round = 1; round <= 200; round++) {
      statuses.push((await get(open, [], fresh.url)).status)
      // and one that closes what is idle: its end is on its way while the next request is
      if (round % 3 === 0) for (const socket of upstream.sockets) socket.end()
    }
    return statuses
  })
  t.strictSame(statuses.filter(status => status !== 200), [])
  t.ok(seen.length > 200, `${seen.length - 200} were sent again`)
})

t.test('B3-17: a gateway that is behind refuses at the door, before any look-up, and says that it lives', async t => {
  const slow = await house.openGateway({ KEYGATE_MAX_EVENT_LOOP_DELAY_MS: '20' })
  const cold = await project.createKey()
  upstream.behave = ok()
  t.equal((await get(things, ['x-api-key', secret], slow.url)).status, 200)
  const block = (): void => { for (const end = performance.now() + 150; performance.now() < end;); }
  let answer: Answer | undefined
  const { seen } = await during(upstream, ok(), async () => {
    for (let i = 0; i < 100; i++) {
      block()
      answer = await get(things, ['x-api-key', 'kg_no'], slow.url) // refused either way
      if (answer.status === 503) break
    }
  })
  t.match([answer?.status, answer?.problem.code, answer?.headers['retry-after']], [503, 'overloaded', '1'])
  const asked = await slow.metric('gateway_verifications_total')
  const [refused, live, ready] = await Promise.all([get(things, ['x-api-key', cold.secret], slow.url), get('/livez', [], slow.url), get('/readyz', [], slow.url)])
  t.match([refused.status, live.status, ready.status], [503, 200, 200])
  t.equal(await slow.metric('gateway_verifications_total'), asked, 'key-service was not asked')
  t.equal(seen.length, 0)
  for (let i = 0; i < 200 && refused.status === 503; i++) {
    refused.status = (await get(things, ['x-api-key', cold.secret], slow.url)).status
    await new Promise(resolve => { setTimeout(resolve, 50) })
  }
  t.equal(refused.status, 200, 'and is open again when it has caught up')
})

t.test('B3-04 B3-05: an upstream that hangs or dies in the middle of its body: cut, and the log says so', async t => {
  const gateway = await startService('gateway', {
    KEYGATE_PORT: '0',
    KEYGATE_APIS: stack.apisFile,
    KEYGATE_KEY_SERVICE_URL: stack.keyService.url,
    KEYGATE_SERVICE_TOKEN: stack.tokens.gateway,
    REDIS_URL: stack.redisUrl,
    KEYGATE_ALLOW_PRIVATE_UPSTREAM: 'true',
    KEYGATE_DRAIN_DELAY_MS: '0',
    KEYGATE_UPSTREAM_IDLE_TIMEOUT_MS: '400'
  })
  t.teardown(gateway.stop)
  for (const head of ['Content-Length: 1000', 'Transfer-Encoding: chunked']) {
    const { result, seen } = await during(upstream, say(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n${head.startsWith('C') ? 'abc' : '3\r\nabc\r\n'}`), async () => await exchange(gateway.url, plain(open)))
    t.match(result.text, /^HTTP\/1\.1 200 [^]*abc/)
    t.notMatch(result.text, '\r\n0\r\n\r\n', head)
    await seen[0]?.closed
  }
  const died = await during(upstream, say('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc', 'end'), async () => await exchange(gateway.url, plain(open)))
  t.match(died.result.text, /abc$/)
  await gateway.stop()
  const lines = gateway.output().split('\n').filter(line => line.startsWith('{')).map(line => JSON.parse(line) as { msg: string, status?: number, isCut?: boolean, err?: { code?: string } })
  const broken = lines.filter(({ msg }) => msg === 'upstream broke off')
  t.match(broken.map(({ err }) => err?.code), ['UND_ERR_BODY_TIMEOUT', 'UND_ERR_BODY_TIMEOUT', 'UND_ERR_SOCKET'])
  t.match(lines.filter(({ msg }) => msg === 'request'), [{ status: 200, isCut: true }, { status: 200, isCut: true }, { status: 200, isCut: true }])
})
