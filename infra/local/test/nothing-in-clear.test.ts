import { randomUUID } from 'node:crypto'
import { readFileSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import postgres from 'postgres'
import t from 'tap'
import { basic, call, openHouse } from './house.ts'

// Redis compresses long texts in its dump: then a secret would lie there and not be found.
const house = await openHouse({
  logLevel: 'trace',
  redis: { args: ['--rdbcompression', 'no'] },
  env: { keyService: { KEYGATE_IMPORT_FORMS: 'uuid' }, gateway: { KEYGATE_IMPORT_FORMS: 'uuid' } }
})
t.teardown(house.stop)

/** Characters of a spelling that are looked for: enough to be no accident, and the same for all, so that one pass finds any. */
const width = 16

/** Every spelling in which a secret could lie somewhere: as it is, in hex, in a URL, and in base64 of something that contains it. */
function spellings (secret: string): string[] {
  const bytes = Buffer.from(secret)
  // In base64 the same bytes read differently at each of three alignments; characters that neighbours share are cut off.
  const aligned = [0, 1, 2].map(shift => {
    const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString('base64').replace(/=+$/, '')
    return text.slice(Math.ceil(shift * 8 / 6), Math.floor((shift + bytes.length) * 8 / 6))
  })
  return [secret, bytes.toString('hex'), bytes.toString('hex').toUpperCase(), encodeURIComponent(secret), ...aligned, ...aligned.map(text => text.replaceAll('+', '-').replaceAll('/', '_'))]
}

/** Where any of the secrets stands, in any spelling. */
function search (places: Map<string, string>, secrets: string[]): string[] {
  // From behind the prefix on, which every secret shares; in the middle, where no neighbour has touched the encoding.
  const wanted = new Map(secrets.flatMap(secret => spellings(secret).map(text => [text.slice(8, 8 + width), secret] as const)))
  const hits: string[] = []
  for (const [place, text] of places) {
    for (let i = 0; i + width <= text.length; i++) {
      const secret = wanted.get(text.slice(i, i + width))
      if (secret !== undefined) hits.push(`${place}: ${secret.slice(0, 6)}... at ${i}`)
    }
  }
  return hits
}

/** All files below a folder, as bytes in one-byte characters. */
function files (folder: string): Map<string, string> {
  return new Map(readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map(name => join(folder, name)).filter(path => statSync(path).isFile()).map(path => [path, readFileSync(path, 'latin1')]))
}

/** A value as text, whatever its type. */
async function valueOf (redis: Redis, key: string): Promise<string> {
  switch (await redis.type(key)) {
    case 'string': return await redis.get(key) ?? ''
    case 'hash': return JSON.stringify(await redis.hgetall(key))
    case 'list': return (await redis.lrange(key, 0, -1)).join(' ')
    case 'zset': return (await redis.zrange(key, '0', '-1')).join('\n')
    case 'set': return (await redis.smembers(key)).join('\n')
    case 'stream': return JSON.stringify(await redis.xrange(key, '-', '+'))
    default: throw new Error(`a type that this test cannot read: ${key}`)
  }
}

t.test('the search finds a secret in every spelling', async t => {
  const secret = 'kg_0123456789abcdefghijkl_01abCD'
  const projectId = '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10'
  for (const prefix of ['', 'a', 'ab', `${projectId}:`]) {
    const encoded = Buffer.from(prefix + secret + prefix).toString('base64')
    t.ok(spellings(secret).some(spelling => encoded.includes(spelling)), `base64 behind ${prefix.length} bytes`)
    t.equal(search(new Map([['here', `... ${encoded} ...`]]), [secret]).length, 1)
  }
  t.ok(spellings(secret).includes(Buffer.from(secret).toString('hex')))
})

t.test('P4: K25, GX-02, GX-03: after a day\'s work at LOG_LEVEL=trace none of 1000 secrets stands in PostgreSQL, Redis, a log or a metric', async t => {
  const keyService = house.stack.keyService.url
  const canaries: string[] = [house.stack.tokens.operator, house.stack.tokens.gateway]
  const keys = `/v1/projects/${house.projectId}/keys`

  for (let i = 0; i < 10; i++) {
    const key = await house.createKey({ name: `canary ${i}`, description: 'text', sealed: i % 5 === 0, logging: { all: 'forever' } })
    canaries.push(key.secret)
    const header = ['x-api-key', key.secret]
    for (const gateway of [0, 1]) {
      const { url } = house.stack.gateways[gateway] as { url: string }
      await house.use(gateway, key.secret)
      await call(url, { path: house.example, headers: header })
      await call(url, { path: `${house.example}?api_key=${key.secret}` })
      await call(url, { path: house.example, headers: ['authorization', `Bearer ${key.secret}`] })
      await call(url, { path: `${house.example}?k=${key.secret.replaceAll('_', '%5F')}`, headers: header })
      // A request's id is logged, and a client may choose it; so is what it calls itself.
      await call(url, { path: house.example, headers: [...header, 'x-request-id', key.secret, 'user-agent', key.secret] })
      await call(url, { path: '/app/api/v1/status', headers: ['x-request-id', key.secret, 'x-custom', key.secret, 'cookie', `key=${key.secret}`, 'traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'tracestate', `a=${key.secret}`] })
      await call(url, { path: house.example, headers: [...basic(house.projectId, key.secret), ...header] })
      await call(url, { path: '/app/api/v1/files/1', headers: header })
      await call(url, { method: 'POST', path: `${house.example}/submissions`, headers: [...header, 'content-type', 'application/json', 'content-length', '0'] })
    }
    await house.admin.call('POST', `${keys}/${key.id}/reveal`, { reason: 'to see that it is written nowhere' })
    const rotated = await house.change(key, 'POST', '/rotate', { gracePeriodSeconds: 60 })
    canaries.push(rotated.secret)
    await house.use(0, key.secret)
    await house.use(1, rotated.secret)
    await house.admin.call('POST', '/v1/verifications', { digest: rotated.secret })
    await house.admin.call('PATCH', `${keys}/${key.id}`, { secret: rotated.secret })
    await house.admin.call('GET', `${keys}?search=${rotated.secret}`)
    await house.admin.call('GET', `${keys}/${rotated.secret}`)
    await call(keyService, { path: '/v1/me', headers: ['authorization', `Bearer ${rotated.secret}`] })
    if (i % 3 === 0) await house.change(key, 'POST', '/revoke', { reason: 'test' })
    if (i % 3 === 1) await house.change(key, 'DELETE', '')
  }

  const imported = randomUUID()
  canaries.push(imported)
  await house.createKey({ name: 'imported', import: { secret: imported } })
  t.equal((await house.use(0, imported)).status, 200)
  await house.admin.call('POST', keys, { name: 'again', import: { secret: imported } })

  canaries.push(...await createOnce(keyService), ...await signIn(keyService))

  const batch = 50
  while (canaries.length < 1000) canaries.push(...(await Promise.all(Array.from({ length: batch }, async () => await house.createKey()))).map(({ secret }) => secret))

  // To make so many keys can take longer than a window, and what was counted before has left Redis then.
  t.equal((await house.use(0, imported)).status, 200)
  for (const path of [house.example, '/app/api/v1/status']) await call(house.stack.gateways[1]?.url ?? '', { path })

  const places = new Map<string, string>()
  for (const [name, url] of [['key-service', house.stack.keyService.metricsUrl], ...house.stack.gateways.map(({ metricsUrl }, i) => [`gateway-${i + 1}`, metricsUrl])]) {
    places.set(`metrics of ${name}`, (await call(String(url), { path: '/metrics' })).body)
  }
  const sql = postgres(house.stack.postgres.url, { max: 1 })
  const [written = { rows: 0, callers: 0 }] = await sql<{ rows: number, callers: number }[]>`select (select count(*)::int from request_log) as rows, (select count(*)::int from usage_callers) as callers`
  t.ok(written.rows >= 100 && written.callers >= 10, `${written.rows} requests are logged, of ${written.callers} callers`)
  const tables = await sql<{ name: string }[]>`select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema')`
  for (const { name } of tables) places.set(`table ${name}`, (await sql.unsafe<{ line: string }[]>(`select t::text as line from ${name} t`)).map(row => row.line).join('\n'))
  await sql`checkpoint`
  await sql.end()
  t.ok(tables.length > 15)
  const redis = new Redis(house.stack.redisUrl)
  const names = await redis.keys('*')
  for (const name of names) places.set(`redis ${name}`, `${name} ${await valueOf(redis, name)}`)
  const known = canaries[2] ?? '?'
  await redis.set('canary', `canary ${'x'.repeat(100)} ${known}`)
  t.ok((await valueOf(redis, 'canary')).includes(known), 'the search can read what Redis keeps')
  await redis.save()
  const dump = () => readFileSync(join(house.stack.redis?.dir ?? '', 'dump.rdb'), 'latin1')
  t.equal(search(new Map([['dump', dump()]]), [known]).length, 1, 'and what it writes')
  await redis.del('canary')
  await redis.save()
  redis.disconnect()
  t.ok(names.length > 5)
  places.set('redis dump', dump())
  const logs = files(join(house.dir, 'logs'))
  for (const service of ['gateway-1', 'gateway-2', 'key-service', 'postgres', 'redis']) t.ok((logs.get(join(house.dir, 'logs', `${service}.log`)) ?? '').length > 0, `${service} has logged`)
  for (const found of [logs, files(join(house.dir, 'postgres'))]) for (const [path, text] of found) places.set(path, text)

  t.ok(canaries.length >= 1000)
  t.strictSame(search(places, canaries), [], `${canaries.length} secrets in ${places.size} places`)
})

/** A key whose first answer is kept for whoever asks again. */
async function createOnce (keyService: string): Promise<string[]> {
  const ask = async () => await fetch(`${keyService}/v1/projects/${house.projectId}/keys`, {
    method: 'POST',
    headers: { authorization: `Bearer ${house.stack.tokens.operator}`, 'content-type': 'application/json', 'idempotency-key': 'canary-request-key' },
    body: JSON.stringify({ name: 'asked twice' })
  })
  const [first, second] = [await ask(), await ask()]
  const { secret } = await first.json() as { secret: string }
  if ((await second.json() as { secret: string }).secret !== secret) throw new Error('the second answer is not the first one')
  return [secret]
}

/** A person's life: every password that is given, right or wrong, the link's token and the session's cookie. */
async function signIn (keyService: string): Promise<string[]> {
  const passwords = Array.from({ length: 3 }, () => `a pass phrase ${randomUUID()}`)
  const [password = '', wrong = '', next = ''] = passwords
  const headers = { 'content-type': 'application/json', 'sec-fetch-site': 'same-origin' }
  const post = async (path: string, body: object, cookie = '') => await fetch(keyService + path, { method: 'POST', headers: { ...headers, cookie }, body: JSON.stringify(body) })
  const { invitation } = await house.admin.send<{ invitation: { url: string } }>('POST', `/v1/projects/${house.projectId}/members`, { email: 'canary@example.org', name: 'Canary', role: 'owner' })
  const token = new URL(invitation.url).hash.slice('#token='.length)
  const first = await post('/v1/set-password', { token, password })
  if (first.status !== 200) throw new Error(`the link does not work: ${first.status} ${await first.text()}`)
  await post('/v1/sign-in', { email: 'canary@example.org', password: wrong })
  const signedIn = await post('/v1/sign-in', { email: 'canary@example.org', password })
  const cookie = signedIn.headers.getSetCookie()[0]?.split(';')[0] ?? ''
  const made = await post('/v1/service-tokens', { name: 'canary', permissions: ['keys:read'], projectId: house.projectId }, cookie)
  const { token: serviceToken } = await made.json() as { token: string }
  if ((await post('/v1/me/password', { currentPassword: password, newPassword: next }, cookie)).status >= 300) throw new Error('the password was not changed')
  return [...passwords, token, cookie.slice(cookie.indexOf('=') + 1), serviceToken]
}
