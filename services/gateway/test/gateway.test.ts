import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { freePort, startRedis, startService } from '@keygate/local'
import t from 'tap'
import { basicOf, call, openGatewayHouse, type Answer, type Project } from './house.ts'

const openapi = '../upstream/forms.openapi.yaml'

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
const house = await openGatewayHouse((upstream, dead) => `
apis:
  - name: forms
    prefix: /app/api/v1
    upstream: ${upstream}/app/api/v1
    openapi: ${openapi}
    project: { pathParameter: formId }
    scopes: tags
    optInScopes: [files]
    policies: [{ name: default, limit: 20, window: 60s }]
    anonymousPolicies: [{ name: anonymous, limit: 7, window: 11s, partition: address }]
    operations:
      exportSubmissions: { policies: [{ name: export, limit: 2, window: 60s }] }
  - name: probe
    prefix: /probe
    upstream: http://127.0.0.1:${(probe.server.address() as AddressInfo).port}
    openapi: ${openapi}
    project: { pathParameter: formId }
    scopes: tags
  - name: dead
    prefix: /dead
    upstream: ${dead}
    openapi: ${openapi}
    project: { pathParameter: formId }
    scopes: tags
`, { KEYGATE_REFUSALS_LIMIT: '100000' })
t.teardown(house.stop)
const { clock, stack } = house
const [one, two] = house.gateways as [string, string]

const form = (project: { id: string }, rest = ''): string => `/app/api/v1/forms/${project.id}${rest}`
const get = async (path: string, headers: string[] = [], gateway = one): Promise<Answer> => await call(gateway, { path, headers })
const as = (project: Project, secret: string): string[] => basicOf(`${project.id}:${secret}`)
const pair = ({ status, headers }: Answer): string => [status, headers['ratelimit-policy'], headers['ratelimit'], headers['retry-after']].filter(part => part !== undefined).join(' | ')

t.test('R1-R6 R7b R8 R9: the story of seed 001 through both gateways, number for number', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const begin = 1_900_000_000_000_000
  let turn = 0
  const at = async (seconds: number): Promise<string> => {
    clock.micros = begin + Math.round(seconds * 1e6)
    return pair(await get(form(project), as(project, secret), turn++ % 2 === 0 ? one : two))
  }
  t.equal(await at(0), '200 | 20;w=60 | limit=20, remaining=19, reset=60', 'R1')
  t.equal(await at(15), '200 | 20;w=60 | limit=20, remaining=18, reset=45', 'R2')
  const resets: number[] = []
  for (let i = 3; i <= 19; i++) {
    const line = await at(15 + i)
    t.match(line, `200 | 20;w=60 | limit=20, remaining=${20 - i}, reset=`, 'R3')
    resets.push(Number(/reset=(\d+)/.exec(line)?.[1]))
  }
  t.strictSame(resets, [...resets].sort((a, b) => b - a), 'R3: reset never rises')
  t.equal(await at(36), '200 | 20;w=60 | limit=20, remaining=0, reset=24', 'R4')
  t.equal(await at(46.001), '429 | 20;w=60 | limit=20, remaining=0, reset=14 | 14', 'R8')
  t.equal(await at(47), '429 | 20;w=60 | limit=20, remaining=0, reset=13 | 13', 'R5')
  t.equal(await at(50), '429 | 20;w=60 | limit=20, remaining=0, reset=10 | 10', 'R6')
  t.equal(await at(55), '429 | 20;w=60 | limit=20, remaining=0, reset=5 | 5', 'R6')
  t.equal(await at(59.9995), '429 | 20;w=60 | limit=20, remaining=0, reset=1 | 1', 'R9')
  t.equal(await at(60), '200 | 20;w=60 | limit=20, remaining=0, reset=15', 'R7b')
  t.equal(await at(60.3), '429 | 20;w=60 | limit=20, remaining=0, reset=15 | 15', 'R7b')
  clock.micros = undefined
})

t.test('P3: waiting Retry-After suffices, one second less does not', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey({ policies: [{ name: 'p', limit: 2, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }] })
  const begin = 1_910_000_000_000_000
  const at = async (micros: number): Promise<Answer> => {
    clock.micros = begin + micros
    return await get(form(project), as(project, secret))
  }
  await at(0)
  await at(123_456)
  const denied = await at(20_400_000)
  const wait = Number(denied.headers['retry-after'])
  t.equal(denied.status, 429)
  t.equal((await at(20_400_000 + (wait - 1) * 1e6)).status, 429)
  t.equal((await at(20_400_000 + wait * 1e6)).status, 200)
  clock.micros = undefined
})

t.test('R22: a 429 is a problem that names the policy, and the upstream is not asked', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey({ policies: [{ name: 'tiny', limit: 1, windowSeconds: 3600, algorithm: 'sliding', partition: 'key' }] })
  const path = form(project, '?status=200').replace('/app/api/v1', '/probe')
  await get(path, as(project, secret))
  const hits = probe.hits
  const { status, headers, problem } = await get(path, as(project, secret))
  t.equal(probe.hits, hits)
  t.equal(status, 429)
  t.equal(headers['content-type'], 'application/problem+json')
  t.match(problem, { status: 429, code: 'limited', 'violated-policies': ['tiny'], requestId: headers['x-request-id'] ?? '' })
})

t.test('R17: 403, an upstream\'s 404 and a 502 carry both headers, no 401 does', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const numbers = /^20;w=60 limit=20, remaining=\d+, reset=\d+$/
  const headersOf = ({ headers }: Answer): string => `${headers['ratelimit-policy'] ?? ''} ${headers['ratelimit'] ?? ''}`
  const notFound = await get(form(project, '/versions/999'), as(project, secret))
  t.match([notFound.status, headersOf(notFound)], [404, numbers])
  const dead = await get(form(project).replace('/app/api/v1', '/dead'), as(project, secret))
  t.match([dead.status, dead.problem.code, headersOf(dead)], [502, 'upstream_unreachable', /^120;w=60 limit=120/], 'an API without policies has 120 per 60 s')
  t.notMatch(dead.body, /127\.0\.0\.1|ECONN/, 'and no address of ours')
  const files = await get(form(project, '/files'), as(project, secret))
  t.match([files.status, files.problem.code, headersOf(files)], [403, 'scope_missing', numbers], 'K10: files is opt-in')
  const refused = await get(form(project), as(project, `${secret}x`))
  t.equal(refused.status, 401)
  t.equal(headersOf(refused), ' ')
  const before = headersOf(files)
  t.equal(headersOf(await get(form(project, '/files'), as(project, secret))), before, 'a refusal is not charged to the key')
})

t.test('R18: an upstream\'s own RateLimit fields do not reach the client', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const answer = await get(form(project, '/echo?ownRateLimit=true'), as(project, secret))
  t.equal(pair(answer), '200 | 20;w=60 | limit=20, remaining=19, reset=60')
})

t.test('R14: two keys of one project from one address count apart', async t => {
  const project = await house.createProject()
  const [a, b] = [await project.createKey(), await project.createKey()]
  await get(form(project), as(project, a.secret))
  t.match(pair(await get(form(project), as(project, b.secret))), 'remaining=19')
})

t.test('an operation\'s own policy counts on top of the others, and all or nothing', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const path = form(project, '/export?rows=1')
  t.equal(pair(await get(path, as(project, secret))), '200 | 20;w=60, 2;w=60 | limit=2, remaining=1, reset=60')
  await get(path, as(project, secret), two)
  const denied = await get(path, as(project, secret))
  t.match([denied.status, denied.problem], [429, { 'violated-policies': ['export'] }])
  t.match(pair(await get(form(project), as(project, secret))), 'limit=20, remaining=17', 'what export denied was not counted')
})

t.test('R23: a public operation is counted per address under the anonymous policy', async t => {
  t.equal(pair(await get('/app/api/v1/status')), '200 | 7;w=11 | limit=7, remaining=6, reset=11')
  t.match(pair(await get('/app/api/v1/status', [], two)), 'remaining=5', 'over all gateways')
})

t.test('A1 A6 A8 A10 A13: right credentials in every accepted spelling', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  for (const scheme of ['Basic ', 'basic ', 'BASIC ', 'Basic  ', 'bAsIc    ']) t.equal((await get(form(project), basicOf(`${project.id}:${secret}`, scheme))).status, 200, JSON.stringify(scheme))
  t.equal((await get(form(project), basicOf(`${project.id.toUpperCase()}:${secret}`))).status, 200, 'A10: a UUID in upper case')
  t.equal((await get(form({ id: project.id.toUpperCase() }), as(project, secret))).status, 200)
  t.equal((await get(form(project), ['X-API-Key', secret])).status, 200, 'A13')
  t.equal((await get(form(project), ['x-api-key', secret, 'Authorization', 'Bearer upstream-token'])).status, 200, 'a Bearer beside it is not ours')
})

t.test('A2 A3 A9: every wrong credential gets one answer, to the byte', async t => {
  const [project, other] = [await house.createProject(), await house.createProject()]
  const { secret } = await project.createKey()
  const foreign = await other.createKey()
  const keyless = await house.createProject()
  const id = 'same-request-id'
  const ask = async (path: string, headers: string[]): Promise<string> => {
    const { status, body, headers: h } = await get(path, [...headers, 'X-Request-Id', id])
    return JSON.stringify([status, body, { ...h, date: undefined }])
  }
  const unknown = randomUUID()
  const wrong: Record<string, string> = {
    'wrong secret': await ask(form(project), as(project, foreign.secret)),
    'unknown project': await ask(form({ id: unknown }), basicOf(`${unknown}:${secret}`)),
    'project without a key': await ask(form(keyless), basicOf(`${keyless.id}:${secret}`)),
    'A3: another project\'s path': await ask(form(other), as(project, secret)),
    'another project\'s path by header': await ask(form(other), ['x-api-key', secret]),
    'A9: upper case': await ask(form(project), as(project, secret.toUpperCase())),
    'A9: a newline': await ask(form(project), as(project, `${secret}\n`)),
    'A9: more after a colon': await ask(form(project), as(project, `${secret}:x`)),
    'A9: a newline through the header': await ask(form(project), ['x-api-key', `${secret} x`]),
    'a checksum that is off': await ask(form(project), as(project, secret.slice(0, -1) + (secret.endsWith('0') ? '1' : '0')))
  }
  t.equal(new Set(Object.values(wrong)).size, 1, 'one answer')
  t.match(JSON.parse(Object.values(wrong)[0] ?? '[]'), [401, /invalid_credentials/, { 'www-authenticate': 'Basic realm="Keygate", charset="UTF-8"' }])
})

t.test('A7 A12: malformed and missing credentials: 401 with the challenge, without I/O', async t => {
  const project = await house.createProject()
  const malformed = [['Authorization', 'Basic'], ['Authorization', 'Basic !!!!'], basicOf('no colon'), basicOf(':'), basicOf(`${project.id}:`), basicOf('x:kg_y'), ['X-API-Key', ''], ['X-API-Key', 'kg_short'], ['X-API-Key', 'é'.repeat(40)]]
  const asked = await house.metric('gateway_verifications_total')
  for (const headers of malformed) {
    const answer = await get(form(project), headers)
    t.match([answer.status, answer.headers['www-authenticate'], answer.problem.code], [401, /^Basic realm="Keygate"/, 'invalid_credentials'], JSON.stringify(headers))
  }
  t.equal(await house.metric('gateway_verifications_total'), asked, 'key-service was not asked')
  const none = await get(form(project))
  t.match([none.status, none.headers['www-authenticate'], none.problem.code], [401, /^Basic realm=/, 'missing_credentials'], 'A12')
  t.match((await get(form(project, '?api_key=kg_x'))).problem, { status: 400, code: 'key_in_query' })
})

t.test('A13: the header: wrong and expired are 401', async t => {
  const project = await house.createProject()
  const expiresAt = new Date(Date.now() + 3_600_000).toISOString()
  const { secret } = await project.createKey({ expiresAt })
  t.equal((await get(form(project), ['x-api-key', 'wrong'])).status, 401)
  clock.micros = Date.parse(expiresAt) * 1000
  t.match((await get(form(project), ['x-api-key', secret])).problem, { status: 401, code: 'key_expired' })
  clock.micros = undefined
  t.equal((await get(form(project), ['x-api-key', secret])).status, 200)
})

t.test('A14: the same header twice, Basic and header together, two Authorizations: 400', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  for (const headers of [['x-api-key', secret, 'X-Api-Key', secret], [...as(project, secret), 'x-api-key', secret], [...as(project, secret), ...as(project, secret)], [...as(project, secret), 'Authorization', 'Bearer x']]) {
    t.match((await get(form(project), headers)).problem, { status: 400, code: 'ambiguous_credentials' })
  }
})

t.test('A16: an operation that is listed but not open to keys: 401 without, 403 with a valid key', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const put = async (headers: string[]): Promise<Answer> => await call(one, { method: 'PUT', path: form(project), headers })
  t.equal((await put([])).status, 401)
  t.equal((await put(['Authorization', 'Bearer someone'])).status, 401)
  t.match((await put(as(project, secret))).problem, { status: 403, code: 'operation_not_open' })
})

t.test('what is not in the document is 404 before credentials', async t => {
  const project = await house.createProject()
  for (const path of ['/', '/nothing', form(project, '/nothing'), `${form(project)}/`, form(project).toUpperCase()]) {
    const answer = await get(path)
    t.match([answer.status, answer.problem.code, answer.headers['ratelimit']], [404, 'not_found', undefined], path)
  }
  t.equal((await call(one, { method: 'PATCH', path: form(project) })).status, 404)
})

t.test('A18: no spelling of a path reaches another project\'s data', async t => {
  const [a, b] = [await house.createProject(), await house.createProject()]
  const { secret } = await a.createKey()
  const spellings = [`/forms/${a.id}/../${b.id}`, `/forms/${a.id}%2f..%2f${b.id}`, `/forms/${a.id}/%2e%2e/${b.id}`, `/forms/${a.id}/..%2f${b.id}`, `//forms/${b.id}`, `/forms//${b.id}`, `/forms/${b.id};x`, `/forms/${b.id}%00`,
    `/forms/${a.id}/./echo`, `/forms\\${b.id}`, `/forms/${a.id}/%2E/../${b.id}/echo`, `/forms/${encodeURIComponent(a.id + '/../' + b.id)}`, `/forms/${b.id}?formId=${a.id}`]
  for (const spelling of spellings) {
    const answer = await rawGet(`/app/api/v1${spelling}`, as(a, secret))
    t.ok([400, 401, 404].includes(answer.status), `${spelling}: ${answer.status}`)
    t.notMatch(answer.body, new RegExp(`"id":"${b.id}"`))
  }
  const odd = await rawGet(`/app/api/v1/forms/${a.id.replace('-', '%2D')}/echo?q=%2F`, as(a, secret))
  t.match(JSON.parse(odd.body), { path: form(a, '/echo'), query: 'q=%2F' }, 'an escape that means the same is sent on in plain form')
})

t.test('A4: a query never says whose key it is; identity reaches the upstream only from us', async t => {
  const [a, b] = [await house.createProject(), await house.createProject()]
  const key = await a.createKey({ allowedForAll: false, scopes: ['forms', 'submissions'] })
  const echo = JSON.parse((await get(form(a, `/echo?formId=${b.id}`), [...as(a, key.secret), 'X-Keygate-Project', b.id, 'X_Keygate_Project', b.id, 'X-Forwarded-For', '9.9.9.9', 'Connection', 'x-keygate-key'])).body) as { headers: Record<string, string> }
  t.equal(echo.headers['x-keygate-project'], a.id)
  t.equal(echo.headers['x-keygate-key'], key.id)
  t.equal(echo.headers['x-keygate-scopes'], 'forms submissions')
  t.equal(echo.headers['x-forwarded-for'], '127.0.0.1')
  t.notOk('authorization' in echo.headers || 'x-api-key' in echo.headers || 'x_keygate_project' in echo.headers, 'credentials stay here')
})

t.test('K14: disabled refuses and says so to the holder, enabled works with the same secret', async t => {
  const project = await house.createProject()
  const { id, secret } = await project.createKey()
  for (const gateway of [one, two]) t.equal((await get(form(project), as(project, secret), gateway)).status, 200)
  await project.change(id, 'POST', '/disable')
  for (const gateway of [one, two]) t.match((await get(form(project), as(project, secret), gateway)).problem, { status: 401, code: 'key_disabled' })
  await project.change(id, 'POST', '/enable')
  for (const gateway of [one, two]) t.equal((await get(form(project), as(project, secret), gateway)).status, 200)
})

t.test('K15: expiry to the millisecond, by Redis\'s clock', async t => {
  const project = await house.createProject()
  const end = Date.now() + 7_200_000
  const { secret } = await project.createKey({ expiresAt: new Date(end).toISOString() })
  const at = async (ms: number): Promise<number> => {
    clock.micros = ms * 1000
    return (await get(form(project), as(project, secret))).status
  }
  t.strictSame([await at(end - 1), await at(end), await at(end + 1)], [200, 401, 401])
  clock.micros = undefined
})

t.test('K2: rotate: the old secret is refused at once on both, the new one works; with grace both work until it ends', async t => {
  const project = await house.createProject()
  const { id, secret } = await project.createKey()
  for (const gateway of [one, two]) t.equal((await get(form(project), as(project, secret), gateway)).status, 200)
  const rotated = await project.change(id, 'POST', '/rotate', {})
  for (const gateway of [one, two]) {
    t.equal((await get(form(project), as(project, secret), gateway)).status, 401)
    t.equal((await get(form(project), as(project, rotated.secret), gateway)).status, 200)
  }
  const again = await project.change(id, 'POST', '/rotate', { gracePeriodSeconds: 3600 })
  for (const gateway of [one, two]) {
    t.equal((await get(form(project), as(project, rotated.secret), gateway)).status, 200)
    t.equal((await get(form(project), as(project, again.secret), gateway)).status, 200)
  }
  clock.micros = (Date.now() + 3_700_000) * 1000
  t.match((await get(form(project), as(project, rotated.secret))).problem, { status: 401, code: 'secret_retired' })
  t.equal((await get(form(project), as(project, again.secret))).status, 200)
  clock.micros = undefined
})

t.test('K4: of 20 rotations at once exactly one returned secret lives, and it is the same one on both', async t => {
  const project = await house.createProject()
  const { id, secret } = await project.createKey({ policies: [{ name: 'wide', limit: 1000, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }] })
  await get(form(project), as(project, secret))
  const rotated = await Promise.all(Array.from({ length: 20 }, async () => await project.change(id, 'POST', '/rotate', {})))
  const working = async (gateway: string): Promise<string[]> => {
    const answers = await Promise.all(rotated.map(async ({ secret }) => ({ secret, status: (await get(form(project), as(project, secret), gateway)).status })))
    return answers.filter(({ status }) => status === 200).map(({ secret }) => secret)
  }
  const [onOne, onTwo] = [await working(one), await working(two)]
  t.equal(onOne.length, 1)
  t.strictSame(onOne, onTwo)
  t.equal((await get(form(project), as(project, secret))).status, 401)
})

t.test('bodies and answers are streamed; a HEAD follows its GET', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey({ policies: [{ name: 'wide', limit: 1000, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }] })
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
  process.kill(stack.keyService.pid, 'SIGSTOP')
  const socket = connect(Number(new URL(one).port), '127.0.0.1')
  const left = once(socket, 'close')
  socket.write(`GET ${form(project).replace('/app/api/v1', '/probe')} HTTP/1.1\r\nHost: a\r\nx-api-key: ${cold.secret}\r\n\r\n`, () => { socket.destroy() })
  await left
  process.kill(stack.keyService.pid, 'SIGCONT')
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
    const text = await rawExchange(bytes)
    t.match(text, /^HTTP\/1\.1 4\d\d /, name)
    t.match(text.toLowerCase(), 'content-type: application/problem+json', name)
    t.notMatch(text, /\\n\s*at |node_modules/, name)
  }
})

t.test('refusals are counted per address: past the budget they answer 429 with Retry-After alone, and a right key passes', async t => {
  clock.micros = 2_000_000_000_000_000 // long after all other refusals of this address
  const strict = await house.openGateway({ KEYGATE_REFUSALS_LIMIT: '3' })
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const statuses = []
  for (let i = 0; i < 4; i++) statuses.push((await call(strict.url, { path: form(project), headers: ['x-api-key', 'wrong'] })).status)
  t.strictSame(statuses, [401, 401, 401, 429])
  const refused = await call(strict.url, { path: '/nothing' })
  t.match([refused.status, refused.problem.code], [429, 'too_many_refusals'], 'the router\'s 404 counts with them')
  t.match(refused.headers['retry-after'], /^([1-9]|[1-5]\d|60)$/)
  t.notOk('ratelimit' in refused.headers || 'x-ratelimit-limit' in refused.headers || 'ratelimit-policy' in refused.headers)
  t.equal((await call(strict.url, { path: form(project), headers: as(project, secret) })).status, 200, 'R16: the right secret is not locked out')
  clock.micros = undefined
})

t.test('R20 and the start: a wrong setting or catalogue is told with its remedy, without a stack, and ends with code 78', async t => {
  const env = { KEYGATE_PORT: '0', KEYGATE_APIS: stack.apisFile, KEYGATE_KEY_SERVICE_URL: stack.keyService.url, KEYGATE_SERVICE_TOKEN: stack.tokens.gateway, REDIS_URL: stack.redisUrl }
  const broken = async (yaml: string): Promise<string> => {
    const file = `${stack.apisFile}.broken.yaml`
    writeFileSync(file, yaml)
    return await startService('gateway', { ...env, KEYGATE_APIS: file }).then(() => 'it started', (error: Error) => error.message)
  }
  const good = readFileSync(stack.apisFile, 'utf8')
  for (const [limit, window] of [['"abc"', '60s'], ['0', '60s'], ['-1', '60s'], ['1.5', '60s'], ['20', '""']]) {
    const message = await broken(good.replace('limit: 20, window: 60s', `limit: ${limit}, window: ${window}`))
    t.match(message, /code 78/)
    t.match(message, limit === '20' ? /policies\[0\]\.window/ : /policies\[0\]\.limit/)
    t.notMatch(message, /\n\s+at /)
  }
  t.match(await broken('apis: [\n'), /code 78/)
  const missing = await startService('gateway', { ...env, REDIS_URL: '', KEYGATE_SERVICE_TOKEN: '' }).then(() => 'it started', (error: Error) => error.message)
  t.match(missing, /code 78[^]*REDIS_URL is missing[^]*/)
  t.match(missing, /KEYGATE_SERVICE_TOKEN is missing/)
  t.notMatch(missing, /\n\s+at /)
})

t.test('B1-08: a Redis that refuses the password ends the start, with the remedy; one that is not there does not', async t => {
  const env = { KEYGATE_PORT: '0', KEYGATE_APIS: stack.apisFile, KEYGATE_KEY_SERVICE_URL: stack.keyService.url, KEYGATE_SERVICE_TOKEN: stack.tokens.gateway }
  const locked = await startRedis({ args: ['--requirepass', 'right'] })
  t.teardown(locked.stop)
  const message = await startService('gateway', { ...env, REDIS_URL: locked.url.replace('//', '//:wrong@') }).then(() => 'it started', (error: Error) => error.message)
  t.match(message, /code 1 [^]*Redis refuses the user or password of REDIS_URL/)
  t.notMatch(message, /wrong@|\n\s+at /)
  const alone = await startService('gateway', { ...env, REDIS_URL: `redis://127.0.0.1:${await freePort()}` })
  t.teardown(alone.stop)
  t.equal((await call(alone.url, { path: '/readyz' })).status, 200, 'B1-11: ready, if degraded')
})

/** A GET whose target is sent as it is: a client library would mend it. */
async function rawGet (target: string, headers: string[]): Promise<{ status: number, body: string }> {
  const lines = headers.flatMap((name, i) => i % 2 === 0 ? [`${name}: ${headers[i + 1] ?? ''}`] : [])
  const text = await rawExchange(`GET ${target} HTTP/1.1\r\nHost: a\r\n${lines.join('\r\n')}\r\nConnection: close\r\n\r\n`)
  const [head = '', ...rest] = text.split('\r\n\r\n')
  const body = rest.join('\r\n\r\n')
  return { status: Number(head.split(' ')[1]), body: /transfer-encoding: chunked/i.test(head) ? body.replace(/^[0-9a-f]+\r\n|\r\n[0-9a-f]+\r\n(?:\r\n)?/gi, '') : body }
}

async function rawExchange (bytes: string): Promise<string> {
  return await new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(one).port), '127.0.0.1', () => { socket.write(bytes.includes('Connection: close') ? bytes : bytes.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')) })
    let text = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk }).on('close', () => { resolve(text) }).on('error', reject)
  })
}
