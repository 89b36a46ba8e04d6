import { once } from 'node:events'
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { call, openGatewayHouse } from './house.ts'
import { MiB, descriptors, ended, heapOf, paused, pourInto, resident, sip, stalled, startMeasuredGateway, until } from './process.ts'
import { ok, rawApi, rawClient, startRawUpstream, type Seen } from './raw.ts'

const bodySize = Number(process.env['KEYGATE_LARGE_BODY_MIB'] ?? '256') * MiB
const aborts = 10_000

const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-memory-'))
t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
const upstream = await startRawUpstream()
t.teardown(upstream.close)
const house = await openGatewayHouse(() => `apis:${rawApi(dir, upstream.url)}`)
t.teardown(house.stop)
const project = await house.createProject()
const things = '/raw/things/1'
const open = '/raw/open/1'
const gateway = await startMeasuredGateway(house, { LOG_LEVEL: 'silent' })

t.test('B3-06: a large body to a slow reader, and one from a fast sender to a slow upstream: memory stays flat', async t => {
  const down = async (size: number): Promise<{ held: number, most: number, read: number }> => {
    const arrived = new Promise<Seen>(resolve => { upstream.behave = resolve })
    const socket = await paused(gateway.url, `GET ${open} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
    const head = `HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`
    const pour = pourInto((await arrived).socket, head, size)
    const held = await stalled(pour.sent)
    let most = 0
    const read = await sip(socket, () => { most = Math.max(most, resident(gateway)) })
    return { held, most, read }
  }
  const up = async (size: number): Promise<{ held: number, most: number, read: number }> => {
    const arrived = new Promise<Seen>(resolve => { upstream.behave = seen => { seen.socket.pause(); resolve(seen) } })
    const client = rawClient(gateway.url, '')
    const pour = pourInto(client.socket, `POST ${open} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: ${size}\r\n\r\n`, size)
    const seen = await arrived
    const held = await stalled(pour.sent)
    let most = 0
    let next = 0
    seen.socket.on('data', () => {
      if (seen.bodyBytes < next) return
      next += 8 * MiB
      most = Math.max(most, resident(gateway))
    })
    seen.socket.resume()
    await seen.whole
    ok()(seen)
    await client.closed
    return { held, most, read: seen.bodyBytes }
  }
  for (const [name, send] of Object.entries({ down, up })) {
    await send(48 * MiB)
    const before = resident(gateway)
    const { held, most, read } = await send(bodySize)
    t.ok(read >= bodySize, `${name}: all of it arrived`)
    t.ok(held < 64 * MiB, `${name}: who sends waits for who reads; ${(held / MiB).toFixed(1)} MiB were on their way`)
    t.ok(most - before < 64 * MiB, `${name}: ${(before / MiB).toFixed(0)} MiB before, at most ${(most / MiB).toFixed(0)} MiB for ${bodySize / MiB} MiB`)
  }
})

t.test('B3-06: pipelined downloads come one after the other, each when it is read: memory stays flat', async t => {
  const count = 60
  const size = Math.round(bodySize / count)
  const order: string[] = []
  let [now, mostAtOnce, peak] = [0, 0, 0]
  upstream.behave = ({ socket, target }) => {
    order.push(target.slice(target.indexOf('?') + 1))
    mostAtOnce = Math.max(mostAtOnce, ++now)
    pourInto(socket, `HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`, size, () => { now-- })
  }
  const before = resident(gateway)
  const requests = Array.from({ length: count }, (_, i) => `GET ${open}?${i} HTTP/1.1\r\nHost: a\r\n${i === count - 1 ? 'Connection: close\r\n' : ''}\r\n`)
  const client = await paused(gateway.url, requests.join(''))
  await until('the first has come', () => order.length > 0)
  const read = await sip(client, () => { peak = Math.max(peak, resident(gateway)) })
  t.ok(read >= count * size, 'all of them came')
  t.strictSame(order, requests.map((_, i) => String(i)), 'in their order')
  t.equal(mostAtOnce, 1, 'and held one connection')
  t.ok(peak - before < 64 * MiB, `${(before / MiB).toFixed(0)} MiB before, at most ${(peak / MiB).toFixed(0)} MiB for ${count} of ${(size / MiB).toFixed(1)} MiB`)
})

t.test('B3-10 B3-11: clients that leave, before the headers, in the stream, in the upload: 10 000 of them, pipelined ones too, leave nothing behind, and are counted', async t => {
  const { secret } = await project.createKey({ policies: [{ name: 'p', limit: 100_000, windowSeconds: 3600 }] })
  const key = `x-api-key: ${secret}\r\n`
  const pair = `GET ${things}?first HTTP/1.1\r\nHost: a\r\n${key}\r\n`
  const requests = [
    `GET ${things} HTTP/1.1\r\nHost: a\r\n${key}\r\n`,
    `GET ${things}?stream HTTP/1.1\r\nHost: a\r\n${key}\r\n`,
    `POST ${things} HTTP/1.1\r\nHost: a\r\n${key}Content-Length: 100000\r\n\r\npart`,
    // One that is forwarded and one that waits behind it.
    pair + pair.replace('first', 'second'),
    `POST ${things} HTTP/1.1\r\nHost: a\r\n${key}Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n`
  ]
  const waiting = new Map<string, (seen: Seen) => void>()
  const closes: Array<Promise<unknown>> = []
  upstream.behave = seen => {
    if (seen.target.includes('stream')) seen.socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n')
    closes.push(seen.closed)
    waiting.get(seen.all('x-n')[0] ?? '')?.(seen)
  }
  let [n, sent] = [0, 0]
  const leave = async (): Promise<void> => {
    const number = String(n++)
    const isPair = Number(number) % requests.length === 3
    const text = requests[Number(number) % requests.length] as string
    const arrived = new Promise<Seen>(resolve => { waiting.set(number, resolve) })
    const socket = connect(Number(new URL(gateway.url).port), '127.0.0.1').on('error', () => {})
    socket.write(text.replace('\r\n\r\n', `\r\nX-N: ${number}\r\n\r\n`))
    sent += isPair ? 2 : 1
    await arrived
    waiting.delete(number)
    if (text.includes('stream')) await once(socket, 'data')
    if (Number(number) % 10 < 5) socket.destroy()
    else socket.resetAndDestroy()
  }
  /** Returns how many requests left. */
  const leaveAll = async (count: number): Promise<number> => {
    const lanes = 50
    const before = sent
    await Promise.all(Array.from({ length: lanes }, async () => { for (let i = 0; i < count / lanes; i++) await leave() }))
    await Promise.all(closes.splice(0))
    return sent - before
  }
  const remaining = async (): Promise<number> => {
    const behave = upstream.behave
    upstream.behave = ok()
    const answer = await call(gateway.url, { path: things, headers: ['x-api-key', secret, 'connection', 'close'] })
    upstream.behave = behave
    return Number(/remaining=(\d+)/.exec(answer.headers['ratelimit'] ?? '')?.[1])
  }
  const left = async (): Promise<number> => await ended(gateway, 499)

  const begun = performance.now()
  const warmUp = await leaveAll(aborts / 5)
  t.comment(`${(performance.now() - begun).toFixed(0)} ms for ${warmUp}`)
  await until('the first have gone', async () => await left() === warmUp)
  await remaining()
  const before = { descriptors: descriptors(gateway), heap: await heapOf(gateway), resident: resident(gateway), remaining: await remaining() }
  upstream.seen.length = 0
  const count = await leaveAll(aborts * 4 / 5)
  await until('all have gone', async () => await left() === warmUp + count)
  t.equal(await left() - warmUp, count, 'each is a 499')
  t.equal(before.remaining - await remaining(), count + 1, 'and was counted against the limit')
  t.strictSame(upstream.seen.filter(({ target }) => target.endsWith('second')), [], 'and the upstream never heard of those that waited')
  await until('the descriptors are given back', () => descriptors(gateway) <= before.descriptors + 5)
  const heap = await heapOf(gateway) - before.heap
  t.ok(heap < count * 256, `${heap} bytes of heap more after ${count}`)
  t.ok(resident(gateway) - before.resident < 64 * MiB, `${((resident(gateway) - before.resident) / MiB).toFixed(1)} MiB more`)
})
