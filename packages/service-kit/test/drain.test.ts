import { once } from 'node:events'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { test, type Test } from 'tap'
import { createServer, health, loggerOptions, problem } from '../src/index.ts'
import { drain } from '../src/drain.ts'

interface Given { app: FastifyInstance, port: number, lines: Array<Record<string, unknown>>, release: Array<() => void>, events: string[] }

/** An app that listens, with an answer that is held back until it is released, and the order in which things end. */
async function listening (t: Test): Promise<Given> {
  const lines: Given['lines'] = []
  const [release, events]: [Given['release'], string[]] = [[], []]
  const stream = { write: (line: string) => { lines.push(JSON.parse(line) as Record<string, unknown>) } }
  const app = createServer({ service: 'test', logLevel: 'info', fastify: { logger: { ...loggerOptions('test', 'info'), stream } } })
  app.addHook('onClose', async () => { events.push('closed') })
  await app.register(problem)
  await app.register(health, { checks: {} })
  app.get('/plain', async () => 'plain')
  app.get('/held', async () => { await new Promise<void>(resolve => { release.push(resolve) }); events.push('answered'); return 'held' })
  app.get('/endless', (_request, reply) => { reply.hijack(); reply.raw.writeHead(200); reply.raw.write('x'); release.push(() => {}) })
  t.teardown(async () => { app.server.closeAllConnections(); await app.close() })
  await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, port: (app.server.address() as AddressInfo).port, lines, release, events }
}

function client (t: Test, port: number): { socket: Socket, send: (path: string) => void, read: () => string, ended: Promise<unknown> } {
  const socket = connect(port, '127.0.0.1')
  t.teardown(() => { socket.destroy() })
  let text = ''
  socket.on('data', chunk => { text += String(chunk) }).on('error', () => {})
  return { socket, send: path => { socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`) }, read: () => text, ended: once(socket, 'close') }
}

async function until (isSo: () => boolean): Promise<void> {
  while (!isSo()) await delay(1)
}

test('draining: not ready, every answer ends its connection, no new connections, what is under way ends before anything closes', async t => {
  const { app, port, release, events, lines } = await listening(t)
  const [kept, held, silent] = [client(t, port), client(t, port), client(t, port)]
  kept.send('/plain')
  held.send('/held')
  await until(() => release.length === 1 && kept.read().endsWith('plain') && app.connections.size === 3)
  t.match(kept.read(), /connection: keep-alive/i)

  const delayMs = 2000
  const drained = drain(app, { delayMs, deadlineMs: 60_000 })
  t.match(await app.inject('/readyz'), { statusCode: 503, headers: { connection: 'close' }, body: /^draining: not ready/ })
  t.match(await app.inject('/livez'), { statusCode: 200, headers: { connection: 'close' } })
  kept.send('/nowhere')
  await kept.ended
  t.match(kept.read(), /HTTP\/1\.1 404 [^]*connection: close/i, 'a connection that was kept ends with its next answer')
  const late = client(t, port)
  late.send('/plain')
  await late.ended
  t.match(late.read(), /HTTP\/1\.1 200 [^]*connection: close/i, 'during the delay new ones are served')

  await until(() => !app.server.listening)
  await silent.ended
  t.strictSame(events, [], 'nothing is closed while a request is under way')
  release[0]?.()
  await held.ended
  await drained
  t.match(held.read(), /HTTP\/1\.1 200 [^]*connection: close[^]*held$/i, 'one that came before says so too')
  t.strictSame(events, ['answered', 'closed'])
  t.equal(app.connections.size, 0)
  t.notOk(lines.some(({ msg }) => /cut/.test(String(msg))))
})

test('draining: what has no end is cut at the deadline, and counted', async t => {
  const { app, port, release, events, lines } = await listening(t)
  const endless = [client(t, port), client(t, port)]
  for (const { send } of endless) send('/endless')
  await until(() => release.length === 2)
  const drained = drain(app, { delayMs: 0, deadlineMs: 200 })
  await Promise.all(endless.map(async ({ ended }) => { await ended }))
  await drained
  t.match(lines.find(({ msg }) => msg === 'cut what was still open at the deadline'), { connections: 2 })
  t.strictSame(events, ['closed'])
})

test('draining: a delay that is longer than the deadline ends with it', async t => {
  const { app } = await listening(t)
  await drain(app, { delayMs: 600_000, deadlineMs: 50 })
  t.equal(app.server.listening, false)
})
