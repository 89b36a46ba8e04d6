import { startTcpProxy } from '@keygate/local'
import { generateSecret } from '@keygate/api-key'
import { Redis } from 'ioredis'
import t from 'tap'
import { basicOf, call, openGatewayHouse, type Answer, type Project } from './house.ts'

const api = (name: string, upstream: string, more: string): string => `
  - name: ${name}
    prefix: /${name}
    upstream: ${upstream}/app/api/v1
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
    optInScopes: [files]
    ${more}`
const house = await openGatewayHouse(upstream => `
apis:${api('forms', upstream, `policies: [{ name: default, limit: 20, window: 60s }]
    operations:
      exportSubmissions: { policies: [{ name: export, limit: 2, window: 3600s }] }`)}${api('other', upstream, 'policies: [{ name: slow, limit: 5, window: 60s }, { name: from-here, limit: 9, window: 60s, partition: address }]')}
`, { KEYGATE_REFUSALS_LIMIT: '100000' })
const toRedis = await startTcpProxy(Number(new URL(house.stack.redisUrl).port))
const redis = new Redis(house.stack.redisUrl)
t.teardown(async () => {
  redis.disconnect()
  await house.stop()
  await toRedis.stop()
})
const [one, two] = house.gateways as [string, string]
const { clock } = house

interface Limit { policy: string, api: string | null, operation: string | null, limit: number, windowSeconds: number, remaining: number | null, resetSeconds: number | null }
interface Me { projectId: string, keyId: string, scopes: string[], allowedForAll: boolean, allowedHosts: string[] | null, expiresAt: string | null, secret: { state: string, expiresAt: string | null }, limits: Limit[] }

const as = (project: Project, secret: string): string[] => basicOf(`${project.id}:${secret}`)
const ask = async (headers: string[], url = one, path = '/.keygate/me'): Promise<Answer> => await call(url, { path, headers })
const me = async (headers: string[], url = one): Promise<Me> => {
  const { status, body } = await ask(headers, url)
  if (status !== 200) throw new Error(`${status} ${body}`)
  return JSON.parse(body) as Me
}
const left = ({ limits }: Me): string[] => limits.map(({ policy, remaining, resetSeconds }) => `${policy} ${remaining} ${resetSeconds}`)

t.test('a key is told its scopes, its end, its limits and what is left of them, by Basic and by header alike', async t => {
  clock.micros = 1_900_000_000_000_000
  const project = await house.createProject()
  const expiresAt = new Date(1_950_000_000_000).toISOString()
  const { id, secret } = await project.createKey({ allowedForAll: false, scopes: ['forms', 'exports'], expiresAt, allowedHosts: ['127.0.0.1'] })
  const known = {
    projectId: project.id,
    keyId: id,
    scopes: ['exports', 'forms'],
    allowedForAll: false,
    allowedHosts: ['127.0.0.1'],
    expiresAt,
    secret: { state: 'current', expiresAt: null },
    limits: [
      { policy: 'default', api: 'forms', operation: null, limit: 20, windowSeconds: 60, remaining: 20, resetSeconds: 60 },
      { policy: 'slow', api: 'other', operation: null, limit: 5, windowSeconds: 60, remaining: 5, resetSeconds: 60 },
      { policy: 'from-here', api: 'other', operation: null, limit: 9, windowSeconds: 60, remaining: 9, resetSeconds: 60 },
      { policy: 'export', api: 'forms', operation: 'exportSubmissions', limit: 2, windowSeconds: 3600, remaining: 2, resetSeconds: 3600 }
    ]
  }
  const fresh = await me(as(project, secret))
  t.match({ ...fresh, limits: fresh.limits.map(limit => ({ ...limit, resetSeconds: limit.windowSeconds })) }, known)
  t.strictSame(await me(['X-API-Key', secret]), fresh)
  t.strictSame(await me(as(project, secret), two), fresh)

  t.equal((await ask(as(project, secret), one, `/forms/forms/${project.id}`)).status, 200)
  t.equal((await ask(as(project, secret), two, `/forms/forms/${project.id}/export?rows=1`)).status, 200)
  t.equal((await ask(as(project, secret), two, `/other/forms/${project.id}`)).status, 200)
  clock.micros += 15_000_000
  for (const gateway of [one, two]) t.strictSame(left(await me(as(project, secret), gateway)), ['default 18 45', 'slow 4 45', 'from-here 8 45', 'export 1 3585'], 'over all gateways')
  clock.micros = undefined
})

t.test('it is counted nowhere: what is left, the admissions and the logs stay as they were, also with nothing left', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey({ policies: [{ name: 'tiny', limit: 1, windowSeconds: 3600, algorithm: 'sliding', partition: 'key' }] })
  t.equal((await ask(as(project, secret), one, `/forms/forms/${project.id}`)).status, 200)
  const state = async (): Promise<string[]> => {
    const keys = (await redis.keys(`kg:{${project.id}}:*`)).sort()
    return await Promise.all(keys.map(async key => `${key} ${(await redis.dumpBuffer(key)).toString('hex')}`))
  }
  const before = await state()
  t.ok(before.some(line => line.includes(':admitted:')))
  for (let i = 0; i < 10; i++) t.strictSame((await me(as(project, secret), i % 2 === 0 ? one : two)).limits.map(({ policy, remaining }) => [policy, remaining]), [['tiny', 0], ['export', 2]], 'no 429')
  t.strictSame(await state(), before)
  const { headers } = await ask(as(project, secret))
  t.match(headers, { 'cache-control': 'no-store', 'content-type': /^application\/json/ })
  t.equal((await ask(as(project, secret), one, `/forms/forms/${project.id}`)).status, 429)
})

t.test('a key\'s own policies take the place of the project\'s, and these of the API\'s; operations keep theirs', async t => {
  const project = await house.createProject()
  const admin = async (policies: object[]): Promise<number> => (await fetch(`${house.stack.keyService.url}/v1/projects/${project.id}`, {
    method: 'PATCH', headers: { authorization: `Bearer ${house.stack.tokens.operator}`, 'content-type': 'application/json', 'if-match': '*' }, body: JSON.stringify({ policies })
  })).status
  const own = { name: 'own', limit: 3, windowSeconds: 30, algorithm: 'fixed', partition: 'key' }
  const shared = { name: 'shared', limit: 8, windowSeconds: 60, algorithm: 'sliding', partition: 'project' }
  const [plain, special] = [await project.createKey(), await project.createKey({ policies: [own] })]
  const limits = async (secret: string): Promise<unknown[]> => (await me(as(project, secret))).limits.map(({ policy, api, remaining }) => [policy, api, remaining])
  t.strictSame(await limits(plain.secret), [['default', 'forms', 20], ['slow', 'other', 5], ['from-here', 'other', 9], ['export', 'forms', 2]])
  t.strictSame(await limits(special.secret), [['own', null, 3], ['export', 'forms', 2]])
  t.equal(await admin([shared]), 200)
  t.strictSame(await limits(plain.secret), [['shared', null, 8], ['export', 'forms', 2]], 'at the next request')
  t.strictSame(await limits(special.secret), [['own', null, 3], ['export', 'forms', 2]])
  t.equal((await ask(as(project, plain.secret), one, `/other/forms/${project.id}`)).status, 200)
  const sibling = await project.createKey()
  t.strictSame(await limits(sibling.secret), [['shared', null, 7], ['export', 'forms', 2]], 'what the project shares is used up by its other keys too')
})

t.test('it refuses as every operation does: one 401 to the byte, 400, 403, 404; and what a key became is known at once', async t => {
  const [project, other] = [await house.createProject(), await house.createProject()]
  const key = await project.createKey()
  const same = ['X-Request-Id', 'the-same']
  const seen = async (path: string, headers: string[]): Promise<string> => {
    const { status, headers: { date: _date, ...rest }, body } = await ask([...headers, ...same], one, path)
    return JSON.stringify({ status, rest, body })
  }
  const elsewhere = await seen(`/forms/forms/${project.id}`, as(project, generateSecret('kg')))
  t.match(JSON.parse(elsewhere), { status: 401, rest: { 'www-authenticate': 'Basic realm="Keygate", charset="UTF-8"' } })
  for (const headers of [as(project, generateSecret('kg')), as(other, key.secret), as(project, 'x'), basicOf('x:y'), ['X-API-Key', generateSecret('kg')], ['X-API-Key', ''], ['Authorization', 'Basic']]) t.equal(await seen('/.keygate/me', headers), elsewhere)
  t.match((await ask([])).problem, { status: 401, code: 'missing_credentials' })
  t.match((await ask(['Authorization', 'Bearer x'])).problem, { status: 401, code: 'missing_credentials' })
  t.match((await ask([], one, '/.keygate/me?api_key=x')).problem, { status: 400, code: 'key_in_query' })
  t.match((await ask([...as(project, key.secret), 'X-API-Key', key.secret])).problem, { status: 400, code: 'ambiguous_credentials' })
  const away = await project.createKey({ allowedHosts: ['203.0.113.7'] })
  const refused = await ask(as(project, away.secret))
  t.match([refused.problem, refused.headers['ratelimit']], [{ status: 403, code: 'host_not_allowed' }, undefined])
  for (const method of ['POST', 'PUT', 'DELETE']) t.equal((await call(one, { method, path: '/.keygate/me', headers: as(project, key.secret) })).status, 404, method)
  t.match(await call(one, { method: 'HEAD', path: '/.keygate/me', headers: as(project, key.secret) }), { status: 200, body: '' })

  for (const gateway of [one, two]) t.equal((await ask(as(project, key.secret), gateway)).status, 200)
  await project.change(key.id, 'POST', '/disable')
  for (const gateway of [one, two]) t.match((await ask(as(project, key.secret), gateway)).problem, { status: 401, code: 'key_disabled' })
  await project.change(key.id, 'POST', '/enable')
  for (const gateway of [one, two]) t.equal((await ask(as(project, key.secret), gateway)).status, 200)
  await project.change(key.id, 'POST', '/revoke', {})
  for (const gateway of [one, two]) t.match((await ask(as(project, key.secret), gateway)).problem, { status: 401, code: 'invalid_credentials' })
})

t.test('its end and a replaced secret\'s are told, and hold', async t => {
  const project = await house.createProject()
  const expiresAt = new Date(Date.now() + 7_200_000).toISOString()
  const key = await project.createKey({ expiresAt })
  const rotated = await project.change(key.id, 'POST', '/rotate', { gracePeriodSeconds: 3600 })
  const old = await ask(as(project, key.secret))
  const { secret } = JSON.parse(old.body) as Me
  t.equal(secret.state, 'retiring')
  const end = Date.parse(secret.expiresAt ?? '')
  t.ok(end > Date.now() && end <= Date.now() + 3_600_000)
  t.match(old.headers, { deprecation: /^@\d+$/, sunset: / GMT$/ })
  const current = await ask(as(project, rotated.secret))
  t.match(JSON.parse(current.body), { expiresAt, secret: { state: 'current', expiresAt: null } })
  t.notOk('deprecation' in current.headers || 'sunset' in current.headers)
  clock.micros = end * 1000
  t.match((await ask(as(project, key.secret))).problem, { status: 401, code: 'secret_retired' })
  clock.micros = Date.parse(expiresAt) * 1000
  t.match((await ask(as(project, rotated.secret))).problem, { status: 401, code: 'key_expired' })
  clock.micros = undefined
})

t.test('Redis away: it answers still, and claims no shared count', async t => {
  const project = await house.createProject()
  const { secret } = await project.createKey()
  const gateway = await house.openGateway({ REDIS_URL: `redis://127.0.0.1:${toRedis.port}` })
  t.strictSame((await me(as(project, secret), gateway.url)).limits[0]?.remaining, 20)
  await toRedis.stop()
  const alone = await me(as(project, secret), gateway.url)
  t.strictSame(alone.limits.map(({ policy, limit, remaining, resetSeconds }) => [policy, limit, remaining, resetSeconds]), [['default', 20, null, null], ['slow', 5, null, null], ['from-here', 9, null, null], ['export', 2, null, null]])
  t.equal((await ask(as(project, generateSecret('kg')), gateway.url)).status, 401)
})
