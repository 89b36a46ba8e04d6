import t from 'tap'
import { freePort, startRedis, startTcpProxy } from '../src/index.ts'
import { openHouse, until, type Answer, type Key } from './house.ts'

// The links that fail lie behind proxies of their own: gateway 1 -> key-service.
const [redisPort, keyServicePort] = [await freePort(), await freePort()]
let redis = await startRedis({ port: redisPort })
const toKeyService = await startTcpProxy(keyServicePort)
const house = await openHouse({
  redisUrl: redis.url,
  ports: { keyService: keyServicePort },
  env: {
    keyService: { KEYGATE_RELAY_INTERVAL_MS: '100' },
    gateway: index => ({ KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_REDIS_TIMEOUT_MS: '500', ...(index === 0 ? { KEYGATE_KEY_SERVICE_URL: `http://127.0.0.1:${toKeyService.port}` } : { KEYGATE_MAX_UNCONFIRMED: '0' }) })
  }
})
t.teardown(async () => {
  await house.stop()
  await toKeyService.stop()
  await redis.stop()
})
const gateways = [0, 1]
const onBoth = async (secret: string): Promise<number[]> => await Promise.all(gateways.map(async gateway => (await house.use(gateway, secret)).status))
const degraded = async (gateway: number): Promise<number> => await house.metric(gateway, 'gateway_ratelimit_degraded')
const warmKey = async (settings?: object): Promise<Key> => {
  const key = await house.createKey(settings)
  await onBoth(key.secret)
  return key
}
/** Asks until a gateway says so: what is promised here is a bound in time, which no event tells. */
const untilStatus = async (gateway: number, secret: string, status: number): Promise<Answer> => await until(`${status} from gateway ${gateway}`, async () => await house.use(gateway, secret), answer => answer.status === status)
const backToShared = async (): Promise<void> => {
  const key = await until('key-service reaches Redis', async () => await house.createKey(), ({ effective }) => effective === 'everywhere')
  for (const gateway of gateways) await until('a shared decision', async () => await house.use(gateway, key.secret), ({ headers }) => headers['ratelimit'] !== undefined)
}
const policy = (limit: number): object => ({ policies: [{ name: 'p', limit, windowSeconds: 3600 }] })

t.test('P2: one script call that times out straight after a revoke: refused, though the record was confirmed a moment before', async t => {
  for (let round = 0; round < 5; round++) {
    const [revoked, enabled] = [await warmKey(), await warmKey({ active: false })]
    t.equal((await house.change(revoked, 'POST', '/revoke', {})).effective, 'everywhere')
    t.equal((await house.change(enabled, 'POST', '/enable')).effective, 'everywhere')
    process.kill(redis.pid, 'SIGSTOP')
    const answers = await Promise.all([revoked, enabled].map(async key => await onBoth(key.secret)))
    process.kill(redis.pid, 'SIGCONT')
    t.strictSame(answers, [[401, 401], [200, 200]])
    await backToShared()
  }
})

t.test('P5 R21: Redis killed: requests still flow, each replica admits at most its share, and nothing claims a shared count', async t => {
  for (const gateway of gateways) await until('it knows of the other', async () => await house.metric(gateway, 'gateway_replicas'), seen => seen === 2)
  const key = await warmKey(policy(20)) // one admission by each, known to both the store and the replica
  await redis.kill()
  const answers: Answer[][] = [[], []]
  for (let i = 0; i < 60; i++) (answers[i % 2] as Answer[]).push(await house.use(i % 2, key.secret))
  for (const gateway of gateways) {
    const statuses = (answers[gateway] as Answer[]).map(({ status }) => status)
    t.strictSame([...new Set(statuses)].sort(), [200, 429], 'no 5xx')
    t.equal(statuses.filter(status => status === 200).length, 9, 'a share of 10, and one was used before: no fresh quota')
    t.equal(await degraded(gateway), 1)
  }
  for (const { status, headers, body } of answers.flat()) {
    t.notOk('ratelimit' in headers || 'ratelimit-policy' in headers)
    if (status === 429) {
      t.match(headers['retry-after'], /^\d+$/)
      t.match(JSON.parse(body), { code: 'limited', 'violated-policies': ['p'] })
    }
  }
  t.ok(await house.metric(0, 'gateway_ratelimit_decisions_total', 'store="local"') >= 30)
  const ready = await house.use(0, key.secret).then(async () => await fetch(`${house.stack.gateways[0]?.url ?? ''}/readyz?verbose`))
  t.equal(ready.status, 200)
  t.match(await ready.text(), '[~]redis degraded')

  redis = await startRedis({ port: redisPort })
  await backToShared()
  for (const gateway of gateways) t.equal(await degraded(gateway), 0)
})

t.test('Redis away, key-service there: a change is heard of by the poll, an unknown secret is asked, a new key works', async t => {
  const [revoked, enabled] = [await warmKey(), await warmKey({ active: false })]
  await redis.kill()
  await onBoth(revoked.secret)
  t.equal((await house.change(revoked, 'POST', '/revoke', {})).effective, 'pending')
  t.equal((await house.change(enabled, 'POST', '/enable')).effective, 'pending')
  for (const gateway of gateways) {
    await untilStatus(gateway, revoked.secret, 401)
    await untilStatus(gateway, enabled.secret, 200)
    t.equal((await house.use(gateway, revoked.secret)).status, 401, 'and stays so')
  }
  const created = await house.createKey()
  t.strictSame(await onBoth(created.secret), [200, 200])
  const rotated = await house.change(created, 'POST', '/rotate', {})
  for (const gateway of gateways) await untilStatus(gateway, created.secret, 401)
  t.strictSame(await onBoth(rotated.secret), [200, 200])
  redis = await startRedis({ port: redisPort })
  await backToShared()
})

t.test('Redis away: a look-up that a proxy held across a revoke and its poll admits nobody', async t => {
  await redis.kill()
  const witness = await house.createKey()
  await untilStatus(0, witness.secret, 200) // the feed of changes runs
  for (let round = 0; round < 5; round++) {
    const key = await house.createKey()
    const told = await warmKey() // tells when the poll has been read
    const held = toKeyService.once('held')
    toKeyService.pause('down', chunk => chunk.includes(key.id) && chunk.includes('secretId')) // the look-up's answer; polls go on
    const early = house.use(0, key.secret)
    await held // read as active, and on its way back
    await house.change(key, 'POST', '/revoke', {})
    await house.change(told, 'POST', '/revoke', {})
    await untilStatus(0, told.secret, 401)
    const late = house.use(0, key.secret)
    toKeyService.resume()
    t.strictSame([(await early).status, (await late).status], [401, 401])
  }
  redis = await startRedis({ port: redisPort })
  await backToShared()
})

t.test('B2-07 B4-10: Redis there, one gateway cut off from key-service: known keys go on, a stale or unknown one is 503, never 401; the other notices nothing', async t => {
  const [known, stale] = [await warmKey(policy(100)), await warmKey()]
  const fresh = await house.createKey()
  const lookUps = async (result: string): Promise<number> => await house.metric(1, 'gateway_verifications_total', `result="${result}"`)
  const before = { found: await lookUps('found'), failed: await lookUps('failed') }
  toKeyService.pause('both')
  t.equal((await house.change(stale, 'POST', '/disable')).effective, 'everywhere')
  const left = []
  for (let i = 0; i < 20; i++) {
    const { status, headers } = await house.use(i % 2, known.secret)
    t.equal(status, 200)
    left.push(Number(/remaining=(\d+)/.exec(String(headers['ratelimit']))?.[1]))
  }
  t.strictSame(left, Array.from({ length: 20 }, (_, i) => 97 - i), 'both count in Redis, in one count')
  for (const key of [stale, fresh]) {
    const { status, headers } = await house.use(0, key.secret)
    t.match([status, headers['retry-after']], [503, '1'])
  }
  t.match(JSON.parse((await house.use(1, stale.secret)).body), { status: 401, code: 'key_disabled' }, 'the other one asks, and knows')
  t.equal((await house.use(1, fresh.secret)).status, 200)
  t.equal((await house.change(stale, 'POST', '/enable')).effective, 'everywhere')
  t.equal((await house.use(1, stale.secret)).status, 200, 'also of the next change')
  t.equal((await house.use(0, stale.secret)).status, 503)
  t.strictSame({ found: await lookUps('found') - before.found, failed: await lookUps('failed') - before.failed }, { found: 3, failed: 0 }, 'none of its look-ups failed')
  toKeyService.resume()
  await untilStatus(0, stale.secret, 200)
  await untilStatus(0, fresh.secret, 200)
})

t.test('B2-07: both away: what was confirmed goes on for a while, or not at all where the operator says so; unknown is 503', async t => {
  const known = await warmKey()
  const fresh = await house.createKey()
  await redis.kill()
  await house.stack.keyService.kill()
  t.equal((await house.use(0, known.secret)).status, 200, 'confirmed in the last 300 s')
  t.equal((await house.use(0, fresh.secret)).status, 503)
  await until('it is not confirmed any more, and the metrics say so', async () => {
    t.equal((await house.use(0, known.secret)).status, 200)
    return await house.metric(0, 'gateway_unconfirmed_total')
  }, unconfirmed => unconfirmed >= 1)
  await untilStatus(1, known.secret, 503)
  t.equal(await house.metric(1, 'gateway_unconfirmed_total'), 0, 'KEYGATE_MAX_UNCONFIRMED=0 refuses')
  redis = await startRedis({ port: redisPort })
  house.stack.keyService = await house.stack.startKeyService()
  await backToShared()
  t.strictSame(await onBoth(known.secret), [200, 200], 'and back, without help')
})

t.test('whenStoreIsDown: open is not counted, closed is 503', async t => {
  const mode = async (whenStoreIsDown: string): Promise<Key> => await warmKey({ policies: [{ name: 'p', limit: 2, windowSeconds: 3600, whenStoreIsDown }] })
  const [open, closed] = [await mode('open'), await mode('closed')]
  await redis.kill()
  for (let i = 0; i < 5; i++) t.equal((await house.use(0, open.secret)).status, 200)
  const { status, headers } = await house.use(0, closed.secret)
  t.match([status, headers['retry-after']], [503, '1'])
  redis = await startRedis({ port: redisPort })
  await backToShared()
})

t.test('without Redis a key still ends in time', async t => {
  const key = await warmKey({ expiresAt: new Date(Date.now() + 2500).toISOString() })
  await redis.kill()
  t.equal((await house.use(0, key.secret)).status, 200)
  const ended = await untilStatus(0, key.secret, 401)
  t.match(JSON.parse(ended.body), { code: 'key_expired' })
  redis = await startRedis({ port: redisPort })
  await backToShared()
})

t.test('refusals are counted by a replica alone too', async t => {
  await redis.kill()
  const statuses = await Promise.all(Array.from({ length: 20 }, async () => (await house.use(0, 'wrong')).status))
  t.strictSame([...new Set(statuses)], [401])
  redis = await startRedis({ port: redisPort })
  await backToShared()
})
