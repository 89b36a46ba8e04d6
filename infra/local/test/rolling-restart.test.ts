import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { Agent, createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import t from 'tap'
import { localApis } from '../src/apis.ts'
import { startNginx } from '../src/index.ts'
import { repoRoot } from '../src/root.ts'
import { hostOf, keptAlive, send, shippedConfig, type Answer } from './behind-nginx.ts'
import { basic, openHouse, until, type Key } from './house.ts'

/** So slow that each gateway always has some under way. */
const answerMs = 150

/** An API that counts what reached it, by the id that each request bears, and holds back the answers to some. */
class Api {
  readonly seen = new Map<string, number>()
  /** Requests that are held, and how many of them were broken off by whoever sent them. */
  readonly held: Array<() => void> = []
  readonly brokenOff: string[] = []
  readonly server = createServer((request, response) => { this.#answer(request, response) })

  get total (): number { return [...this.seen.values()].reduce((sum, count) => sum + count, 0) }

  release (): void { for (const answer of this.held.splice(0)) answer() }

  #answer (request: IncomingMessage, response: ServerResponse): void {
    const id = String(request.headers['x-test-id'])
    this.seen.set(id, (this.seen.get(id) ?? 0) + 1)
    const answer = (): void => { request.resume().on('end', () => { response.end(id) }) }
    response.on('close', () => { if (!response.writableEnded) this.brokenOff.push(id) })
    if (id.startsWith('held')) this.held.push(answer)
    else setTimeout(answer, answerMs)
  }
}

const api = new Api()
api.server.keepAliveTimeout = 60_000
api.server.listen(0, '127.0.0.1')
await once(api.server, 'listening')
// Longer than the 2 s after which nginx lets go of an idle connection (gateways.conf).
const house = await openHouse({
  gateways: 3,
  apis: localApis().replaceAll('http://127.0.0.1:4000', `http://127.0.0.1:${(api.server.address() as AddressInfo).port}`),
  env: { gateway: { KEYGATE_TRUST_PROXY: '127.0.0.1', KEYGATE_DRAIN_DELAY_MS: '3000' } }
})
const { gateways } = house.stack
const nginx = await startNginx({
  config: port => shippedConfig(['gateways.conf', 'balancer.conf'], {
    KEYGATE_LISTEN: `127.0.0.1:${port}`, KEYGATE_GATEWAY_1: hostOf(gateways[0]?.url), KEYGATE_GATEWAY_2: hostOf(gateways[1]?.url), KEYGATE_GATEWAY_3: hostOf(gateways[2]?.url)
  })
})
t.teardown(async () => {
  keptAlive.destroy()
  await nginx.stop()
  await Promise.all(gateways.map(async gateway => { await gateway.kill() }))
  await house.stop()
  api.server.close()
  api.server.closeAllConnections()
})

const forOnce = new Agent({ keepAlive: false })
let lastId = 0

/** A request through nginx with an id of its own; one without a whole answer has status 0. */
async function ask (key: Key, method = 'GET', { prefix = 'id', agent = keptAlive }: { prefix?: string, agent?: Agent } = {}): Promise<{ id: string, method: string, status: number, answer?: Answer }> {
  const id = `${prefix}-${++lastId}`
  const [path, body] = method === 'GET' ? [house.example, undefined] : [`${house.example}/submissions`, '{"answers":{}}']
  const headers = [...basic(house.projectId, key.secret), 'x-test-id', id, ...body === undefined ? [] : ['content-type', 'application/json', 'content-length', String(body.length)]]
  return await send(nginx.url, { method, path, agent, headers, ...(body !== undefined && { body }) })
    .then(answer => ({ id, method, status: answer.status, answer }), () => ({ id, method, status: 0 }))
}

const countOf = (results: Array<{ status: number }>, status: number): number => results.filter(result => result.status === status).length
const decisions = async (): Promise<number[]> => await Promise.all(gateways.map(async (_, index) => await house.metric(index, 'gateway_ratelimit_decisions_total')))

/** The left side of the usage balance: what Redis itself counted as admitted. */
async function admitted (): Promise<number> {
  const redis = new Redis(house.stack.redisUrl)
  try {
    const minutes = await redis.keys(`kg:{${house.projectId}}:admitted:*`)
    const counts = await Promise.all(minutes.map(async minute => await redis.hvals(minute)))
    return counts.flat().reduce((sum, count) => sum + Number(count), 0)
  } finally {
    redis.disconnect()
  }
}

t.test('B3-12: an idle connection ends at the balancer before the gateway ends it, and before a gateway that is told to go does', async t => {
  const seconds = (name: string): number => {
    const [, value = ''] = new RegExp(`^\\s*${name} (\\d+)s;`, 'm').exec(shipped) ?? []
    return Number(value)
  }
  const shipped = readFileSync(join(repoRoot, 'infra/nginx/gateways.conf'), 'utf8')
  const balancerSeconds = seconds('keepalive_timeout')
  t.ok(balancerSeconds > 0, `${balancerSeconds} s at the balancer`)
  for (const { url } of gateways) {
    const { rawHeaders } = await send(url, { path: '/livez' })
    const promised = Number(/^timeout=(\d+)$/.exec(rawHeaders[rawHeaders.indexOf('Keep-Alive') + 1] ?? '')?.[1])
    t.equal(promised, 72, 'what the running server says of itself')
    t.ok(promised > 60 && promised > balancerSeconds, 'longer than a balancer keeps one, ours or the usual 60 s')
  }
  const { stdout } = await promisify(execFile)(process.execPath, [join(repoRoot, 'services/gateway/dist/server.js'), '--help'])
  const drainMs = Number(/KEYGATE_DRAIN_DELAY_MS\n[^]*?\(default: (\d+)\)/.exec(stdout)?.[1])
  t.ok(drainMs > balancerSeconds * 1000, 'what is idle at SIGTERM has ended by itself before new connections are refused')
})

t.test('B4-11: requests of one key over all replicas stay exact, however the balancer spreads them', async t => {
  const key = await house.createKey({ policies: [{ name: 'p', limit: 40, windowSeconds: 3600 }] })
  const results = await Promise.all(Array.from({ length: 120 }, async () => await ask(key)))
  t.strictSame([countOf(results, 200), countOf(results, 429)], [40, 80])
  t.ok((await decisions()).every(count => count > 0), 'every gateway decided some of them')
})

t.test('B4-02 P1: each of three gateways restarted in turn under load: no request fails and the count is exact', async t => {
  const [wide, narrow] = [await house.createKey(), await house.createKey({ policies: [{ name: 'p', limit: 50, windowSeconds: 3600 }] })]
  const before = { seen: api.total, admitted: await admitted() }
  const exitCodes: Array<number | null> = []
  const load = { isDone: false }
  const restarting = (async () => {
    for (const [index, gateway] of gateways.entries()) {
      await gateway.stop()
      exitCodes.push(await gateway.exited)
      gateways[index] = await house.stack.startGateway(index)
      await until('it is in use again', async () => (await decisions())[index] ?? 0, count => count > 0)
    }
  })().finally(() => { load.isDone = true })

  // Most connections are kept, some are new; a third of the requests must not be sent twice.
  const asked: Array<ReturnType<typeof ask>> = []
  for (let i = 0; !load.isDone && i < 10_000; i++) {
    asked.push(ask(i % 4 === 0 ? narrow : wide, i % 3 === 0 ? 'POST' : 'GET', i % 7 === 0 ? { agent: forOnce } : {}))
    await delay(10)
  }
  await restarting
  const results = await Promise.all(asked)

  t.strictSame(exitCodes, [0, 0, 0])
  t.strictSame(results.filter(({ status }) => status !== 200 && status !== 429).map(({ method, status }) => `${method} ${status}`), [], `of ${results.length} requests none failed`)
  const passed = countOf(results, 200)
  t.equal(passed, api.total - before.seen, 'what was answered is what the API saw')
  t.equal(passed, await admitted() - before.admitted, 'and what Redis counted')
  t.ok(results.every(({ id, status }) => (api.seen.get(id) ?? 0) === (status === 200 ? 1 : 0)), 'each once')
  const wideOnes = results.filter((_, i) => i % 4 !== 0)
  t.equal(countOf(wideOnes, 200), wideOnes.length)
  t.equal(passed - wideOnes.length, 50, 'the other key has its limit, exactly')
})

t.test('B3-18: one of three is SIGKILLed: no more GETs fail than it had, and no POST is sent twice', async t => {
  const key = await house.createKey()
  const asked = Array.from({ length: 18 }, async (_, i) => await ask(key, i % 2 === 0 ? 'GET' : 'POST', { prefix: 'held' }))
  await until('the API holds all of them', async () => api.held.length, count => count === 18)
  await gateways[1]?.kill()
  await until('those of the killed gateway are broken off', async () => api.brokenOff.length, count => count > 0)
  const releasing = setInterval(() => { api.release() }, 20) // also a GET that comes again, by another gateway
  const results = await Promise.all(asked)
  clearInterval(releasing)
  const failed = results.filter(({ status }) => status !== 200)
  t.ok(failed.every(({ id }) => api.brokenOff.includes(id)), 'only what it was busy with fails')
  t.strictSame(failed.filter(({ method }) => method === 'GET'), [], 'a GET is answered by another')
  t.match(failed.map(({ answer }) => ({ status: answer?.status, body: answer?.body })), failed.map(() => ({ status: 502, body: /"code":"gateway_unreachable"/ })))
  t.ok(failed.length > 0 && results.filter(({ method }) => method === 'POST').every(({ id }) => api.seen.get(id) === 1), 'each POST reached the API once')
  gateways[1] = await house.stack.startGateway(1)
})
