import { readFileSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import postgres from 'postgres'
import t from 'tap'
import { basic, call, openHouse } from './house.ts'

// Redis compresses long texts in its dump: then a secret would lie there and not be found.
const house = await openHouse({ logLevel: 'trace', redis: { args: ['--rdbcompression', 'no'] } })
t.teardown(house.stop)

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
  }
  t.ok(spellings(secret).includes(Buffer.from(secret).toString('hex')))
})

t.test('P4: after a day\'s work at LOG_LEVEL=trace no secret stands in PostgreSQL, Redis or any log', async t => {
  const issued: string[] = [house.stack.tokens.operator, house.stack.tokens.gateway]
  for (let i = 0; i < 10; i++) {
    const key = await house.createKey({ name: `canary ${i}`, description: 'text' })
    issued.push(key.secret)
    const header = ['x-api-key', key.secret]
    for (const gateway of [0, 1]) {
      const { url } = house.stack.gateways[gateway] as { url: string }
      await house.use(gateway, key.secret)
      await call(url, { path: house.example, headers: header })
      await call(url, { path: `${house.example}?api_key=${key.secret}` })
      await call(url, { path: house.example, headers: ['authorization', `Bearer ${key.secret}`] })
      await call(url, { path: house.example, headers: [...basic(house.projectId, key.secret), ...header] })
      await call(url, { path: '/app/api/v1/files/1', headers: header })
      await call(url, { method: 'POST', path: `${house.example}/submissions`, headers: [...header, 'content-type', 'application/json', 'content-length', '0'] })
    }
    const rotated = await house.change(key, 'POST', '/rotate', { gracePeriodSeconds: 60 })
    issued.push(rotated.secret)
    await house.use(0, key.secret)
    await house.use(1, rotated.secret)
    await house.admin.call('POST', '/v1/verifications', { digest: rotated.secret })
    await house.admin.call('PATCH', `/v1/projects/${house.projectId}/keys/${key.id}`, { secret: rotated.secret })
    await house.admin.call('GET', `/v1/projects/${house.projectId}/keys?search=${rotated.secret}`)
    if (i % 3 === 0) await house.change(key, 'POST', '/revoke', { reason: 'test' })
    if (i % 3 === 1) await house.change(key, 'DELETE', '')
  }

  const places = new Map<string, string>()
  const sql = postgres(house.stack.postgres.url, { max: 1 })
  const tables = await sql<{ name: string }[]>`select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema')`
  for (const { name } of tables) places.set(`table ${name}`, (await sql.unsafe<{ line: string }[]>(`select t::text as line from ${name} t`)).map(row => row.line).join('\n'))
  await sql`checkpoint`
  await sql.end()
  t.ok(tables.length > 5)
  const redis = new Redis(house.stack.redisUrl)
  const keys = await redis.keys('*')
  for (const key of keys) places.set(`redis ${key}`, `${key} ${await valueOf(redis, key)}`)
  const canary = `canary ${'x'.repeat(100)} ${issued[2] ?? ''}`
  await redis.set('canary', canary)
  t.ok((await valueOf(redis, 'canary')).includes(issued[2] ?? '?'), 'the search can read what Redis keeps')
  await redis.save()
  t.ok(readFileSync(join(house.stack.redis?.dir ?? '', 'dump.rdb'), 'latin1').includes(issued[2] ?? '?'), 'and what it writes')
  await redis.del('canary')
  await redis.save()
  redis.disconnect()
  t.ok(keys.length > 5)
  places.set('redis dump', readFileSync(join(house.stack.redis?.dir ?? '', 'dump.rdb'), 'latin1'))
  const logs = files(join(house.dir, 'logs'))
  for (const service of ['gateway-1', 'gateway-2', 'key-service', 'postgres', 'redis']) t.ok((logs.get(join(house.dir, 'logs', `${service}.log`)) ?? '').length > 0, `${service} has logged`)
  for (const found of [logs, files(join(house.dir, 'postgres'))]) for (const [path, text] of found) places.set(path, text)

  t.equal(issued.length, 22)
  const hits: string[] = []
  for (const secret of issued) {
    const wanted = spellings(secret)
    for (const [place, text] of places) for (const spelling of wanted) if (text.includes(spelling)) hits.push(`${place}: ${secret.slice(0, 6)}...`)
  }
  t.strictSame(hits, [], `${issued.length} secrets in ${places.size} places`)
})
