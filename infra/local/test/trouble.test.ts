import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import t from 'tap'
import { freePort, startRedis, startTcpProxy } from '../src/index.ts'
import { openHouse, until, type Key } from './house.ts'

// The links that fail lie behind proxies: key-service -> Redis, gateway 1 -> key-service, and gateway 3 -> Redis. The third is in one test alone.
const [redisPort, keyServicePort] = [await freePort(), await freePort()]
const dump = await startRedis({ port: redisPort })
const toRedis = await startTcpProxy(redisPort)
const toKeyService = await startTcpProxy(keyServicePort)
const thirdToRedis = await startTcpProxy(redisPort)
const house = await openHouse({
  redisUrl: dump.url,
  gateways: 3,
  ports: { keyService: keyServicePort },
  env: {
    keyService: { REDIS_URL: `redis://127.0.0.1:${toRedis.port}`, KEYGATE_RELAY_INTERVAL_MS: '100' },
    gateway: index => ({ KEYGATE_REFUSALS_LIMIT: '100000', ...(index === 0 && { KEYGATE_KEY_SERVICE_URL: `http://127.0.0.1:${toKeyService.port}` }), ...(index === 2 && { REDIS_URL: `redis://127.0.0.1:${thirdToRedis.port}` }) })
  }
})
let redis = dump
t.teardown(async () => {
  await house.stop()
  await Promise.all([toRedis.stop(), toKeyService.stop(), thirdToRedis.stop()])
  await redis.stop()
})
const gateways = [0, 1]

const onBoth = async (secret: string): Promise<number[]> => await Promise.all(gateways.map(async gateway => (await house.use(gateway, secret)).status))
const read = async (key: Key): Promise<Key> => await house.change(key, 'GET', '')
const everywhere = async (key: Key): Promise<Key> => await until('effective everywhere', async () => await read(key), ({ effective }) => effective === 'everywhere')
/** The first answers after Redis is reached again: until then a replica counts alone. */
const firstAnswers = async (secret: string): Promise<number[]> => await Promise.all(gateways.map(async gateway => {
  await until('Redis is reached', async () => await house.metric(gateway, 'gateway_ratelimit_degraded'), degraded => degraded === 0)
  return (await house.use(gateway, secret)).status
}))

async function warmKey (settings?: object): Promise<Key> {
  const key = await house.createKey(settings)
  await onBoth(key.secret)
  return key
}

t.test('P2 through FLUSHALL: before, after and in the middle of a change, under load', async t => {
  const client = new Redis(redis.url)
  t.teardown(() => { client.disconnect() })
  let stale = 0
  let sent = 0
  for (let round = 0; round < 20; round++) {
    const enabling = round % 2 === 1
    const key = await warmKey({ active: !enabling })
    const old = await warmKey()
    const run = { stop: false }
    const load = Promise.all(gateways.map(async gateway => {
      while (!run.stop) {
        if ((await house.use(gateway, old.secret)).status !== 200) stale++
        sent++
      }
    }))
    if (round % 3 === 0) await client.flushall()
    const changing = house.change(key, 'POST', enabling ? '/enable' : '/disable')
    if (round % 3 === 1) await client.flushall()
    const { effective } = await changing
    if (round % 3 === 2) await client.flushall()
    t.equal(effective, 'everywhere')
    for (const status of [...await onBoth(key.secret), ...await onBoth(key.secret)]) if (status !== (enabling ? 200 : 401)) stale++
    run.stop = true
    await load
  }
  t.equal(stale, 0, `20 changes, ${sent} other requests`)
})

t.test('P2 through a Redis that is restarted empty, changes made before and meanwhile', async t => {
  const [revoked, enabled, meanwhile] = [await warmKey(), await warmKey({ active: false }), await warmKey()]
  t.equal((await house.change(revoked, 'POST', '/revoke', {})).effective, 'everywhere')
  t.equal((await house.change(enabled, 'POST', '/enable')).effective, 'everywhere')
  await redis.kill()
  t.equal((await house.change(meanwhile, 'POST', '/disable')).effective, 'pending', 'committed, and said honestly')
  await until('refused without Redis too', async () => await house.use(0, revoked.secret), ({ status }) => status === 401)
  redis = await startRedis({ port: redisPort })
  t.strictSame(await firstAnswers(revoked.secret), [401, 401], 'what was revoked stays revoked')
  t.strictSame(await firstAnswers(enabled.secret), [200, 200])
  await everywhere(meanwhile)
  t.strictSame(await firstAnswers(meanwhile.secret), [401, 401], 'the relay delivered the change')
})

t.test('P2 through a Redis that is restarted from an older dump', async t => {
  const [revoked, enabled, idle] = [await warmKey(), await warmKey({ active: false }), await warmKey()]
  const client = new Redis(redis.url)
  await client.save()
  client.disconnect()
  const old = join(house.dir, 'old.rdb')
  copyFileSync(join(redis.dir, 'dump.rdb'), old)
  await house.change(revoked, 'POST', '/revoke', {})
  await house.change(enabled, 'POST', '/enable')
  await house.change(idle, 'POST', '/disable') // no gateway hears of this one before the restart: both still hold the old record
  await onBoth(revoked.secret)
  await redis.kill()
  redis = await startRedis({ port: redisPort, dump: old })
  t.strictSame(await firstAnswers(idle.secret), [401, 401], 'the old memory agrees with the old records, and both are asked again')
  t.strictSame(await firstAnswers(revoked.secret), [401, 401])
  t.strictSame(await firstAnswers(enabled.secret), [200, 200])
})

t.test('an older dump of PostgreSQL is told apart: version_ahead is 503, not a revived key', async t => {
  const key = await warmKey()
  const client = new Redis(redis.url)
  t.teardown(() => { client.disconnect() })
  await client.hincrby(`kg:{${house.projectId}}:versions`, key.id, 5)
  for (const gateway of gateways) t.match(JSON.parse((await house.use(gateway, key.secret)).body), { status: 503, code: 'version_ahead' })
  t.ok(await house.metric(0, 'gateway_version_ahead_total') >= 1)
})

t.test('a look-up that left before a change and arrives after it admits nobody', async t => {
  let stale = 0
  let trouble = 0
  const client = new Redis(redis.url)
  t.teardown(() => { client.disconnect() })
  for (let round = 0; round < 20; round++) {
    const key = await house.createKey()
    if (round % 2 === 0) await onBoth(key.secret) // else the gateway meets the key for the first time
    await client.flushall() // every record is stale now, and must be asked again
    toKeyService.pause('down')
    const held = toKeyService.once('held')
    const early = Array.from({ length: 10 }, async () => await house.use(0, key.secret))
    await held // PostgreSQL has been read; the answer is on its way
    const { effective } = await house.change(key, 'POST', '/revoke', {})
    t.equal(effective, 'everywhere')
    const late = Array.from({ length: 10 }, async () => await house.use(0, key.secret))
    toKeyService.resume()
    for (const { status } of await Promise.all(late)) {
      if (status === 200) stale++
      else if (status !== 401) trouble++
    }
    await Promise.all(early)
  }
  t.equal(stale, 0, 'sent after the answer: none admitted')
  t.equal(trouble, 0, 'and none was left without an answer')
})

t.test('B2-07: key-service killed: known keys go on and are counted, what was revoked stays so, an unknown one is 503 and never 401', async t => {
  const [known, revoked, unheard] = [await warmKey(), await warmKey(), await warmKey()]
  const fresh = await house.createKey()
  await house.change(revoked, 'POST', '/revoke', {})
  t.strictSame(await onBoth(revoked.secret), [401, 401])
  await house.change(unheard, 'POST', '/revoke', {}) // both gateways hold the old record still
  await house.stack.keyService.kill()
  for (const gateway of gateways) {
    const answers = await Promise.all(Array.from({ length: 20 }, async () => await house.use(gateway, known.secret)))
    for (const { status, headers } of answers) t.match([status, headers['ratelimit']], [200, /^limit=/])
    t.ok([401, 503].includes((await house.use(gateway, revoked.secret)).status), 'revoked before')
    const { status, headers } = await house.use(gateway, fresh.secret)
    t.match([status, headers['retry-after']], [503, '1'])
    t.equal((await house.use(gateway, unheard.secret)).status, 503, 'Redis tells that it changed, and nobody tells how')
  }
  house.stack.keyService = await house.stack.startKeyService()
  for (const gateway of gateways) {
    await until('the new key', async () => await house.use(gateway, fresh.secret), ({ status }) => status === 200)
    t.equal((await house.use(gateway, unheard.secret)).status, 401)
  }
})

t.test('B2-08: key-service frozen: known keys go on, an unknown one is 503 within the deadline', async t => {
  const known = await warmKey()
  const fresh = await house.createKey()
  process.kill(house.stack.keyService.pid, 'SIGSTOP')
  const asked = gateways.map(async gateway => await house.use(gateway, fresh.secret))
  const answered = { unknown: false }
  const unknown = Promise.all(asked).finally(() => { answered.unknown = true })
  let meanwhile = 0
  while (!answered.unknown) {
    t.strictSame(await onBoth(known.secret), [200, 200])
    meanwhile++
  }
  for (const { status, headers } of await unknown) t.match([status, headers['retry-after']], [503, '1'], 'while it is frozen still')
  process.kill(house.stack.keyService.pid, 'SIGCONT')
  t.ok(meanwhile > 1, 'known keys did not wait for it')
  for (const gateway of gateways) await until('the new key', async () => await house.use(gateway, fresh.secret), ({ status }) => status === 200)
})

t.test('B4-09: of three gateways one is cut off from Redis: the others share the limit exactly, and it admits its third at most', async t => {
  const all = [0, 1, 2]
  for (const gateway of all) await until('it knows of the others', async () => await house.metric(gateway, 'gateway_replicas'), seen => seen === 3)
  const key = await house.createKey({ policies: [{ name: 'p', limit: 30, windowSeconds: 3600 }] })
  for (const gateway of all) t.equal((await house.use(gateway, key.secret)).status, 200)
  await thirdToRedis.stop()
  const statuses: Record<number, number[]> = { 0: [], 1: [], 2: [] }
  for (let round = 0; round < 40; round++) {
    for (const [gateway, { status, headers }] of (await Promise.all(all.map(async gateway => await house.use(gateway, key.secret)))).entries()) {
      statuses[gateway]?.push(status)
      if (gateway === 2) t.notOk('ratelimit' in headers, 'it claims no shared count')
    }
  }
  const admitted = (gateway: number): number => statuses[gateway]?.filter(status => status === 200).length ?? 0
  t.strictSame([...new Set(Object.values(statuses).flat())].sort(), [200, 429])
  t.equal(admitted(0) + admitted(1), 27, 'and three were used before')
  t.ok(admitted(2) >= 1 && admitted(2) <= 10, `${admitted(2)} of the third`)
})
