import { request, type ClientRequest } from 'node:http'
import { generateSecret } from '@keygate/api-key'
import type { UsageBatch, UsageRow } from '@keygate/contracts'
import t from 'tap'
import { addressHash } from '../src/usage/address-hash.ts'
import { basicOf, call, type Answer, type Project } from './house.ts'
import { bookedOf, openUsageHouse, sumsOf, totalsOf, until, type Sum } from './usage-house.ts'

const house = await openUsageHouse()
t.teardown(house.stop)
const { clock, redis, held, toRedis } = house
const [one, two] = house.gateways as [string, string]

const hourMs = 3_600_000
/** Of the injected clock: apart from the real one, so that nothing can be of the wrong clock by chance. */
const startMs = (Math.floor(Date.now() / hourMs) + 2) * hourMs
clock.micros = startMs * 1000
const minute = startMs / 60_000
const project = await house.createProject()
const all = await project.createKey()
const sentinel = await (await house.createProject()).createKey()

const as = (secret: string, { id }: Pick<Project, 'id'> = project): string[] => basicOf(`${id}:${secret}`)
const form = (rest = '', api = 'forms'): string => `/${api}/forms/${project.id}${rest}`
const get = async (headers: string[], path = form(), url = one): Promise<Answer> => await call(url, { path, headers })

/** Everything that a gateway has booked before this was called: its own requests come behind it, and what comes is sent in order. */
async function settled (url = one): Promise<UsageBatch[]> {
  const bookedBefore = bookedOf(totalsOf(await house.batches(), sentinel.id))
  // Refused, since the path names another project than the key's: so it needs none of its own.
  const { status } = await get(basicOf(`${project.id}:${sentinel.secret}`), form(), url)
  if (status !== 401) throw new Error(`the last one got ${status}`)
  return await until('the last request is booked', async () => {
    const batches = await house.batches()
    return bookedOf(totalsOf(batches, sentinel.id)) > bookedBefore && batches
  })
}

/** A request that is sent and not waited for. */
function send (url: string, path: string, headers: string[]): ClientRequest {
  const { hostname, port, host } = new URL(url)
  const sent = request({ host: hostname, port, path, headers: ['host', host, ...headers] })
  sent.on('error', () => {}).end()
  return sent
}

const none = { admitted: 0, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 }
const of = (operation: string, scope: string, counts: Partial<Sum>, api = 'forms'): Sum => ({ api, operation, scope, minute, ...none, ...counts })
const rowsOf = (batches: UsageBatch[], keyId: string): UsageRow[] => batches.flatMap(({ rows }) => rows).filter(row => row.keyId === keyId)

t.test('usage: each outcome is booked once: under its key, operation, scope and the minute of the clock that decided', async t => {
  const key = await project.createKey({ allowedForAll: false, scopes: ['forms', 'submissions'] })
  const bothMs = { KEYGATE_UPSTREAM_TIMEOUT_MS: '300' }
  const { url: impatient } = await house.openGateway(bothMs)
  const statuses = [
    await get(as(key.secret)),
    await get(['x-api-key', key.secret], form(), two),
    await get(as(key.secret), form('?status=404')),
    await get(as(key.secret), form('?status=500')),
    await get(as(key.secret), form('', 'dead')),
    await get(as(key.secret), form('?held'), impatient),
    await get(as(key.secret), form('/submissions')),
    await get(as(key.secret), form('/export')),
    await get(as(key.secret), form('/files')),
    await call(one, { method: 'PUT', path: form(), headers: as(key.secret) })
  ].map(({ status }) => status)
  t.strictSame(statuses, [200, 200, 404, 500, 502, 504, 200, 403, 403, 403])
  held.splice(0).forEach(response => response.destroy())
  const left = send(one, form('?held'), as(key.secret))
  await until('the upstream has it', async () => held.length > 0)
  left.destroy()
  held.splice(0)
  clock.micros = (startMs + 60_000) * 1000
  await get(as(key.secret))
  clock.micros = startMs * 1000

  const authorize = async (target: string, secret: string): Promise<number> => (await get([...as(secret), 'x-original-method', 'GET', 'x-original-uri', target], '/.keygate/authorize')).status
  t.equal(await authorize(form('/submissions'), key.secret), 204, 'forward-auth')
  t.equal(await authorize(form('/export'), key.secret), 403)

  const batches = await until('the client that left is booked', async () => {
    const batches = await settled()
    await settled(two)
    return totalsOf(batches, key.id).admitted === 10 && batches
  })
  await settled(impatient)
  t.strictSame(sumsOf(await house.batches(), key.id).sort((a, b) => a.minute - b.minute || (`${a.api} ${a.operation}` < `${b.api} ${b.operation}` ? -1 : 1)), [
    of('getForm', 'forms', { admitted: 1, upstreamErrors: 1 }, 'dead'),
    of('exportSubmissions', 'exports', { refused: 2 }),
    of('getForm', 'forms', { admitted: 6, upstreamErrors: 2 }),
    of('listFiles', 'files', { refused: 1 }),
    of('listSubmissions', 'submissions', { admitted: 2 }),
    of('updateForm', 'forms', { refused: 1 }),
    { ...of('getForm', 'forms', { admitted: 1 }), minute: minute + 1 }
  ])
  t.equal(batches.filter(({ lines }) => lines.some(line => line.finished > line.admitted)).length, 0)
  const counted = await redis.hvals(`kg:{${project.id}}:admitted:${minute}`)
  t.equal(counted.reduce((sum, count) => sum + Number(count), 0), 9, 'as many as the script counted')
})

t.test('usage: refusals of a known key: disabled, revoked, expired, another host, a replaced secret, another project, past its limit', async t => {
  const ask = async (secret: string): Promise<number> => (await get(as(secret))).status
  const disabled = await project.createKey()
  await project.change(disabled.id, 'POST', '/disable')
  const revoked = await project.createKey()
  await project.change(revoked.id, 'POST', '/revoke', {})
  const expired = await project.createKey({ expiresAt: new Date(startMs - hourMs).toISOString() })
  const elsewhere = await project.createKey({ allowedHosts: ['192.0.2.1'] })
  const rotated = await project.createKey()
  const { secret: replacement } = await project.change(rotated.id, 'POST', '/rotate', { gracePeriodSeconds: 60 })
  const astray = await (await house.createProject()).createKey()
  const limited = await project.createKey({ policies: [{ name: 'one', limit: 1, windowSeconds: 3600, algorithm: 'sliding', partition: 'key' }] })
  t.strictSame([await ask(disabled.secret), await ask(revoked.secret), await ask(expired.secret), await ask(elsewhere.secret), await ask(rotated.secret), await ask(replacement), await ask(astray.secret), await ask(limited.secret), await ask(limited.secret), await ask(limited.secret)],
    [401, 401, 401, 403, 401, 200, 401, 200, 429, 429])
  const batches = await settled()
  for (const { id } of [disabled, revoked, expired, elsewhere, astray]) t.strictSame(sumsOf(batches, id), [of('getForm', 'forms', { refused: 1 })])
  t.strictSame(sumsOf(batches, rotated.id), [of('getForm', 'forms', { admitted: 1, refused: 1 })])
  t.strictSame(sumsOf(batches, limited.id), [of('getForm', 'forms', { admitted: 1, limited: 2 })])
  const told = batches.flatMap(({ keys }) => keys).filter(({ keyId }) => keyId === rotated.id)
  t.equal(new Set(told.flatMap(({ callers }) => callers.map(({ secretId }) => secretId))).size, 2, 'who still uses the old secret')
  t.strictSame(told.flatMap(({ secrets }) => secrets.map(({ lastUsedMs }) => lastUsedMs)), [startMs], 'what was refused is no use')
  t.equal(batches.flatMap(({ keys }) => keys).filter(({ keyId }) => keyId === disabled.id).flatMap(({ secrets }) => secrets).length, 0)
})

t.test('usage: what is no request of a known key is not booked', async t => {
  const before = bookedOf(totalsOf(await settled()))
  const unknown = generateSecret('kg')
  const statuses = [
    await get(as(unknown)),
    await get(as('nonsense')),
    await get([]),
    await get([], '/forms/status'),
    await call(one, { method: 'OPTIONS', path: form(), headers: ['origin', 'https://a.example', 'access-control-request-method', 'GET', ...as(all.secret)] }),
    await get(as(all.secret), '/.keygate/me'),
    await get(as(all.secret), '/forms/nothing'),
    await get(as(all.secret), form(`?key=${all.secret}`)),
    await get([], '/livez'),
    await get(['x-original-method', 'GET', 'x-original-uri', '/forms/status'], '/.keygate/authorize')
  ].map(({ status }) => status)
  t.strictSame(statuses, [401, 401, 401, 200, 200, 200, 404, 400, 200, 204])
  t.equal(bookedOf(totalsOf(await settled())), before + 1, 'the sentinel alone')
})

t.test('usage: an answer that stays open is booked when it ends, once, however often its key is judged again', async t => {
  const key = await project.createKey()
  const { url, bootId: boot } = await house.bootOf(house.openGateway({ KEYGATE_STREAM_CHECK_MS: '20', KEYGATE_UPSTREAM_TIMEOUT_MS: '60000' }))
  const open = call(url, { path: form('?held'), headers: as(key.secret) })
  await until('the upstream has it', async () => held.length > 0)
  const lineOf = (batches: UsageBatch[]): object | undefined => batches.flatMap(({ lines }) => lines).findLast(({ projectId }) => projectId === project.id)
  await until('its line is told', async () => lineOf(await house.batches(boot)) !== undefined)
  t.match(lineOf(await house.batches(boot)), { admitted: 1, finished: 0 }, 'in flight')
  const [upstream] = held.splice(0)
  upstream?.writeHead(200).write('begin')
  await new Promise(resolve => { setTimeout(resolve, 300) }) // so that it is judged again a few times
  t.strictSame(sumsOf(await settled(url), key.id), [])
  upstream?.end('end')
  t.equal((await open).status, 200)
  await settled(url)
  const batches = await house.batches(boot)
  t.strictSame(sumsOf(batches, key.id), [of('getForm', 'forms', { admitted: 1 })])
  t.match(lineOf(batches), { admitted: 1, finished: 1 })
})

t.test('usage: a client that leaves while its key is being decided on is booked too', async t => {
  const key = await project.createKey()
  const { url, metric } = await house.openGateway({ REDIS_URL: house.redisUrlByProxy })
  await get(as(key.secret), form(), url)
  await settled(url)
  const ends = await metric('http_server_request_duration_seconds')
  const [heldUp] = [toRedis.once('held'), toRedis.pause('down', chunk => chunk.includes(':100000\r\n') || chunk.includes('*'))]
  const left = send(url, form(), as(key.secret))
  await heldUp
  left.destroy()
  await until('the gateway knows that it has left', async () => await metric('http_server_request_duration_seconds') > ends)
  toRedis.resume()
  const batches = await until('it is booked', async () => {
    const batches = await house.batches()
    return totalsOf(batches, key.id).admitted === 2 && batches
  })
  const boot = batches.findLast(({ keys }) => keys.some(({ keyId }) => keyId === key.id))?.bootId
  const line = batches.filter(({ bootId }) => bootId === boot).flatMap(({ lines }) => lines).findLast(({ projectId }) => projectId === project.id)
  t.equal(line?.admitted, line?.finished, 'nothing is in flight for ever')
  t.equal(line?.unanswered, 0)
})

t.test('K22: a request before loggingUntil has a row, one after it none, by the injected clock, and the key still works', async t => {
  const until = new Date(startMs + 10 * 60_000).toISOString()
  const key = await project.createKey({ logging: { all: until } })
  const scoped = await project.createKey({ allowedForAll: false, scopes: ['forms', 'submissions'], logging: { scopes: { forms: 'forever' } } })
  const ask = async (ms: number): Promise<number> => {
    clock.micros = (startMs + ms) * 1000
    return (await get(as(key.secret), form(`?at=${ms}`))).status
  }
  t.strictSame([await ask(0), await ask(10 * 60_000 - 1), await ask(10 * 60_000), await ask(11 * 60_000)], [200, 200, 200, 200])
  await get(as(scoped.secret))
  await get(as(scoped.secret), form('/submissions'))
  const batches = await settled()
  clock.micros = startMs * 1000
  t.strictSame(rowsOf(batches, key.id).map(({ atMs }) => atMs - startMs), [0, 10 * 60_000 - 1])
  t.equal(totalsOf(batches, key.id).admitted, 4, 'the sums go on')
  t.strictSame(rowsOf(batches, scoped.id).map(({ scope }) => scope), ['forms'], 'single scopes')
})

t.test('K25: a row says what is known of the request, and never a secret, a query or a body', async t => {
  const key = await project.createKey({ logging: { all: 'forever' } })
  const other = await project.createKey()
  const unused = generateSecret('kg')
  const canary = 'canary-8d1f'
  const headers = [...as(key.secret), 'user-agent', `app/${other.secret}`, 'cookie', canary, 'referer', `https://a.example/${canary}`, 'x-request-id', other.secret, 'authorization-2', unused, 'x-forwarded-for', canary]
  const answers = [
    await call(one, { method: 'POST', path: form(`/submissions?q=${canary}`), headers: [...headers, 'content-type', 'text/plain'], body: canary + unused }),
    await get([...as(key.secret), 'user-agent', `curl/8.5 ${canary}`, 'x-request-id', 'given-id'], form(`?token=${canary}`)),
    await get([...as(key.secret), 'user-agent', Buffer.from(`Basic ${key.secret}`).toString('base64')], `/forms/submissions/${canary}`),
    await get([...as(key.secret), 'user-agent', encodeURIComponent(`x ${key.secret}`).replaceAll('_', '%5F')]),
    await get(as(key.secret), form(`/submissions/${canary}?x=${canary}`)),
    await get(as(key.secret), form('?status=503'))
  ]
  t.ok(answers.every(({ status }) => status < 600))
  const batches = await settled()
  const rows = rowsOf(batches, key.id)
  t.equal(rows.length, 6)
  t.match(rows[1], { atMs: startMs, requestId: 'given-id', projectId: project.id, keyId: key.id, api: 'forms', operation: 'getForm', method: 'GET', scope: 'forms', outcome: 'admitted', code: null, status: 200, bytes: 5, address: '127.0.0.1', client: 'curl/8.5' })
  t.match(rows[5], { outcome: 'upstream_error', status: 503 })
  t.match(rows[0], { client: '', bytes: 5 })
  const text = JSON.stringify(batches) + JSON.stringify(await redis.xrange('kg:usage:0', '-', '+'))
  for (const secret of [key.secret, other.secret, unused, canary, Buffer.from(`${project.id}:${key.secret}`).toString('base64'), encodeURIComponent(key.secret), `x%20${key.secret.replaceAll('_', '%5F')}`]) t.notOk(text.includes(secret), secret)
})

t.test('usage: addresses as the trusted hop gives them, or hashed; what is no address is `unknown`', async t => {
  const key = await project.createKey({ logging: { all: 'forever' } })
  const { url: plain } = await house.openGateway({ KEYGATE_TRUST_PROXY: '127.0.0.1' })
  const { url: hashed } = await house.openGateway({ KEYGATE_TRUST_PROXY: '127.0.0.1', KEYGATE_USAGE_ADDRESSES: 'hashed' })
  for (const url of [plain, hashed]) for (const ip of ['192.0.2.7', '::ffff:192.0.2.7', 'evil <b>']) await get([...as(key.secret), 'x-forwarded-for', ip], form(), url)
  await settled(plain)
  const batches = await settled(hashed)
  const addresses = rowsOf(batches, key.id).map(({ address }) => address).sort()
  const hash = addressHash(house.stack.tokens.gateway)('192.0.2.7')
  t.strictSame(addresses, ['192.0.2.7', '192.0.2.7', hash, hash, 'unknown', 'unknown'].sort())
  t.strictSame(batches.flatMap(({ keys }) => keys).filter(({ keyId }) => keyId === key.id).flatMap(({ callers }) => callers.map(({ address }) => address)).filter((address, i, all) => all.indexOf(address) === i).sort(), ['192.0.2.7', hash, 'unknown'].sort())
})

t.test('usage: a gateway says hello when it listens; with KEYGATE_USAGE=false it records nothing', async t => {
  const hellos = async (): Promise<number> => (await house.batches()).filter(({ seq }) => seq === 0).length
  const { url, bootId } = await house.bootOf(house.openGateway({}))
  const before = await hellos()
  t.match((await house.batches(bootId))[0], { seq: 0, lines: [], incarnations: [], keys: [], rows: [], replica: /:\d+$/ })
  const key = await project.createKey({ logging: { all: 'forever' } })
  const off = await house.openGateway({ KEYGATE_USAGE: 'false' })
  t.equal((await get(as(key.secret), form(), off.url)).status, 200)
  t.equal((await get(as(key.secret), form(), url)).status, 200)
  const batches = await settled(url)
  t.equal(totalsOf(batches, key.id).admitted, 1, 'of the other one')
  t.equal(await hellos(), before)
})

t.test('usage: a fault in what is written down fails no request', async t => {
  const key = await project.createKey()
  const { url, metric } = await house.openGateway({ KEYGATE_TRUST_PROXY: '127.0.0.1' })
  await get(as(key.secret), form(), url)
  await settled(url)
  // What no client can bring about: the fold itself breaks.
  const { Fold } = await import('../src/usage/fold.ts')
  const add = Fold.prototype.add
  Fold.prototype.add = () => { throw new Error('broken') }
  t.teardown(() => { Fold.prototype.add = add })
  t.equal((await get(as(key.secret), form(), url)).status, 200)
  t.equal((await get(as(key.secret), form(), url)).status, 200, 'nor does the process end')
  await until('both are counted', async () => await metric('gateway_usage_dropped_total') === 2)
  Fold.prototype.add = add
  t.equal(totalsOf(await settled(url), key.id).admitted, 1)
})
