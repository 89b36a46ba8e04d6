import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { call, openGatewayHouse } from './house.ts'
import { MiB, paused, pourInto, startMeasuredGateway, until } from './process.ts'
import { ok, rawApi, rawClient, startRawUpstream, type RawClient, type Seen } from './raw.ts'

const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-streams-'))
t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
const upstream = await startRawUpstream()
t.teardown(upstream.close)
const house = await openGatewayHouse(() => `apis:${rawApi(dir, upstream.url)}`, { KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_MAX_EVENT_LOOP_DELAY_MS: '0' })
t.teardown(house.stop)
const { stack, clock } = house
const project = await house.createProject()
const things = '/raw/things/1'
const open = '/raw/open/1'

/** A request whose answer the upstream keeps open. */
async function hold (url: string, headers: string, head = 'Content-Type: text/plain\r\n', path = things): Promise<{ client: RawClient, seen: Seen, send: (text: string) => Promise<void> }> {
  const arrived = new Promise<Seen>(resolve => { upstream.behave = resolve })
  const client = rawClient(url, `GET ${path} HTTP/1.1\r\nHost: a\r\n${headers}\r\n`)
  const seen = await Promise.race([arrived, client.closed.then(({ text }) => { throw new Error(`it was not forwarded: ${text}`) })])
  seen.socket.write(`HTTP/1.1 200 OK\r\n${head}Transfer-Encoding: chunked\r\n\r\n`)
  await client.until('\r\n\r\n')
  return {
    client,
    seen,
    send: async text => {
      seen.socket.write(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`)
      await client.until(text)
    }
  }
}

const isCut = ({ text }: { text: string }): boolean => text.startsWith('HTTP/1.1 200 ') && !text.includes('\r\n0\r\n\r\n')

const gateway = await startMeasuredGateway(house, { KEYGATE_STREAM_CHECK_MS: '200' })

t.test('B3-07: events arrive one by one, the headers before the first; the deadline is for silence, not for the whole', async t => {
  const idleMs = 1500
  const { url } = await house.openGateway({ KEYGATE_UPSTREAM_IDLE_TIMEOUT_MS: String(idleMs) })
  const begun = performance.now()
  const { client, seen, send } = await hold(url, '', 'Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n', open)
  t.match(client.text(), /^HTTP\/1\.1 200 [^]*x-accel-buffering: no\r\n/i, 'the headers are there, and no event is')
  // Each is sent only when the one before it has arrived: whoever collects them waits for ever.
  let events = 0
  while (performance.now() - begun < idleMs * 1.5) {
    await send(`data: event ${++events};\n\n`)
    if (events > 20) await delay(100)
  }
  t.ok(events > 20, `${events} events in ${idleMs * 1.5} ms`)
  seen.socket.write('0\r\n\r\n')
  await client.until('\r\n0\r\n\r\n')
  client.socket.destroy()
  const other = await hold(url, '', undefined, open)
  t.notMatch(other.client.text(), /x-accel-buffering/i, 'only for events')
  t.ok(isCut(await other.client.closed), 'and silence has its deadline')
})

t.test('open streams end when their key is refused, and the client sees that it is not the end', async t => {
  const gateway = await house.openGateway({ KEYGATE_STREAM_CHECK_MS: '50' })
  const changes: Record<string, (id: string) => Promise<unknown>> = {
    revoke: async id => await project.change(id, 'POST', '/revoke', {}),
    disable: async id => await project.change(id, 'POST', '/disable'),
    delete: async id => await project.change(id, 'DELETE', ''),
    'rotate without grace': async id => await project.change(id, 'POST', '/rotate', {}),
    'another host': async id => await project.change(id, 'PATCH', '', { allowedHosts: ['10.9.8.7'] }),
    'no scope': async id => await project.change(id, 'PATCH', '', { allowedForAll: false }),
    expiry: async id => {
      const at = Date.now() + 3_600_000
      await project.change(id, 'PATCH', '', { expiresAt: new Date(at).toISOString() })
      clock.micros = (at + 1) * 1000
    }
  }
  for (const [name, change] of Object.entries(changes)) {
    const { id, secret } = await project.createKey()
    const bystander = await project.createKey(name === 'expiry' ? {} : { name: 'bystander' })
    const other = await hold(gateway.url, `x-api-key: ${bystander.secret}\r\n`)
    const { client, seen, send } = await hold(gateway.url, `x-api-key: ${secret}\r\n`)
    await send('hello')
    const ended = await gateway.metric('gateway_streams_ended_total')
    await change(id)
    t.ok(isCut(await client.closed), name)
    await seen.closed
    t.equal(await gateway.metric('gateway_streams_ended_total'), ended + 1, name)
    await other.send('still here')
    other.client.socket.destroy()
  }
  clock.micros = undefined
})

t.test('open streams outlive a limit that is cut, and whatever does not answer; to judge them counts nothing', async t => {
  const gateway = await house.openGateway({ KEYGATE_STREAM_CHECK_MS: '50', KEYGATE_VERIFY_TIMEOUT_MS: '200' })
  const policies = (limit: number): object => ({ policies: [{ name: 'p', limit, windowSeconds: 3600 }] })
  const { id, secret } = await project.createKey(policies(100))
  const headers = ['x-api-key', secret]
  const { client, seen, send } = await hold(gateway.url, `x-api-key: ${secret}\r\n`)
  const judged = async (times = 3): Promise<void> => {
    const from = await gateway.metric('gateway_ratelimit_decisions_total')
    await until('it is judged', async () => await gateway.metric('gateway_ratelimit_decisions_total') >= from + times)
  }
  await judged(5)
  upstream.behave = ok()
  t.match((await call(gateway.url, { path: things, headers })).headers['ratelimit'], 'limit=100, remaining=98', 'the stream and this')
  for (let i = 0; i < 3; i++) await call(gateway.url, { path: things, headers })
  await project.change(id, 'PATCH', '', policies(2))
  t.equal((await call(gateway.url, { path: things, headers })).status, 429, 'more was used than there is now')
  await judged()
  await send('after the cut')

  process.kill(stack.keyService.pid, 'SIGSTOP')
  await judged()
  await send('without key-service')
  process.kill(stack.redis?.pid ?? 0, 'SIGSTOP')
  try {
    const failures = await gateway.metric('gateway_store_failures_total')
    await until('Redis is missed', async () => await gateway.metric('gateway_store_failures_total') > failures)
    await judged()
    await send('without both')
    process.kill(stack.keyService.pid, 'SIGCONT')
    await judged()
    await send('without Redis')
  } finally {
    process.kill(stack.keyService.pid, 'SIGCONT')
    process.kill(stack.redis?.pid ?? 0, 'SIGCONT')
  }
  await until('Redis is back', async () => await gateway.metric('gateway_ratelimit_degraded') === 0)
  await judged()
  await send('with both')
  seen.socket.write('0\r\n\r\n')
  await client.until('\r\n0\r\n\r\n')
  t.equal(await gateway.metric('gateway_streams_ended_total'), 0)
  client.socket.destroy()
})

t.test('a client that does not read on is not waited for without end', async t => {
  const { url } = await house.openGateway({ KEYGATE_UPSTREAM_IDLE_TIMEOUT_MS: '500' })
  const arrived = new Promise<Seen>(resolve => { upstream.behave = resolve })
  const socket = await paused(url, `GET ${open} HTTP/1.1\r\nHost: a\r\n\r\n`)
  const { socket: sender, closed } = await arrived
  const pour = pourInto(sender, `HTTP/1.1 200 OK\r\nContent-Length: ${512 * MiB}\r\n\r\n`, 512 * MiB)
  await closed
  t.ok(pour.sent() < 512 * MiB, 'the upstream is let go')
  socket.destroy()
})

t.test('what happens to a stream is in the log', async t => {
  const { id, secret } = await project.createKey()
  const ended = await hold(gateway.url, `x-api-key: ${secret}\r\n`)
  await project.change(id, 'POST', '/disable')
  t.ok(isCut(await ended.client.closed))
  const left = await hold(gateway.url, '', undefined, open)
  left.client.socket.destroy()
  await left.seen.closed
  await gateway.stop()
  const lines = gateway.output().split('\n').filter(line => line.startsWith('{"')).map(line => JSON.parse(line) as { msg: string, code?: string, level: number, status?: number })
  t.match(lines.filter(({ code }) => code === 'key_disabled'), [{ msg: 'a stream was ended because its key is refused' }])
  t.ok(lines.some(({ status }) => status === 499), 'B3-10: who left is a 499')
  t.strictSame(lines.filter(({ level }) => level >= 40).map(({ msg }) => msg), [], 'and no fault of anybody')
})
