import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Redis } from 'ioredis'
import t from 'tap'
import { repoRoot } from '../src/root.ts'
import { basic, call, openHouse, type Answer, type Key } from './house.ts'

// What a key's life looks like from outside, through both gateways. The clock of the second one is an hour ahead all the time.
const hourMs = 3_600_000
const shifted = `${pathToFileURL(join(repoRoot, 'infra/local/test/shift-clock.js')).href}?ms=${hourMs}`
const house = await openHouse({
  gatewayNodeArgs: index => index === 1 ? ['--import', shifted] : [],
  env: { gateway: { KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_TRUST_PROXY: '127.0.0.1' } }
})
t.teardown(house.stop)
const redis = new Redis(house.stack.redisUrl)
t.teardown(() => { redis.disconnect() })
const gateways = [0, 1]

/** Calls an operation of the project on both gateways, and fulfils with the answers in their order. */
const onBoth = async (secret: string, rest = '', headers: string[] = []): Promise<Answer[]> =>
  await Promise.all(house.stack.gateways.map(async ({ url }) => await call(url, { path: house.example + rest, headers: [...basic(house.projectId, secret), ...headers] })))
const statuses = async (...request: Parameters<typeof onBoth>): Promise<number[]> => (await onBoth(...request)).map(({ status }) => status)
const edit = async (key: Key, settings: object): Promise<Key> => await house.change(key, 'PATCH', '', settings)

/** Redis's clock: Unix milliseconds with their fraction. */
async function nowMs (): Promise<number> {
  const [seconds, micros] = await redis.time()
  return Number(seconds) * 1000 + Number(micros) / 1000
}

t.test('K14: disabled it is refused on both at the next request, enabled it works again with the same secret', async t => {
  const key = await house.createKey()
  t.same(await statuses(key.secret), [200, 200])
  await house.change(key, 'POST', '/disable')
  for (const { status, body } of await onBoth(key.secret)) t.match([status, JSON.parse(body)], [401, { code: 'key_disabled' }])
  await house.change(key, 'POST', '/enable')
  t.same(await statuses(key.secret), [200, 200])
})

/** One answer, and between which moments of Redis's clock it was made. */
interface Judged { status: number, sentMs: number, answeredMs: number }

async function judge (gateway: number, secret: string): Promise<Judged> {
  const sentMs = await nowMs()
  const { status } = await house.use(gateway, secret)
  return { status, sentMs, answeredMs: await nowMs() }
}

/** A key that ends in some seconds, and what both gateways say of it before. Undefined: the machine was too slow for so short a life. */
async function shortLived (seconds: number): Promise<{ key: Key, endMs: number, early: Judged[] } | undefined> {
  const endMs = Math.floor(await nowMs()) + seconds * 1000
  const key = await house.createKey({ expiresAt: new Date(endMs).toISOString() }).catch((error: unknown) => error as Error)
  if (key instanceof Error) {
    if (await nowMs() < endMs) throw key
    return undefined
  }
  const early = await Promise.all(gateways.map(async gateway => await judge(gateway, key.secret)))
  return early.every(({ answeredMs }) => answeredMs < endMs) ? { key, endMs, early } : undefined
}

t.test('GX-21 K15: a key works until its expiry and not from then on, by Redis\'s clock, whatever a gateway\'s own clock says', async t => {
  const lived = await shortLived(2) ?? await shortLived(10) ?? await shortLived(60)
  if (lived === undefined) throw new Error('this machine needs more than a minute for a request')
  const { key, endMs, early } = lived
  t.same(early.map(({ status }) => status), [200, 200], 'before')
  const judged: Judged[] = []
  while (await nowMs() < endMs) judged.push(...await Promise.all(gateways.map(async gateway => await judge(gateway, key.secret))))
  t.comment(`${judged.length} requests before and around the expiry`)
  t.same(judged.filter(({ status, sentMs, answeredMs }) => !(status === 200 && sentMs < endMs) && !(status === 401 && answeredMs >= endMs)), [])
  for (const { status, body } of await onBoth(key.secret)) t.match([status, JSON.parse(body)], [401, { code: 'key_expired' }])
})

t.test('GX-21: a gateway whose clock is an hour ahead admits the same totals as a correct one', async t => {
  const log = readFileSync(join(house.dir, 'logs/gateway-2.log'), 'utf8')
  t.ok(Number(/"time":(\d+)/.exec(log)?.[1]) > Date.now() + hourMs / 2, 'its clock really is')
  const policies = (limit: number): object => ({ policies: [{ name: 'p', limit, windowSeconds: 3600 }] })
  const shared = await house.createKey(policies(20))
  const answers = await Promise.all(Array.from({ length: 40 }, async (_, i) => await house.use(i % 2, shared.secret)))
  const admitted = answers.filter(({ status }) => status === 200)
  t.equal(admitted.length, 20)
  t.same(admitted.map(({ headers }) => Number(/remaining=(\d+)/.exec(String(headers['ratelimit']))?.[1])).sort((a, b) => b - a), Array.from({ length: 20 }, (_, i) => 19 - i))
  for (const gateway of gateways) {
    const own = await house.createKey(policies(5))
    const seen: number[] = []
    for (let i = 0; i < 7; i++) seen.push((await house.use(gateway, own.secret)).status)
    t.same(seen, [200, 200, 200, 200, 200, 429, 429], `gateway ${gateway}`)
  }
})

/** A key's limit as it is peeked at, in what the RateLimit field says too. */
interface Peeked { name: string, algorithm: string, limit: number, remaining: number, resetSeconds: number, admittedAgoMs: number[] }

t.test('P3: a peek is what the last answer\'s RateLimit said, counts nothing, and a reset makes both gateways count from anew', async t => {
  const limitOf = (key: Key): string => `/v1/projects/${house.projectId}/keys/${key.id}/limit`
  const peek = async (key: Key): Promise<Peeked[]> => (await house.admin.send<{ data: Peeked[] }>('GET', limitOf(key))).data
  const told = ({ headers }: Answer): { remaining: number, reset: number } => {
    const [, remaining, reset] = /remaining=(\d+), reset=(\d+)/.exec(String(headers['ratelimit'])) ?? []
    return { remaining: Number(remaining), reset: Number(reset) }
  }
  for (const algorithm of ['sliding', 'fixed']) {
    const limit = 10
    const key = await house.createKey({ policies: [{ name: 'p', limit, windowSeconds: 3600, algorithm }] })
    const other = await house.createKey({ policies: [{ name: 'p', limit, windowSeconds: 3600, algorithm }] })
    for (const [calls, gateway] of gateways.entries()) {
      const answer = await house.use(gateway, other.secret)
      t.match({ status: answer.status, ...told(answer) }, { status: 200, remaining: limit - 1 - calls }, `${algorithm}: gateway ${gateway} counts`, { answer })
    }
    const unused = { name: 'p', algorithm, limit, remaining: limit, admittedAgoMs: [] }
    t.match(await peek(key), [unused], `${algorithm}: nothing is spent`)

    for (let spent = 1; spent <= 6; spent++) {
      const last = told(await house.use(spent % 2, key.secret))
      const [first, again] = [await peek(key), await peek(key)]
      t.equal(last.remaining, limit - spent)
      t.match(first, [{ remaining: last.remaining, admittedAgoMs: { length: algorithm === 'sliding' ? spent : 0 } }], `${algorithm}: what the answer to call ${spent} said`)
      t.ok((first[0]?.resetSeconds ?? 0) <= last.reset, 'the window only gets shorter')
      t.match(again, [{ remaining: last.remaining }], 'to ask counts nothing')
    }

    const before = await peek(key)
    const next = told(await house.use(0, key.secret))
    t.equal(next.remaining, (before[0]?.remaining ?? 0) - 1, `${algorithm}: the next answer has one less than the peek: itself`)

    for (let i = 0; i < next.remaining; i++) t.equal((await house.use(i % 2, key.secret)).status, 200)
    t.match(await onBoth(key.secret), [{ status: 429 }, { status: 429 }], `${algorithm}: all is spent, on both`)
    t.match(await peek(key), [{ remaining: 0 }])
    t.equal((await house.admin.call('DELETE', limitOf(key))).status, 204)
    t.match(await peek(key), [unused], `${algorithm}: forgotten`)
    for (const [calls, gateway] of gateways.entries()) {
      const answer = await house.use(gateway, key.secret)
      t.match({ status: answer.status, ...told(answer) }, { status: 200, remaining: limit - 1 - calls }, `${algorithm}: gateway ${gateway} counts from anew, in one count`)
    }
    t.match(await peek(other), [{ remaining: limit - gateways.length }], 'another key\'s count stays')
  }
})

t.test('K17: allowed hosts: in and out, one address, and its IPv6-mapped form is the same', async t => {
  const from = async (allowedHosts: string[] | null, address?: string): Promise<number[]> => {
    const { secret } = await house.createKey({ allowedHosts })
    return await statuses(secret, '', address === undefined ? [] : ['x-forwarded-for', address])
  }
  t.same(await from(null), [200, 200])
  t.same(await from(['127.0.0.1']), [200, 200])
  t.same(await from(['::ffff:127.0.0.1']), [200, 200])
  t.same(await from(['192.0.2.1']), [403, 403])
  t.same(await from(['1.2.3.4'], '1.2.3.4'), [200, 200])
  t.same(await from(['1.2.3.4'], '1.2.3.5'), [403, 403])
  t.same(await from(['1.2.3.4'], '::ffff:1.2.3.4'), [200, 200])
  t.same(await from(['::ffff:1.2.3.4'], '1.2.3.4'), [200, 200])
  const key = await house.createKey({ allowedHosts: ['127.0.0.1'] })
  t.same(await statuses(key.secret), [200, 200])
  await edit(key, { allowedHosts: ['192.0.2.1'] })
  for (const { status, body } of await onBoth(key.secret)) t.match([status, JSON.parse(body)], [403, { code: 'host_not_allowed' }])
})

t.test('K19: allowed for all: every scope; no longer: the list that was stored', async t => {
  const key = await house.createKey({ allowedForAll: true, scopes: ['submissions'] })
  t.same([await statuses(key.secret), await statuses(key.secret, '/submissions')], [[200, 200], [200, 200]])
  await edit(key, { allowedForAll: false })
  t.same([await statuses(key.secret), await statuses(key.secret, '/submissions')], [[403, 403], [200, 200]])
})

t.test('K20: no scopes and not for all: 403 everywhere', async t => {
  const { secret } = await house.createKey({ allowedForAll: false, scopes: [] })
  for (const operation of ['', '/versions', '/submissions', '/export', '/files', '/echo']) {
    for (const { status, body } of await onBoth(secret, operation)) t.match([status, JSON.parse(body)], [403, { code: 'scope_missing' }], operation)
  }
})

t.test('K24: an edit leaves the secret as it is, and it works on', async t => {
  const key = await house.createKey()
  t.same(await statuses(key.secret), [200, 200])
  const edited = await edit(key, { description: 'for the month\'s end' })
  t.match(edited, { description: 'for the month\'s end', hint: (key as Key & { hint: string }).hint })
  t.notOk('secret' in edited)
  t.same(await statuses(key.secret), [200, 200])
})

t.test('K2: after a rotation the old secret is refused on every gateway at the first try, and the new one works', async t => {
  const key = await house.createKey()
  t.same(await statuses(key.secret), [200, 200])
  const { secret } = await house.change(key, 'POST', '/rotate', {})
  t.same(await statuses(key.secret), [401, 401])
  t.same(await statuses(secret), [200, 200])
})

t.test('K6: a deleted key is refused on every gateway; to delete it again is 404', async t => {
  const key = await house.createKey()
  t.same(await statuses(key.secret), [200, 200])
  const path = `/v1/projects/${house.projectId}/keys/${key.id}`
  t.equal((await house.admin.call('DELETE', path)).status, 204)
  t.same(await statuses(key.secret), [401, 401])
  t.equal((await house.admin.call('DELETE', path)).status, 404)
})

/** Every operation of key-service's own document, its parameters filled in for a key. */
async function operationsOfKeyService (keyId: string): Promise<Array<{ method: string, path: string }>> {
  const { body } = await call(house.stack.keyService.url, { path: '/openapi.json' })
  const { paths } = JSON.parse(body) as { paths: Record<string, Record<string, object>> }
  const values: Record<string, string> = { projectId: house.projectId, keyId }
  return Object.entries(paths).flatMap(([template, item]) => Object.keys(item)
    .filter(method => ['get', 'post', 'put', 'patch', 'delete'].includes(method))
    .map(method => ({ method: method.toUpperCase(), path: template.replace(/\{(\w+)\}/g, (_, name: string) => values[name] ?? 'x') })))
}

t.test('A17: a valid API key opens no route that manages keys, as Bearer, as Basic or as a header, and changes nothing', async t => {
  const key = await house.createKey()
  t.same(await statuses(key.secret), [200, 200], 'it is valid')
  const managing = (await operationsOfKeyService(key.id)).filter(({ path }) => path.startsWith('/v1/projects'))
  t.ok(managing.length >= 10, `${managing.length} routes`)
  const state = async (): Promise<unknown[]> => {
    const { version, name } = await house.admin.send<{ version: number, name: string }>('GET', `/v1/projects/${house.projectId}`)
    const { data } = await house.admin.send<{ data: Array<{ id: string, version: number, status: string }> }>('GET', `/v1/projects/${house.projectId}/keys?limit=100`)
    return [version, name, data.map(({ id, version, status }) => ({ id, version, status }))]
  }
  const before = await state()
  for (const { method, path } of managing) {
    for (const credentials of [['authorization', `Bearer ${key.secret}`], basic(house.projectId, key.secret), ['x-api-key', key.secret]]) {
      const { status } = await call(house.stack.keyService.url, { method, path, headers: [...credentials, 'if-match', '*'] })
      t.ok(status === 401 || status === 403, `${method} ${path} with ${credentials[0] ?? ''}: ${status}`)
    }
  }
  t.same(await state(), before)
})

t.test('GX-19: none of key-service\'s routes exists on a gateway\'s port, not even for the operator\'s token', async t => {
  const key = await house.createKey()
  const operations = (await operationsOfKeyService(key.id)).filter(({ path }) => !['/livez', '/readyz'].includes(path))
  t.ok(operations.some(({ path }) => path === '/v1/verifications') && operations.length >= 12, `${operations.length} routes`)
  for (const { url } of house.stack.gateways) {
    for (const { method, path } of [...operations, { method: 'GET', path: '/openapi.json' }, { method: 'GET', path: '/docs' }]) {
      for (const headers of [[], ['authorization', `Bearer ${house.stack.tokens.operator}`]]) {
        const { status, body } = await call(url, { method, path, headers })
        t.match([status, JSON.parse(body)], [404, { code: 'not_found' }], `${method} ${path}`)
      }
    }
  }
})
