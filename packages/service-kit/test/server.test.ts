import { connect, type AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { pino } from 'pino'
import { test, type Test } from 'tap'
import { ProblemError, createRegistry, createServer, health, loggerOptions, notFound, problem, startMetricsServer, telemetry } from '../src/index.ts'

type Line = Record<string, any>

interface Given { app: FastifyInstance, lines: Line[], requests: () => Line[], metric: () => Promise<string[]> }

/** A server with all the kit's plugins, routes of its own, and its log. */
async function start (t: Test, routes: (app: FastifyInstance) => void, options: object = {}): Promise<Given> {
  const lines: Line[] = []
  const stream = { write: (line: string) => { lines.push(JSON.parse(line)) } }
  const app = createServer({ service: 'test', logLevel: 'trace', fastify: { bodyLimit: 1000, logger: { ...loggerOptions('test', 'trace'), stream }, ...options } })
  t.teardown(async () => { await app.close() })
  const registry = createRegistry('test')
  await app.register(problem, { isUnavailable: error => error.message === 'away' })
  await app.register(telemetry, { registry })
  routes(app)
  return {
    app,
    lines,
    requests: () => lines.filter(line => line['msg'] === 'request'),
    metric: async () => (await registry.metrics()).split('\n').filter(line => line.startsWith('http_server_request_duration_seconds_count'))
  }
}

async function listen (app: FastifyInstance): Promise<number> {
  await app.listen({ port: 0, host: '127.0.0.1' })
  return (app.server.address() as AddressInfo).port
}

/** What comes back over a bare socket until the server closes it. */
async function exchange (port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.write(bytes)
  let answer = ''
  try { for await (const chunk of socket) answer += String(chunk) } catch {}
  return answer
}

const isProblem = (answer: string, status: number, code: string) =>
  new RegExp(`^HTTP/1\\.1 ${status} [^]*content-type: application/problem\\+json[^]*"code":"${code}"`, 'i').test(answer)

async function until (isSo: () => boolean): Promise<void> {
  while (!isSo()) await delay(1)
}

test('a wrong shape is 400, an unacceptable value 422, and each fault has its pointer', async t => {
  const { app } = await start(t, app => {
    app.post('/', {
      schema: {
        body: {
          type: 'object',
          required: ['name'],
          additionalProperties: false,
          properties: { name: { type: 'string', maxLength: 3 }, on: { type: 'boolean' }, kind: { enum: ['a', 'b'] }, list: { type: 'array', items: { type: 'integer', minimum: 1 } } }
        },
        querystring: { type: 'object', properties: { limit: { type: 'integer', minimum: 1, default: 7 } } }
      }
    }, async ({ body, query }) => ({ body, query }))
  })
  const post = async (body: object, url = '/') => (await app.inject({ method: 'POST', url, payload: body })).json()
  t.strictSame(await post({ name: 'x', on: true }), { body: { name: 'x', on: true }, query: { limit: 7 } })
  t.strictSame((await post({ name: 'x' }, '/?limit=5')).query, { limit: 5 }, 'a number of the query is read from its text')
  for (const [body, status, errors] of [
    [{}, 400, [{ pointer: '/name', message: 'is required' }]],
    [{ name: 1 }, 400, [{ pointer: '/name', message: 'must be string' }]],
    [{ name: 'x', on: 'true' }, 400, [{ pointer: '/on', message: 'must be boolean' }]],
    [{ name: 'x', extra: 1 }, 400, [{ pointer: '/extra', message: 'is not a known field; remove it' }]],
    [{ name: 'xxxx' }, 422, [{ pointer: '/name', message: 'must NOT have more than 3 characters' }]],
    [{ name: 'x', kind: 'c' }, 422, [{ pointer: '/kind', message: 'must be one of a, b' }]],
    [{ name: 'x', list: [1, 0, 'x'] }, 400, [{ pointer: '/list/1', message: 'must be >= 1' }, { pointer: '/list/2', message: 'must be integer' }]]
  ] as const) t.match(await post(body), { status, code: 'invalid_request', errors }, JSON.stringify(body))
  t.match(await post({ name: 'x' }, '/?limit=x'), { status: 400, errors: [{ pointer: '/limit' }] })
  t.match(await post({ name: 'x' }, '/?limit=0'), { status: 422, errors: [{ pointer: '/limit' }] })
})

test('every error is a problem: the client\'s with its text, ours in general words', async t => {
  const { app, lines, requests, metric } = await start(t, app => {
    app.get('/own', async () => { throw new ProblemError({ status: 409, code: 'taken', detail: 'It is taken.' }, { 'x-extra': 'yes' }) })
    app.get('/away', async () => { throw new Error('away') })
    app.get('/broken', async () => { throw new Error('select hunter2', { cause: new TypeError('the cause') }) })
    app.post('/', async ({ body }) => body)
  })
  const headers = { 'x-request-id': 'req-1' }
  const own = await app.inject({ url: '/own', headers })
  t.match(own, { statusCode: 409, headers: { 'content-type': 'application/problem+json', 'cache-control': 'no-store', 'x-extra': 'yes', 'x-request-id': 'req-1' } })
  t.strictSame(own.json(), { type: 'urn:keygate:problem:taken', title: 'Conflict', status: 409, detail: 'It is taken.', instance: 'urn:keygate:request:req-1', code: 'taken', requestId: 'req-1' })
  t.match(await app.inject('/away'), { statusCode: 503, headers: { 'retry-after': '1' }, body: /"code":"unavailable"/ })
  const broken = await app.inject('/broken')
  t.match(broken, { statusCode: 500, body: /internal_error/ })
  t.notMatch(broken.body, /hunter2/)
  t.match(lines.find(line => line['msg'] === 'unexpected error'), { err: { message: /hunter2/, cause: { message: 'the cause' } } })
  t.match(await app.inject('/nowhere'), { statusCode: 404, body: new RegExp(notFound.code) })
  t.match(await app.inject({ method: 'POST', url: '/', headers: { 'content-type': 'application/json' }, payload: '{' }), { statusCode: 400, body: /"code":"invalid_json_body"/ })
  t.match(await app.inject({ method: 'POST', url: '/', headers: { 'content-type': 'image/png' }, payload: 'x' }), { statusCode: 415, headers: { 'content-type': 'application/problem+json' } })
  t.match(await app.inject({ method: 'POST', url: '/', payload: { long: 'x'.repeat(1000) } }), { statusCode: 413, headers: { 'content-type': 'application/problem+json' } })
  t.match(await app.inject('/%zz'), { statusCode: 400, headers: { 'content-type': 'application/problem+json' }, body: /"code":"bad_url"/ }, 'what fails before any route')
  t.match((await app.inject({ url: '/own', headers: { 'x-request-id': 'a b\n' } })).headers['x-request-id'], /^[0-9a-f-]{36}$/, 'an id that would not do is replaced')
  t.strictSame(requests().map(line => [line['status'], line['route']]), [[409, '/own'], [503, '/away'], [500, '/broken'], [404, 'unmatched'], [400, '/'], [415, '/'], [413, '/'], [400, 'unmatched'], [409, '/own']], 'one line per request')
  t.ok((await metric()).includes('http_server_request_duration_seconds_count{http_request_method="GET",http_route="unmatched",http_response_status_code="404",service="test"} 1'))
})

test('what is no request, or no request for us, still gets a problem', async t => {
  const { app, requests } = await start(t, app => { app.post('/', async ({ body }) => body) })
  const port = await listen(app)
  t.ok(isProblem(await exchange(port, 'garbage\r\n\r\n'), 400, 'malformed_request'))
  t.ok(isProblem(await exchange(port, `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`), 431, 'malformed_request'))
  const unexpected = await exchange(port, 'POST / HTTP/1.1\r\nHost: x\r\nX-Request-Id: req-2\r\nExpect: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
  t.ok(isProblem(unexpected, 417, 'expectation_failed'))
  t.match(unexpected, /"requestId":"req-2"/, 'it is a request like any other')
  t.match(await exchange(port, 'POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}'), /^HTTP\/1\.1 100 Continue[^]*HTTP\/1\.1 200 OK[^]*\{\}$/)
  const tunnel = await exchange(port, 'CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n')
  t.ok(isProblem(tunnel, 405, 'method_not_allowed'))
  t.match(tunnel, /Allow: GET, HEAD/)
  t.strictSame(requests().map(line => line['status']), [417, 200, 405])
})

test('each request is logged and measured exactly once, also one that has no whole answer', async t => {
  const taken: Array<() => void> = []
  const { app, requests, metric } = await start(t, app => {
    app.get('/plain', async () => 'ok')
    app.get('/slow', async (_request, reply) => { await new Promise<void>(resolve => { taken.push(resolve) }); return await reply.send('late') })
    app.get('/hijacked', async (_request, reply) => { reply.hijack(); taken.push(() => { reply.raw.writeHead(202).end('by hand') }) })
    app.get('/endless', (_request, reply) => { reply.raw.writeHead(200); reply.hijack(); reply.raw.write('x'); taken.push(() => { reply.raw.destroy() }) })
  })
  const port = await listen(app)
  const handler = async () => { await until(() => taken.length > 0); return taken.pop() as () => void }
  const nth = async (n: number) => { await until(() => requests().length >= n); return requests()[n - 1] }
  /** A client that leaves while the handler works; the handler goes on, and nobody is there. */
  const leave = async (path: string, n: number) => {
    const socket = connect(port, '127.0.0.1')
    socket.write(`GET ${path}?secret=hunter2 HTTP/1.1\r\nHost: x\r\n\r\n`)
    const goOn = await handler()
    socket.destroy()
    const line = await nth(n)
    goOn()
    return line
  }

  t.equal((await fetch(`http://127.0.0.1:${port}/plain`)).status, 200)
  t.match(await nth(1), { status: 200, route: '/plain', ms: Number, isCut: undefined, req: { method: 'GET', path: '/plain' } })
  t.match(await leave('/slow', 2), { status: 499, route: '/slow', isCut: undefined }, 'the client left before the answer')
  const hijacked = fetch(`http://127.0.0.1:${port}/hijacked`);
  (await handler())()
  t.equal((await hijacked).status, 202)
  t.match(await nth(3), { status: 202, route: '/hijacked' }, 'an answer that was taken over')
  t.match(await leave('/hijacked', 4), { status: 499, route: '/hijacked' }, 'taken over, and the client left')
  t.match(await leave('/endless', 5), { status: 499, route: '/endless' }, 'the client left in the middle of the answer')

  const cut = fetch(`http://127.0.0.1:${port}/endless`).then(async answer => await answer.text())
  const breakOff = await handler()
  breakOff()
  await t.rejects(cut)
  t.match(await nth(6), { status: 200, isCut: true, route: '/endless' }, 'we broke it off')
  t.equal((await fetch(`http://127.0.0.1:${port}/plain`)).status, 200)
  await nth(7)
  t.equal(requests().length, 7, 'none came twice')
  t.strictSame((await metric()).map(line => /route="(.*)",http_response_status_code="(\d+)".* (\d+)$/.exec(line)?.slice(1).join(' ')).sort(), ['/endless 200 1', '/endless 499 1', '/hijacked 202 1', '/hijacked 499 1', '/plain 200 2', '/slow 499 1'])
  t.notMatch(JSON.stringify(requests()), /hunter2/)
})

test('health: ready with all checks, degraded with a failing helper, alive in any case', async t => {
  const state = { part: true, helper: true }
  const { app } = await start(t, app => {
    const check = (name: keyof typeof state) => async () => { if (!state[name]) throw new Error('hunter2') }
    app.register(health, { checks: { part: check('part') }, helpers: { helper: check('helper') } })
  })
  t.match(await app.inject('/readyz?verbose'), { statusCode: 200, body: '[+]part ok\n[+]helper ok\nready\n' })
  state.helper = false
  t.match(await app.inject('/readyz'), { statusCode: 200, body: '[+]part ok\n[~]helper degraded\nready\n' })
  state.part = false
  t.match(await app.inject('/readyz'), { statusCode: 503, body: '[-]part failed\n[~]helper degraded\nnot ready\n' })
  t.match(await app.inject('/livez'), { statusCode: 200, body: 'ok\n' })
})

test('the log shows neither queries nor headers nor what a failed statement was given', t => {
  const lines: string[] = []
  const log = pino(loggerOptions('test', 'info'), { write: (line: string) => { lines.push(line) } })
  log.info({ authorization: 'hunter2', secret: 'hunter2', token: 'hunter2', headers: { cookie: 'hunter2' }, inner: { secret: 'hunter2', token: 'hunter2', authorization: 'hunter2', headers: { a: 'hunter2' } } }, 'x')
  log.info({ req: { method: 'GET', url: '/a?token=hunter2', ip: '192.0.2.1', headers: { authorization: 'hunter2' } } }, 'x')
  log.info({ err: Object.assign(new Error('it failed', { cause: Object.assign(new Error('below'), { query: 'hunter2' }) }), { code: '42P01', parameters: ['hunter2'], query: 'hunter2' }) }, 'x')
  const pathOf = (url: string): string => {
    log.info({ req: { method: 'GET', url } }, 'x')
    return JSON.parse(lines.pop() ?? '').req.path
  }
  t.equal(pathOf('/keys/kg_0123456789ABCDEFGHIJKL_3S5D6s/reveal'), '/keys/kg_…/reveal', 'nor a secret that was put into the path')
  t.equal(pathOf('/kgs_0123456789abcdefghijklmnop'), '/kgs_…')
  t.equal(pathOf(`/me/${'Aa0_-'.repeat(8)}xyz`), '/me/…', 'a session, or a link\'s token')
  t.equal(pathOf(`/me/keygate_session=${'Aa0_-'.repeat(8)}xyz`), '/me/keygate_session=…')
  t.equal(pathOf('/keys/key_0123456789ABCDEFGHIJKL'), '/keys/key_0123456789ABCDEFGHIJKL', 'an id is no secret')
  t.notMatch(lines.join(''), /hunter2/)
  t.match(lines.map(line => JSON.parse(line)), [{ service: 'test' }, { req: { method: 'GET', path: '/a', remoteAddress: '192.0.2.1' } }, { err: { message: 'it failed', code: '42P01', cause: { message: 'below' } } }])
  t.end()
})

test('metrics stand on a port of their own', async t => {
  const metrics = await startMetricsServer(createRegistry('test'), '127.0.0.1', 0)
  t.match(await (await fetch(metrics.url)).text(), /process_cpu_seconds_total\{service="test"\}/)
  t.equal((await fetch(new URL('/', metrics.url))).status, 404)
  await metrics.close()
  await t.rejects(fetch(metrics.url))
})
