import { fork } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { Agent, createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, createServer as createTcpServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Service } from '@keygate/local'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { basicOf, openGatewayHouse } from './house.ts'

/** An API that answers when it is told to, by `?as=`: at once, held back, or with events that do not end. */
const held: ServerResponse[] = []
const api = createServer((asked, response) => {
  const as = new URL(asked.url ?? '', 'http://api').searchParams.get('as')
  if (as === null) response.end('plain')
  else held.push(response)
  if (as === 'events') response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: 1\n\n')
  api.emit(as ?? 'plain')
})
api.listen(0, '127.0.0.1')
await once(api, 'listening')
const portOf = (server: { address: () => unknown }): number => (server.address() as AddressInfo).port

const house = await openGatewayHouse(() => `
apis:
  - name: forms
    prefix: /forms-api
    upstream: http://127.0.0.1:${portOf(api)}
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
`)
const project = await house.createProject()
const key = await project.createKey()
const path = `/forms-api/forms/${project.id}`
const credentials = basicOf(`${project.id}:${key.secret}`)
const redis = new Redis(house.stack.redisUrl)
const agent = new Agent({ keepAlive: true })
t.teardown(async () => {
  agent.destroy()
  redis.disconnect()
  api.close()
  api.closeAllConnections()
  await house.stop()
})

/** An answer whose body may still be on its way. */
async function ask ({ url }: Service, target: string, headers: string[] = credentials): Promise<IncomingMessage> {
  const { host, hostname, port } = new URL(url)
  const sent = request({ agent, host: hostname, port, path: target, headers: ['host', host, ...headers] })
  sent.end()
  const [answer] = await once(sent, 'response') as [IncomingMessage]
  return answer.setEncoding('utf8')
}

async function whole (answer: IncomingMessage): Promise<{ status: number | undefined, connection: string | undefined, body: string }> {
  let body = ''
  for await (const chunk of answer) body += String(chunk)
  return { status: answer.statusCode, connection: answer.headers.connection, body }
}

const get = async (gateway: Service, target: string, headers?: string[]): ReturnType<typeof whole> => await whole(await ask(gateway, target, headers))

/** Asks until it holds; the deadline is for a broken test. */
async function until (what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await delay(10)) {
    if (await holds().catch(() => false)) return
  }
  throw new Error(`waited in vain: ${what}`)
}

async function isRefused ({ url }: Service): Promise<boolean> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  const refused = await once(socket, 'connect').then(() => false, () => true)
  socket.destroy()
  return refused
}

const isNotReady = (gateway: Service) => async (): Promise<boolean> => (await get(gateway, '/readyz', [])).status === 503
const clients = async (): Promise<number> => String(await redis.client('LIST')).trim().split('\n').length
const beating = async (): Promise<string[]> => await redis.zrange('kg:gateways', '0', '-1')
await until('the two gateways of the house beat', async () => (await beating()).length === 2)

t.test('B4-01: SIGTERM: not ready at once, served on, every answer ends its connection, then none is taken, what is under way ends, exit 0', async t => {
  const before = { clients: await clients(), beating: await beating() }
  const gateway = await house.startGateway({ KEYGATE_DRAIN_DELAY_MS: '3000', KEYGATE_SHUTDOWN_TIMEOUT_MS: '60000' })
  await until('it beats', async () => (await beating()).length === 3)
  t.match(await get(gateway, path), { status: 200, connection: 'keep-alive', body: 'plain' })
  t.equal((await get(gateway, '/readyz', [])).status, 200)
  const [early, late] = [ask(gateway, `${path}?as=held`), ask(gateway, `${path}?as=held`)]
  await until('two are under way', async () => held.length === 2)
  const silent = connect(Number(new URL(gateway.url).port), '127.0.0.1') // as browsers keep in store
  await once(silent, 'connect')

  process.kill(gateway.pid, 'SIGTERM')
  await until('it is not ready', isNotReady(gateway))
  t.match(await get(gateway, '/livez', []), { status: 200, connection: 'close' })
  t.match(await get(gateway, path), { status: 200, connection: 'close', body: 'plain' }, 'it serves on')
  t.match(await get(gateway, path, []), { status: 401, connection: 'close' })
  held.shift()?.end('early')
  t.match(await whole(await early), { status: 200, connection: 'close', body: 'early' }, 'so says an answer to what came before the signal')

  await until('new connections are refused', async () => await isRefused(gateway))
  await once(silent.resume(), 'close')
  t.equal(await Promise.race([gateway.exited, 'running']), 'running', 'it waits for what is under way')
  held.shift()?.end('late')
  t.match(await whole(await late), { status: 200, connection: 'close', body: 'late' })
  t.equal(await gateway.exited, 0)
  t.match(gateway.output(), /"msg":"not ready any more"/)
  t.notMatch(gateway.output(), /cut what was still open/)
  t.strictSame((await beating()).sort(), before.beating.sort(), 'it is not counted any more')
  await until('its connection to Redis is gone', async () => await clients() === before.clients)
})

t.test('B4-03: an event stream that is open at SIGTERM goes on until the deadline, then it is cut, the log says how many, exit 0', async t => {
  const gateway = await house.startGateway({ KEYGATE_DRAIN_DELAY_MS: '0', KEYGATE_SHUTDOWN_TIMEOUT_MS: '3000' })
  const streams = await Promise.all([ask(gateway, `${path}?as=events`), ask(gateway, `${path}?as=events`)])
  const events = streams.map(() => '')
  const cut = Promise.all(streams.map(async (stream, i) => {
    stream.on('data', (chunk: string) => { events[i] += chunk })
    await new Promise(resolve => { stream.on('error', resolve).on('close', resolve) })
    return stream.complete
  }))
  await until('both have begun', async () => events.every(text => text === 'data: 1\n\n'))
  process.kill(gateway.pid, 'SIGTERM')
  await until('new connections are refused', async () => await isRefused(gateway))
  for (const response of held) response.write('data: 2\n\n')
  await until('both go on', async () => events.every(text => text === 'data: 1\n\ndata: 2\n\n'))
  t.strictSame(await cut, [false, false], 'the client sees that there was no end')
  t.equal(await gateway.exited, 0)
  t.match(gateway.output(), /"connections":2,"msg":"cut what was still open at the deadline"/)
  held.splice(0).forEach(response => response.destroy())
})

t.test('B4-01: a second signal ends it at once', async t => {
  const gateway = await house.startGateway({ KEYGATE_DRAIN_DELAY_MS: '600000', KEYGATE_SHUTDOWN_TIMEOUT_MS: '600000' })
  process.kill(gateway.pid, 'SIGTERM')
  await until('it is not ready', isNotReady(gateway))
  process.kill(gateway.pid, 'SIGTERM')
  t.equal(await gateway.exited, 1)
})

/** A gateway that is told to end when `waits` fulfils: in the middle of its start. */
async function endInStart (t: Test, env: Record<string, string>, waits: Promise<unknown>): Promise<void> {
  const before = await beating()
  const child = fork(fileURLToPath(new URL('../dist/server.js', import.meta.url)), {
    execArgv: [],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { PATH: process.env['PATH'], KEYGATE_PORT: '0', KEYGATE_APIS: house.stack.apisFile, KEYGATE_KEY_SERVICE_URL: house.stack.keyService.url, KEYGATE_SERVICE_TOKEN: house.stack.tokens.gateway, KEYGATE_ALLOW_PRIVATE_UPSTREAM: 'true', REDIS_URL: house.stack.redisUrl, ...env }
  })
  t.teardown(() => { child.kill('SIGKILL') })
  let said = ''
  child.stderr?.on('data', chunk => { said += String(chunk) })
  const messages: unknown[] = []
  child.on('message', message => { messages.push(message) })
  await waits
  child.kill('SIGTERM')
  const [code, signal] = await once(child, 'exit') as [number | null, string | null]
  t.strictSame({ code, signal, said, messages }, { code: 0, signal: null, said: '', messages: [] })
  t.strictSame((await beating()).filter(name => !before.includes(name)), [], 'no other gateway counts it')
}

t.test('B4-04: SIGTERM while it waits for an API\'s document', async t => {
  const documents = createServer(() => {})
  documents.listen(0, '127.0.0.1')
  await once(documents, 'listening')
  t.teardown(() => { documents.close(); documents.closeAllConnections() })
  const apis = join(t.testdir({}), 'apis.yaml')
  writeFileSync(apis, `apis:\n  - name: slow\n    prefix: /slow\n    upstream: http://127.0.0.1:1\n    openapi: http://127.0.0.1:${portOf(documents)}/openapi.json\n    scopes: tags\n`)
  await endInStart(t, { KEYGATE_APIS: apis }, once(documents, 'request'))
})

t.test('B4-04: SIGTERM while it waits for Redis', async t => {
  const silent = createTcpServer()
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const connected = once(silent, 'connection')
  t.teardown(async () => { silent.close(); (await connected)[0].destroy() })
  await endInStart(t, { REDIS_URL: `redis://127.0.0.1:${portOf(silent)}` }, connected)
})
