import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { Gate, type Caller } from '../src/proxy/gate.ts'
import { call, openGatewayHouse, type Answer } from './house.ts'
import { MiB, pourInto, stalled, until } from './process.ts'
import { ok, plain, rawApi, rawClient, startRawUpstream, type RawClient, type Seen } from './raw.ts'

const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-connections-'))
t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
const upstream = await startRawUpstream()
t.teardown(upstream.close)
const house = await openGatewayHouse(() => `apis:${rawApi(dir, upstream.url)}`, { KEYGATE_UPSTREAM_TIMEOUT_MS: '30000' })
t.teardown(house.stop)
const keys = await Promise.all(Array.from({ length: 3 }, async () => (await (await house.createProject()).createKey()).secret)) as [string, string, string]
const things = '/raw/things/1'
const open = '/raw/open/1'
const keyed = (secret: string): string => `X-API-Key: ${secret}\r\n`
const get = async (url: string, secret: string, query = ''): Promise<Answer> => await call(url, { path: `${things}?${query}`, headers: ['x-api-key', secret] })

/** An upload that has begun and does not go on. */
const stuck = (url: string, headers: string, path = things): RawClient => rawClient(url, `POST ${path} HTTP/1.1\r\nHost: a\r\n${headers}Content-Length: 1000\r\n\r\nx`)

/** Answers what has no body and holds what has one. */
const holdUploads = (seen: Seen): void => { if (seen.method === 'GET') ok()(seen) }
const uploads = (from = 0): Seen[] => upstream.seen.slice(from).filter(({ method }) => method === 'POST')

t.test('the gate: nobody takes more than is left then, each and those without a key together; no place is free while somebody waits who may have it', async t => {
  let seed = 5
  const random = (below: number): number => { seed = Math.imul(seed, 1103515245) + 12345 >>> 0; return (seed >>> 8) % below }
  const callers: Caller[] = [...'abcd'].map(name => ({ name, isKeyless: name > 'b' }))
  const has = (list: Caller[], isCounted: (caller: Caller) => boolean): number => list.filter(isCounted).length
  /** Whether a caller may take one more, of whom so many are taken by these and so many are free. */
  const mayTake = (caller: Caller, taken: Caller[], free: number): boolean => has(taken, other => other === caller) < free && (!caller.isKeyless || has(taken, other => other.isKeyless) < free)
  for (let round = 0; round < 50; round++) {
    const [places, room] = [1 + random(12), random(12)]
    const gate = new Gate({ places, room })
    const inside: Caller[] = []
    const waiting: Array<{ caller: Caller, n: number, waiter: { proceed: () => void } }> = []
    const begun: Record<string, number> = {}
    const those = (): Caller[] => waiting.map(({ caller }) => caller)
    for (let n = 0; n < 300; n++) {
      const act = random(4)
      if (act < 2) {
        const caller = callers[random(4)] as Caller
        const entry = { caller, n, waiter: { proceed: () => { waiting.splice(waiting.indexOf(entry), 1); inside.push(caller); if (n < (begun[caller.name] ?? 0)) t.fail('out of turn'); begun[caller.name] = n } } }
        const expected = mayTake(caller, inside, places - inside.length) ? 'in' : mayTake(caller, those(), room - waiting.length) ? 'waits' : 'full'
        const outcome = gate.enter(entry.waiter, caller)
        if (outcome !== expected) t.fail(`${outcome} instead of ${expected}`)
        if (outcome === 'in') inside.push(caller)
        else if (outcome === 'waits') waiting.push(entry)
      } else if (act === 2 && inside.length > 0) gate.leave(inside.splice(random(inside.length), 1)[0] as Caller)
      else if (waiting.length > 0) {
        const [{ waiter, caller }] = waiting.splice(random(waiting.length), 1) as [typeof waiting[number]]
        if (!gate.forget(waiter, caller)) t.fail('it waited')
        if (gate.forget(waiter, caller)) t.fail('it waits no more')
      }
      await Promise.resolve()
      if (inside.length > places || gate.free !== places - inside.length || gate.waiting !== waiting.length || waiting.length > room) t.fail(`${inside.length} inside`)
      if (those().some(caller => mayTake(caller, inside, gate.free))) t.fail('a place is free, and somebody waits who may have it')
    }
  }
  const order: string[] = []
  const gate = new Gate({ places: 1, room: 100 })
  const caller = (name: string): Caller => ({ name: name.slice(0, 1), isKeyless: false })
  gate.enter({ proceed: () => {} }, caller('a'))
  for (const name of ['a1', 'a2', 'a3', 'b1', 'b2', 'c1']) gate.enter({ proceed: () => { order.push(name); gate.leave(caller(name)) } }, caller(name))
  gate.leave(caller('a'))
  while (gate.waiting > 0) await Promise.resolve()
  await Promise.resolve()
  t.strictSame(order, ['a1', 'b1', 'c1', 'a2', 'b2', 'a3'], 'callers take turns')

  const crowd = new Gate({ places: 256, room: 1024 })
  const takesAll = (caller: Caller): number[] => {
    const outcomes = Array.from({ length: 3000 }, () => crowd.enter({ proceed: () => {} }, caller))
    return ['in', 'waits'].map(wanted => outcomes.filter(outcome => outcome === wanted).length)
  }
  t.strictSame(takesAll(caller('a')), [128, 512], 'who is alone gets half')
  t.strictSame(takesAll(caller('b')), [64, 256], 'and leaves half of the rest')
  for (let i = 0; i < 1000; i++) takesAll({ name: `address ${i}`, isKeyless: true })
  t.ok(crowd.free >= 32, 'a thousand addresses are no more than one caller')
  t.equal(crowd.enter({ proceed: () => {} }, caller('c')), 'in')
})

t.test('GX-18 B3-06: an upload that does not go on is 408, and its connections end; a slow one goes on', async t => {
  const { url } = await house.openGateway({ KEYGATE_UPSTREAM_IDLE_TIMEOUT_MS: '400' })
  for (const framing of ['Content-Length: 1000\r\n\r\nx', 'Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n', 'Content-Length: 10\r\n\r\n']) {
    const arrived = new Promise<Seen>(resolve => { upstream.behave = resolve })
    const client = rawClient(url, `POST ${open} HTTP/1.1\r\nHost: a\r\n${framing}`)
    const { text, isReset } = await client.closed
    t.match(text, /^HTTP\/1\.1 408 [^]*connection: close\r\n[^]*"code":"request_timeout"/i, framing)
    t.notOk(isReset)
    if (!framing.endsWith('10\r\n\r\n')) await (await arrived).closed // undici sends nothing before a body's first part
  }
  const slow = new Promise<Seen>(resolve => { upstream.behave = resolve })
  const client = rawClient(url, `POST ${open} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 30\r\n\r\n`)
  for (let i = 0; i < 30; i++) {
    client.socket.write('x')
    await delay(40)
  }
  await (await slow).whole
  ok()(await slow)
  t.match((await client.closed).text, /^HTTP\/1\.1 200 /, 'the deadline is for silence, not for the whole')
})

t.test('B3-06: no time passes for a client while the upstream is what does not read', async t => {
  const { url } = await house.openGateway({ KEYGATE_UPSTREAM_IDLE_TIMEOUT_MS: '400' })
  const size = 32 * MiB
  const arrived = new Promise<Seen>(resolve => { upstream.behave = seen => { seen.socket.pause(); resolve(seen) } })
  const client = rawClient(url, '')
  const pour = pourInto(client.socket, `POST ${open} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: ${size}\r\n\r\n`, size)
  const seen = await arrived
  await stalled(pour.sent)
  await delay(1000)
  seen.socket.resume()
  await seen.whole
  ok()(seen)
  t.match((await client.closed).text, /^HTTP\/1\.1 200 /)
})

t.test('B3-06: an upload that does not go on although its answer has begun is cut', async t => {
  const { url } = await house.openGateway({ KEYGATE_UPSTREAM_IDLE_TIMEOUT_MS: '400' })
  const arrived = new Promise<Seen>(resolve => { upstream.behave = seen => { seen.socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'); resolve(seen) } })
  const client = stuck(url, '', open)
  const seen = await arrived
  const events = setInterval(() => { seen.socket.write('5\r\nhello\r\n') }, 50)
  const { text } = await client.closed
  clearInterval(events)
  t.match(text, /^HTTP\/1\.1 200 [^]*hello/)
  t.notMatch(text, '\r\n0\r\n\r\n')
  await seen.closed
})

t.test('GX-18: one project, or one address, has its share of an upstream\'s connections; the others are served beside it', async t => {
  const { url } = await house.openGateway({ KEYGATE_UPSTREAM_CONNECTIONS: '4' })
  upstream.behave = holdUploads
  const from = upstream.seen.length
  const slow = Array.from({ length: 6 }, () => stuck(url, keyed(keys[0])))
  await until('two have come', () => uploads(from).length === 2)
  for (let i = 0; i < 10; i++) t.equal((await get(url, keys[1])).status, 200, 'another project')
  const own = get(url, keys[0], 'own')
  const anonymous = Array.from({ length: 3 }, () => stuck(url, '', open))
  await until('one of an address', () => uploads(from).length === 3)
  for (let i = 0; i < 10; i++) t.equal((await get(url, keys[1])).status, 200, 'and beside both of them')
  t.equal(upstream.seen.some(({ target }) => target.includes('own')), false)
  t.equal(uploads(from).filter(({ target }) => target.startsWith('/things')).length, 2, 'by its share of two, not by its six')
  for (const client of [...anonymous, ...slow]) client.socket.destroy()
  t.equal((await own).status, 200)
})

t.test('B3-03: the queue for a connection has an end, beyond which the answer is 503 at once; who leaves makes room', async t => {
  const { url } = await house.openGateway({ KEYGATE_UPSTREAM_CONNECTIONS: '1', KEYGATE_UPSTREAM_QUEUE: '3' })
  upstream.behave = holdUploads
  const from = upstream.seen.length
  const holder = stuck(url, keyed(keys[0]))
  await until('it has come', () => uploads(from).length === 1)
  const leaver = (): RawClient => rawClient(url, plain(`${things}?leaves`, { headers: keyed(keys[1]) }))
  /** Asks once more and leaves: an answer comes at once or not at all. */
  const isFull = async (): Promise<boolean> => {
    const { closed, socket } = leaver()
    const text = await Promise.race([closed.then(({ text }) => text), delay(100).then(() => '')])
    socket.resetAndDestroy()
    return /^HTTP\/1\.1 503 [^]*retry-after: 1\r\n[^]*"code":"upstream_busy"/i.test(text)
  }
  for (let round = 0; round < 3; round++) {
    const leaving = [leaver(), leaver()]
    await until('it is full', isFull)
    for (const { socket } of leaving) socket.resetAndDestroy()
    await until('there is room', async () => !await isFull())
  }
  const stays = get(url, keys[1], 'stays')
  await delay(50)
  holder.socket.destroy()
  t.equal((await stays).status, 200)
  t.strictSame(upstream.seen.slice(from).filter(({ target }) => target.includes('leaves')), [], 'who left while it waited is not sent')
})

t.test('GX-18: 200 slow heads and 200 slow bodies are ended by the deadlines, and the others are served meanwhile', async t => {
  const { url } = await house.openGateway({ KEYGATE_HEADERS_TIMEOUT_MS: '2000', KEYGATE_REQUEST_TIMEOUT_MS: '3000' })
  upstream.behave = holdUploads
  const timed = async (): Promise<number> => {
    const begun = performance.now()
    t.equal((await get(url, keys[1])).status, 200)
    return performance.now() - begun
  }
  const p99 = (all: number[]): string => (all.toSorted((a, b) => a - b)[Math.floor(all.length * 0.99)] as number).toFixed(1)
  const alone: number[] = []
  for (let i = 0; i < 200; i++) alone.push(await timed())
  const slow = Array.from({ length: 400 }, (_, i) => {
    const client = rawClient(url, i % 2 === 0 ? `GET ${things} HTTP/1.1\r\nHost: a\r\nX-Slow: ` : `POST ${things} HTTP/1.1\r\nHost: a\r\n${keyed(keys[0])}Content-Length: 1000\r\n\r\n`)
    const drip = setInterval(() => { client.socket.write('x') }, 200)
    client.socket.on('close', () => { clearInterval(drip) })
    return client.closed
  })
  const reaped = { all: false }
  const all = Promise.all(slow).finally(() => { reaped.all = true })
  const beside: number[] = []
  while (!reaped.all) beside.push(await timed())
  t.strictSame([...new Set((await all).map(({ text }) => text.slice(0, 12)))], ['HTTP/1.1 408'])
  t.comment(`p99 of ${alone.length} requests alone ${p99(alone)} ms, of ${beside.length} beside 400 slow ones ${p99(beside)} ms`)
  upstream.behave = ok()
  t.equal((await call(url, { path: open })).status, 200)
})
