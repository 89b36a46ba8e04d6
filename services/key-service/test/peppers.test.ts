import { randomUUID } from 'node:crypto'
import { digestSecret } from '@keygate/api-key'
import postgres from 'postgres'
import { test } from 'tap'
import { configFor, redisIsReady, startApp, startHouse } from './helper.ts'

const [first, second] = [{ id: '1', value: 'a first pepper of 32 characters or more' }, { id: '2', value: 'a second pepper of 32 characters or more' }]

test('GX-22 replicas with different peppers over one database', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const start = async (peppers: { current: typeof first, previous: Array<typeof first> }) => {
    const app = await startApp(t, configFor(t, url, house.redis.url, { peppers, importForms: ['uuid'] }))
    await redisIsReady(app)
    return app
  }
  const sql = postgres(url, { max: 1 })
  t.teardown(async () => { await sql.end({ timeout: 1 }) })
  const old = await start({ current: first, previous: [] })
  const projectId = (await old.call('POST', '/projects', { name: 'P' })).body.id as string
  const keys = `/projects/${projectId}/keys`
  const next = await start({ current: second, previous: [first] })
  const verify = async ({ call }: typeof old, secret: string) => await call('POST', '/verifications', { digest: digestSecret(secret) })

  await t.test('what one replica stored under a pepper that the other lacks is "not now" there, never unknown', async t => {
    t.match(await verify(old, randomUUID()), { status: 200, body: { outcome: 'unknown' } }, 'nothing stands under a pepper that it lacks')
    const { secret } = (await next.call('POST', keys, { name: 'new pepper' })).body
    t.match(await verify(next, secret), { status: 200, body: { outcome: 'found' } })
    t.match(await verify(old, secret), { status: 503, body: { code: 'pepper_missing' }, headers: { 'retry-after': '1' } })
    t.match(await old.call('POST', keys, { name: 'import', import: { secret: randomUUID() } }), { status: 503, body: { code: 'pepper_missing' } }, 'nor can it say that a secret is used nowhere')
    t.strictSame([...await sql`SELECT name FROM keys WHERE name = 'import'`], [], 'and nothing half-done remains')
  })

  await t.test('K5: of imports of one secret at once, by replicas that are at different peppers, one is made', async t => {
    const both = await start({ current: first, previous: [second] })
    for (let round = 0; round < 10; round++) {
      const secret = randomUUID()
      const answers = await Promise.all(Array.from({ length: 4 }, async (_, i) => await (i % 2 === 0 ? both : next).call('POST', keys, { name: secret, import: { secret } })))
      t.strictSame(answers.map(({ status }) => status).sort(), [201, 409, 409, 409])
      t.equal((await sql`SELECT id FROM keys WHERE name = ${secret}`).length, 1)
      for (const app of [both, next]) t.match(await verify(app, secret), { status: 200, body: { outcome: 'found' } })
    }
  })
})
