import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import t from 'tap'
import { as, form, formsBefore, openFormsHouse, wide } from './forms-house.ts'
import { call } from './house.ts'
import { until } from './process.ts'
import { exchange } from './raw.ts'

/** An upstream in this process, to see what reaches it: it answers by the last part of the path. */
const probe = {
  hits: 0,
  closed: 0,
  server: createServer((request, response) => {
    probe.hits++
    response.on('close', () => {
      if (response.writableFinished) return
      probe.closed++
      probe.server.emit('left')
    })
    const status = Number(new URL(request.url ?? '', 'http://probe').searchParams.get('status'))
    if (status === 0) probe.server.emit('waiting')
    else response.writeHead(status).end('probe')
  })
}
await new Promise<void>(resolve => { probe.server.listen(0, '127.0.0.1', resolve) })
t.teardown(() => { probe.server.close() })
const house = await openFormsHouse(() => formsBefore('probe', `http://127.0.0.1:${(probe.server.address() as AddressInfo).port}`))
t.teardown(house.stop)
const { one, get } = house

t.test('bodies and answers are streamed; a HEAD follows its GET', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey(wide)
  const posted = await call(one, { method: 'POST', path: form(project, '/submissions'), headers: [...as(project, secret), 'content-type', 'application/json', 'transfer-encoding', 'chunked'], body: JSON.stringify({ answers: { fullName: 'Ada' } }) })
  t.equal(posted.status, 201, posted.body)
  const rows = await get(form(project, '/export?rows=5000'), as(project, secret))
  t.match([rows.status, rows.body.trim().split('\n').length], [200, 5000])
  const head = await call(one, { method: 'HEAD', path: form(project), headers: as(project, secret) })
  t.match([head.status, head.body], [200, ''])
  t.match(head.headers['ratelimit'], /^limit=/)
})

t.test('an odd content type is the upstream\'s to judge', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  for (const type of ['', 'garbage', 'application/json; charset=?', 'multipart/form-data']) {
    const answer = await call(one, { method: 'POST', path: form(project, '/submissions'), headers: [...as(project, secret), 'content-type', type, 'content-length', '2'], body: '{}' })
    t.ok(answer.status >= 400 && answer.status < 500, `${type}: ${answer.status}`)
    t.match(answer.headers['ratelimit'], /^limit=20/, 'it was admitted')
  }
})

t.test('an upstream\'s status is passed as it is, registered or not', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  for (const status of [200, 204, 299, 404, 420, 429, 500, 503, 520, 599]) {
    const answer = await get(form(project, `?status=${status}`).replace('/app/api/v1', '/probe'), as(project, secret))
    t.match([answer.status, answer.headers['ratelimit']], [status, /^limit=120/])
  }
})

t.test('a client that leaves takes its request to the upstream with it, also if it left while the key was being checked', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const leave = async (): Promise<void> => {
    const socket = connect(Number(new URL(one).port), '127.0.0.1')
    const waiting = once(probe.server, 'waiting')
    const path = form(project).replace('/app/api/v1', '/probe')
    socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\nx-api-key: ${secret}\r\n\r\n`)
    await waiting
    socket.destroy()
  }
  const { closed } = probe
  const gone = once(probe.server, 'left')
  await leave()
  await gone
  t.equal(probe.closed, closed + 1)

  const cold = await project.createKey()
  const { hits } = probe
  const ended = async (): Promise<number> => await house.metric('http_server_request_duration_seconds')
  const before = await ended()
  process.kill(house.stack.keyService.pid, 'SIGSTOP')
  const socket = connect(Number(new URL(one).port), '127.0.0.1')
  const left = once(socket, 'close')
  socket.write(`GET ${form(project).replace('/app/api/v1', '/probe')} HTTP/1.1\r\nHost: a\r\nx-api-key: ${cold.secret}\r\n\r\n`, () => { socket.destroy() })
  await left
  await until('the gateway has noticed', async () => await ended() > before)
  process.kill(house.stack.keyService.pid, 'SIGCONT')
  const path = form(project, '?status=200').replace('/app/api/v1', '/probe')
  t.equal((await get(path, as(project, cold.secret))).status, 200)
  t.equal(probe.hits, hits + 1, 'only the one who stayed')
})

t.test('an upstream that does not answer in time is 504', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  t.match((await get(form(project, '/echo?delayMs=8000'), as(project, secret))).problem, { status: 504, code: 'upstream_timeout' })
})

t.test('bad input: every malformed request gets a 4xx problem, never a 5xx, never a stack', async t => {
  const vectors: Record<string, string> = {
    'no Host': 'GET / HTTP/1.1\r\n\r\n',
    'two Hosts': 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
    'empty Host': 'GET / HTTP/1.1\r\nHost:\r\n\r\n',
    'Host with a user': 'GET / HTTP/1.1\r\nHost: u@h\r\n\r\n',
    'absolute target': 'GET http://evil.example/ HTTP/1.1\r\nHost: a\r\n\r\n',
    'broken escape': 'GET /app/api/v1/forms/%zz HTTP/1.1\r\nHost: a\r\n\r\n',
    'broken UTF-8': 'GET /app/api/v1/forms/%ff HTTP/1.1\r\nHost: a\r\n\r\n',
    'empty Transfer-Encoding': 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n',
    'another coding': 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    'identity, chunked': 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n',
    'chunked on 1.0': 'POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'both lengths': 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    TRACE: 'TRACE / HTTP/1.1\r\nHost: a\r\n\r\n',
    'unknown method': 'FOO / HTTP/1.1\r\nHost: a\r\n\r\n',
    'not HTTP': 'hello\r\n\r\n',
    'huge header': `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(40_000)}\r\n\r\n`,
    'path id not a UUID': 'GET /app/api/v1/forms/abc HTTP/1.1\r\nHost: a\r\n\r\n'
  }
  for (const [name, bytes] of Object.entries(vectors)) {
    const text = (await exchange(one, bytes.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))).text
    t.match(text, /^HTTP\/1\.1 4\d\d /, name)
    t.match(text.toLowerCase(), 'content-type: application/problem+json', name)
    t.notMatch(text, /\\n\s*at |node_modules/, name)
  }
})
