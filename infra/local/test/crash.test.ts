import t from 'tap'
import { freePort, startRedis, startTcpProxy } from '../src/index.ts'
import { openHouse, until, type Key } from './house.ts'

// The link between key-service and Redis lies behind a proxy that can swallow a version on its way.
const redis = await startRedis({ port: await freePort() })
const toRedis = await startTcpProxy(redis.port)
const house = await openHouse({
  redisUrl: redis.url,
  // A hundred starts: the document is as small as it can be.
  apis: `
apis:
  - name: forms
    prefix: /app/api/v1
    upstream: http://127.0.0.1:4000/app/api/v1
    openapi: ./test/one-operation.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
`,
  env: {
    keyService: { REDIS_URL: `redis://127.0.0.1:${toRedis.port}`, KEYGATE_RELAY_INTERVAL_MS: '100' },
    gateway: { KEYGATE_REFUSALS_LIMIT: '100000' }
  }
})
t.teardown(async () => {
  await house.stop()
  await toRedis.stop()
  await redis.stop()
})

const onBoth = async (secret: string): Promise<number[]> => await Promise.all([0, 1].map(async gateway => (await house.use(gateway, secret)).status))
const everywhere = async (key: Key): Promise<Key> => await until('effective everywhere', async () => await house.change(key, 'GET', ''), ({ effective }) => effective === 'everywhere')

async function warmKey (): Promise<Key> {
  const key = await house.createKey()
  await onBoth(key.secret)
  return key
}

t.test('P6: key-service killed between commit and Redis, 100 times: the next process delivers, nothing is lost', async t => {
  const counts = { delivered: 0, stale: 0, lost: 0 }
  for (let round = 0; round < 100; round++) {
    const key = await house.createKey()
    await onBoth(key.secret)
    const swallowed = toRedis.swallow('up', chunk => chunk.includes(key.id))
    const change = house.change(key, 'POST', '/disable').then(() => 'answered', () => 'never answered')
    await swallowed // committed; the version never reaches Redis
    await house.stack.keyService.kill()
    if (await change === 'answered') counts.lost++
    toRedis.resume()
    house.stack.keyService = await house.stack.startKeyService()
    const { status } = await everywhere(key) as Key & { status: string }
    if (status !== 'disabled') counts.lost++
    counts.delivered++
    counts.stale += (await onBoth(key.secret)).filter(answer => answer !== 401).length
  }
  t.comment(JSON.stringify(counts))
  t.strictSame(counts, { delivered: 100, stale: 0, lost: 0 })
})

t.test('two relays at once deliver everything, and nothing wrongly', async t => {
  const second = await house.stack.startKeyService({ KEYGATE_PORT: '0' })
  t.teardown(second.stop)
  const keys = await Promise.all(Array.from({ length: 20 }, async () => await warmKey()))
  toRedis.pause('up')
  const answers = await Promise.all(keys.map(async (key, i) => await house.change(key, 'POST', i % 2 === 0 ? '/disable' : '/rotate', i % 2 === 0 ? undefined : {})))
  t.strictSame([...new Set(answers.map(({ effective }) => effective))], ['pending'])
  toRedis.resume()
  for (const key of keys) await everywhere(key)
  const old = await Promise.all(keys.map(async key => await onBoth(key.secret)))
  t.strictSame(old.flat().filter(status => status !== 401), [], 'every old state is refused')
  const rotated = answers.filter(answer => answer.secret !== undefined)
  t.equal(rotated.length, 10)
  for (const { secret } of rotated) t.strictSame(await onBoth(secret), [200, 200])
})
