import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { startNginx, type Nginx } from '../src/index.ts'
import { hostOf, keptAlive, send as sendTo, shippedConfig, type Answer, type Call } from './behind-nginx.ts'
import { basic, openHouse, type Key } from './house.ts'

// The API behind nginx, and two gateways beside it that only judge.
const house = await openHouse({ gateways: 2, env: { gateway: { KEYGATE_TRUST_PROXY: '127.0.0.1' } } })
t.teardown(house.stop)
const [one, two] = house.stack.gateways.map(({ url }) => url) as [string, string]

async function startShipped (gateways: string[]): Promise<Nginx> {
  const [first = '', second = first, third = first] = gateways
  const nginx = await startNginx({
    config: port => shippedConfig(['gateways.conf', 'forward-auth.conf'], {
      KEYGATE_LISTEN: `127.0.0.1:${port}`, KEYGATE_API: hostOf(house.stack.upstream.url), KEYGATE_GATEWAY_1: first, KEYGATE_GATEWAY_2: second, KEYGATE_GATEWAY_3: third
    })
  })
  t.teardown(nginx.stop)
  return nginx
}

const nginx = await startShipped([hostOf(one), hostOf(two)])

t.teardown(() => { keptAlive.destroy() })

const send = async (base: string, call: Call): Promise<Answer> => await sendTo(base, { path: house.example, ...call })
const keyOf = (key: Key): string[] => basic(house.projectId, key.secret)
const policy = (limit: number): object => ({ policies: [{ name: 'few', limit, windowSeconds: 3600 }] })
const echo = `${house.example}/echo`

/** What a client learns of a refusal. `reset` and `Retry-After` count seconds down, so they may differ by what lies between two calls. */
function told ({ status, headers, body }: Answer): object {
  const names = ['content-type', 'cache-control', 'www-authenticate', 'ratelimit-policy', 'ratelimit', 'allow', 'x-request-id', 'x-keygate-status', 'x-keygate-problem']
  return { status, body, hasRetryAfter: headers['retry-after'] !== undefined, ...Object.fromEntries(names.map(name => [name, headers[name]?.replace(/reset=\d+/, 'reset=n')])) }
}

/** Refused through nginx as the gateway itself refuses: the same to the byte, since both are given the same request id. */
async function refusedAlike (t: Test, name: string, wanted: object, call: Call): Promise<void> {
  const asked = { ...call, headers: [...call.headers ?? [], 'X-Request-Id', 'same'] }
  const [through, directly] = [await send(nginx.url, asked), await send(one, asked)]
  t.match({ ...through, code: (JSON.parse(through.body || '{}') as { code?: string }).code }, wanted, name)
  t.strictSame(told(through), told(directly), `${name}: as the gateway says it`)
  t.equal(through.rawHeaders.filter(field => /^(?:www-authenticate|content-type|x-request-id)$/i.test(field)).length, through.status === 401 ? 3 : 2, `${name}: nothing twice`)
}

t.test('GX-08: an admitted request reaches the API with who it is, without the key and without what the client claims', async t => {
  const key = await house.createKey({ allowedForAll: false, scopes: ['forms'], ...policy(20) })
  const spoofed = ['X-Keygate-Project', 'p', 'X-Keygate-Key', 'k', 'X-Keygate-Scopes', '*', 'X-Keygate-Status', '200', 'X-Keygate-Problem', '{}', 'X_Keygate_Project', 'p', 'X-Original-URI', '/app/api/v1/status', 'X-Original-Method', 'OPTIONS',
    'X-Forwarded-For', '192.0.2.9', 'X-Forwarded-Proto', 'https', 'X-Forwarded-Host', 'evil.example', 'X-Real-IP', '192.0.2.9', 'Forwarded', 'for=192.0.2.9']
  const wanted = `${echo}?x=%2F..//%41&y=a+b&ownRateLimit=true`
  for (const credentials of [keyOf(key), ['X-API-Key', key.secret, 'Authorization', 'Bearer for.the.API']]) {
    const answer = await send(nginx.url, { path: wanted, headers: [...credentials, ...spoofed, 'X-Request-Id', 'req-7'] })
    t.equal(answer.status, 200)
    const arrived = JSON.parse(answer.body) as { path: string, query: string, headers: Record<string, string>, rawHeaders: string[][] }
    t.equal(`${arrived.path}?${arrived.query}`, wanted, 'the target as it was judged')
    t.match(arrived.headers, { 'x-keygate-project': house.projectId, 'x-keygate-key': key.id, 'x-keygate-scopes': 'forms', 'x-request-id': 'req-7', 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'http' })
    t.strictSame(arrived.rawHeaders.map(([name = '']) => name.toLowerCase()).filter(name => /keygate|original|api-key|forwarded|real-ip|_/.test(name)).sort(),
      ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-keygate-key', 'x-keygate-project', 'x-keygate-scopes'])
    t.equal(arrived.headers['authorization'], credentials[0] === 'X-API-Key' ? 'Bearer for.the.API' : undefined)
    t.notMatch(answer.body, key.secret)
    t.match(answer.headers, { 'ratelimit-policy': '20;w=3600', 'x-request-id': 'req-7' })
    t.match(answer.headers['ratelimit'], /^limit=20, remaining=1[89], /, 'ours, not the API\'s')
  }
})

t.test('a key\'s count is one, whether the API is reached through nginx or through a gateway', async t => {
  const key = await house.createKey(policy(4))
  const seen: Array<string | number | undefined> = []
  for (const base of [nginx.url, one, nginx.url, two, nginx.url]) {
    const { status, headers } = await send(base, { headers: keyOf(key) })
    seen.push(status === 200 ? /remaining=\d/.exec(headers['ratelimit'] ?? '')?.[0] : status)
  }
  t.strictSame(seen, ['remaining=3', 'remaining=2', 'remaining=1', 'remaining=0', 429])
})

t.test('a refusal is through nginx what it is at the gateway: true status, numbers, challenge and problem', async t => {
  const [forms, spent] = await Promise.all([house.createKey({ allowedForAll: false, scopes: ['forms'] }), house.createKey(policy(1))])
  await send(one, { headers: keyOf(spent) })
  await refusedAlike(t, '429', { status: 429, code: 'limited', headers: { ratelimit: /^limit=1, remaining=0, reset=/, 'ratelimit-policy': '1;w=3600', 'retry-after': /^3[56]\d\d$/, 'content-type': 'application/problem+json' } }, { headers: keyOf(spent) })
  await refusedAlike(t, '401', { status: 401, code: 'missing_credentials', headers: { 'www-authenticate': /^Basic realm=/ } }, {})
  await refusedAlike(t, '401', { status: 401, code: 'missing_credentials' }, { headers: ['X-Original-URI', '/app/api/v1/status', 'X-Original-Method', 'GET', 'X-Keygate-Status', '200'] })
  await refusedAlike(t, '401 of another project\'s path', { status: 401, code: 'invalid_credentials' }, { path: `/app/api/v1/forms/${crypto.randomUUID()}`, headers: keyOf(forms) })
  await refusedAlike(t, '403', { status: 403, code: 'scope_missing', headers: { ratelimit: /^limit=/ } }, { path: `${house.example}/submissions`, headers: keyOf(forms) })
  await refusedAlike(t, '404', { status: 404, code: 'not_found' }, { path: '/app/api/v1/nowhere', headers: keyOf(forms) })
  for (const path of [`/app/api/v1//forms/${house.projectId}`, '/app/api/v1/x/../status', `/app/api/v1/forms%2f${house.projectId}`]) await refusedAlike(t, `400 of ${path}`, { status: 400, code: 'ambiguous_path' }, { path })
  await refusedAlike(t, '400 of a path that is no project', { status: 400, code: 'invalid_project_id' }, { path: '/app/api/v1/forms/x%22%7B', headers: keyOf(forms) })
  await refusedAlike(t, '405', { status: 405, code: 'method_not_allowed', headers: { allow: /GET, HEAD/ } }, { method: 'PROPFIND' })
  await refusedAlike(t, '400 of two keys', { status: 400, code: 'ambiguous_credentials' }, { headers: [...keyOf(forms), 'X-API-Key', forms.secret] })
})

t.test('bodies, HEAD, what needs no key, and the client\'s address', async t => {
  const key = await house.createKey({ allowedHosts: ['127.0.0.2'] })
  const body = JSON.stringify({ answers: { long: 'x'.repeat(100_000) } })
  const posted = await send(nginx.url, { method: 'POST', path: `${house.example}/submissions`, headers: [...keyOf(key), 'content-type', 'application/json', 'content-length', String(body.length)], body, from: '127.0.0.2' })
  t.match(posted, { status: 201, headers: { ratelimit: /^limit=100000, / } })
  t.equal((JSON.parse(posted.body) as { answers: { long: string } }).answers.long.length, 100_000)
  t.match(await send(nginx.url, { method: 'HEAD', headers: keyOf(key), from: '127.0.0.2' }), { status: 200, body: '', headers: { ratelimit: /^limit=100000, / } })
  t.match(await send(nginx.url, { method: 'HEAD' }), { status: 401, body: '' })
  const { status, body: refused } = await send(nginx.url, { headers: [...keyOf(key), 'X-Forwarded-For', '127.0.0.2'] })
  t.match({ status, code: (JSON.parse(refused) as { code: string }).code }, { status: 403, code: 'host_not_allowed' }, 'the address is what nginx sees')
  t.match(await send(nginx.url, { path: '/app/api/v1/status' }), { status: 200, headers: { 'ratelimit-policy': '500;w=60' } })
  const preflight = await send(nginx.url, { method: 'OPTIONS', headers: ['Origin', 'https://a.example', 'Access-Control-Request-Method', 'GET'] })
  t.match(preflight, { status: 404, body: /There is no such address/ }, 'a preflight reaches the API, which has no CORS here')
  t.match(await send(nginx.url, { path: '/.keygate/me', headers: keyOf(key), from: '127.0.0.2' }), { status: 200, body: new RegExp(key.id) })
  t.equal((await send(nginx.url, { path: '/.keygate/authorize', headers: [...keyOf(key), 'X-Original-URI', house.example, 'X-Original-Method', 'GET'], from: '127.0.0.2' })).status, 404, 'nobody outside asks the gateway this')
})

t.test('nginx keeps its connections to the gateway, refused or not', async t => {
  const key = await house.createKey()
  let connections = 0
  const counted = createServer(socket => {
    connections++
    const { hostname, port } = new URL(one)
    const gateway = connect(Number(port), hostname)
    socket.pipe(gateway).pipe(socket)
    for (const end of [socket, gateway]) end.on('error', () => {}).on('close', () => { socket.destroy(); gateway.destroy() })
  })
  counted.listen(0, '127.0.0.1')
  await once(counted, 'listening')
  const other = await startShipped([`127.0.0.1:${(counted.address() as AddressInfo).port}`])
  for (let i = 0; i < 20; i++) {
    t.equal((await send(other.url, { headers: keyOf(key) })).status, 200)
    t.equal((await send(other.url, { path: `/app/api/v1//${i}` })).status, 400)
  }
  t.ok(connections < 10, `${connections} connections for 40 questions; a pause of two seconds costs one`)
  await other.stop()
  counted.close()
})

t.test('what cannot be judged does not pass: key-service away, then the gateways', async t => {
  const [known, unknown] = await Promise.all([house.createKey(), house.createKey()])
  for (const base of [one, two]) t.equal((await send(base, { headers: keyOf(known) })).status, 200)
  await house.stack.keyService.stop()
  t.equal((await send(nginx.url, { headers: keyOf(known) })).status, 200)
  await refusedAlike(t, '503', { status: 503, code: 'key_service_unavailable', headers: { 'retry-after': '1' } }, { headers: keyOf(unknown) })
  await Promise.all(house.stack.gateways.map(async ({ stop }) => { await stop() }))
  for (const path of [house.example, '/.keygate/me']) {
    t.match(await send(nginx.url, { path, headers: keyOf(known) }), { status: 503, headers: { 'content-type': 'application/problem+json', 'retry-after': '1', 'cache-control': 'no-store' }, body: /"code":"gateway_unreachable"/ }, path)
  }
})
