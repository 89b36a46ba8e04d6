import { randomUUID } from 'node:crypto'
import t from 'tap'
import { as, form, openFormsHouse, wide } from './forms-house.ts'
import { basicOf, call, type Answer } from './house.ts'
import { exchange, plain } from './raw.ts'

const house = await openFormsHouse()
t.teardown(house.stop)
const { clock, one, two, get } = house

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

t.test('A7 A12 A4-B10: malformed and missing credentials: 401 with the challenge, without I/O', async t => {
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
    const answer = await rawGet(one, `/app/api/v1${spelling}`, as(a, secret))
    t.ok([400, 401, 404].includes(answer.status), `${spelling}: ${answer.status}`)
    t.notMatch(answer.body, new RegExp(`"id":"${b.id}"`))
  }
  const odd = await rawGet(one, `/app/api/v1/forms/${a.id.replace('-', '%2D')}/echo?q=%2F`, as(a, secret))
  t.match(JSON.parse(odd.body), { path: form(a, '/echo'), query: 'q=%2F' }, 'an escape that means the same is sent on in plain form')
})

t.test('A4: where the path names no project the key alone says whose the request is, whatever the query says', async t => {
  const [a, b] = [await house.createProject(), await house.createProject()]
  const [mine, theirs] = [await a.createKey(), await b.createKey()]
  const posted = await call(one, { method: 'POST', path: form(b, '/submissions'), headers: [...as(b, theirs.secret), 'content-type', 'application/json', 'transfer-encoding', 'chunked'], body: '{"answers":{"fullName":"Ada of B"}}' })
  const { id } = JSON.parse(posted.body) as { id: string }
  const ask = async (query: string, headers: string[]): Promise<Answer> => await get(`/app/api/v1/submissions/${id}${query}`, headers)
  t.match(await ask('', as(b, theirs.secret)), { status: 200, body: /Ada of B/ }, 'its owner')
  for (const query of ['', `?formId=${a.id}`, `?formId=${b.id}`, `?formId=${a.id}&formId=${b.id}`, `?projectId=${b.id}`]) {
    for (const headers of [as(a, mine.secret), ['x-api-key', mine.secret]]) {
      const { status, body } = await ask(query, headers)
      t.ok([401, 403, 404].includes(status), `${query}: ${status}`)
      t.notMatch(body, 'Ada')
    }
  }
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
  const { id, secret } = await project.createKey(wide)
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

/** A GET whose target is sent as it is: a client library would mend it. */
async function rawGet (gateway: string, target: string, headers: string[]): Promise<{ status: number, body: string }> {
  const lines = headers.flatMap((name, i) => i % 2 === 0 ? [`${name}: ${headers[i + 1] ?? ''}\r\n`] : [])
  const { text } = await exchange(gateway, plain(target, { headers: lines.join('') }))
  const [head = '', ...rest] = text.split('\r\n\r\n')
  const body = rest.join('\r\n\r\n')
  return { status: Number(head.split(' ')[1]), body: /transfer-encoding: chunked/i.test(head) ? body.replace(/^[0-9a-f]+\r\n|\r\n[0-9a-f]+\r\n(?:\r\n)?/gi, '') : body }
}
