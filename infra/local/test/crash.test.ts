import postgres from 'postgres'
import t from 'tap'
import { freePort, startRedis, startTcpProxy } from '../src/index.ts'
import { openHouse, until, type Key } from './house.ts'

// The link between key-service and Redis lies behind a proxy that can swallow a version on its way.
const redis = await startRedis({ port: await freePort() })
const toRedis = await startTcpProxy(redis.port)
const house = await openHouse({
  redisUrl: redis.url,
  // Many starts: the document is as small as it can be.
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
    // A key-service that has just started on a busy machine is slow, not away.
    gateway: { KEYGATE_REFUSALS_LIMIT: '100000', KEYGATE_VERIFY_TIMEOUT_MS: '20000' }
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

/** Starts are slow; `npm run crash -w infra/local` has more of them. */
const kills = Number(process.env['KEYGATE_CRASHES'] ?? 5)
const changesPerKill = 20

t.test(`P6: key-service killed ${kills} times between the commit of ${changesPerKill} changes and Redis: the next process delivers, nothing is lost`, async t => {
  const sql = postgres(house.stack.postgres.url, { max: 1 })
  t.teardown(async () => { await sql.end({ timeout: 1 }) })
  const counts = { delivered: 0, lost: 0, refused: 0, others: [] as number[] }
  for (let round = 0; round < kills; round++) {
    const keys = await Promise.all(Array.from({ length: changesPerKill }, warmKey))
    const ids = keys.map(({ id }) => id)
    const swallowed = toRedis.swallow('up', chunk => ids.some(id => chunk.includes(id)))
    const changes = keys.map(async key => await house.change(key, 'POST', '/disable').then(() => 'answered', () => 'never answered'))
    await swallowed // no version reaches Redis from here on
    await until('all committed', async () => await sql`SELECT id FROM keys WHERE id IN ${sql(ids)} AND status = 'disabled'`, ({ length }) => length === changesPerKill)
    await house.stack.keyService.kill()
    for (const change of changes) if (await change === 'answered') counts.lost++
    toRedis.resume()
    house.stack.keyService = await house.stack.startKeyService()
    for (const key of keys) {
      const { status } = await everywhere(key) as Key & { status: string }
      if (status === 'disabled') counts.delivered++
      else counts.lost++
      for (const answer of await onBoth(key.secret)) {
        if (answer === 401) counts.refused++
        else counts.others.push(answer)
      }
    }
  }
  t.comment(JSON.stringify(counts))
  t.strictSame(counts, { delivered: kills * changesPerKill, lost: 0, refused: 2 * kills * changesPerKill, others: [] })
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
