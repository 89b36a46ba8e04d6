import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { generateSecret } from '@keygate/api-key'
import t from 'tap'
import { as, form, formsBefore, openFormsHouse } from './forms-house.ts'
import type { Answer } from './house.ts'

/** An upstream in this process, to see what reaches it. */
const probe = { hits: 0, server: createServer((_request, response) => { probe.hits++; response.end('probe') }) }
await new Promise<void>(resolve => { probe.server.listen(0, '127.0.0.1', resolve) })
t.teardown(() => { probe.server.close() })
const house = await openFormsHouse(dead => formsBefore('probe', `http://127.0.0.1:${(probe.server.address() as AddressInfo).port}`) + formsBefore('dead', dead))
t.teardown(house.stop)
const { clock, one, two, get } = house

/** What an answer says of limits, in one line. */
const pair = ({ status, headers }: Answer): string => [status, headers['ratelimit-policy'], headers['ratelimit'], headers['retry-after']].filter(part => part !== undefined).join(' | ')

t.test('A4-R2 R1 R2 R3 R4 R5 R6 R7b R8 R9: the story of seed 001 through both gateways, number for number', async t => {
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

t.test('R7a: a fixed window begins anew as a whole', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey({ policies: [{ name: 'p', limit: 20, windowSeconds: 60, algorithm: 'fixed', partition: 'key' }] })
  const begin = 1_920_000_000_000_000
  const at = async (seconds: number, gateway: string): Promise<string> => {
    clock.micros = begin + Math.round(seconds * 1e6)
    return pair(await get(form(project), as(project, secret), gateway))
  }
  for (let i = 0; i < 20; i++) t.match(await at(i, i % 2 === 0 ? one : two), `200 | 20;w=60 | limit=20, remaining=${19 - i}, reset=${60 - i}`)
  t.equal(await at(47, one), '429 | 20;w=60 | limit=20, remaining=0, reset=13 | 13')
  t.equal(await at(60, two), '200 | 20;w=60 | limit=20, remaining=19, reset=60')
  clock.micros = undefined
})

t.test('R23: keys and those without one have limits of their own, and each shows its own numbers', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey({ policies: [{ name: 'p', limit: 5, windowSeconds: 11, algorithm: 'sliding', partition: 'key' }] })
  t.equal(pair(await get(form(project), as(project, secret))), '200 | 5;w=11 | limit=5, remaining=4, reset=11')
  t.equal(pair(await get('/app/api/v1/status')), '200 | 7;w=11 | limit=7, remaining=6, reset=11')
  t.match(pair(await get('/app/api/v1/status', [], two)), 'remaining=5', 'over all gateways')
})

t.test('R16: refusals are counted per address: past the budget they answer 429 with Retry-After alone, and a right key passes', async t => {
  clock.micros = 2_000_000_000_000_000 // long after all other refusals of this address
  const strict = await house.openGateway({ KEYGATE_REFUSALS_LIMIT: '3' })
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const statuses = []
  for (let i = 0; i < 4; i++) statuses.push((await get(form(project), as(project, generateSecret('kg')), strict.url)).status)
  t.strictSame(statuses, [401, 401, 401, 429])
  const refused = await get('/nothing', [], strict.url)
  t.match([refused.status, refused.problem.code], [429, 'too_many_refusals'], 'the router\'s 404 counts with them')
  t.match(refused.headers['retry-after'], /^([1-9]|[1-5]\d|60)$/)
  t.notOk('ratelimit' in refused.headers || 'x-ratelimit-limit' in refused.headers || 'ratelimit-policy' in refused.headers)
  t.equal((await get(form(project), as(project, secret), strict.url)).status, 200, 'R16: the right secret is not locked out')
  clock.micros = undefined
})
