import { test } from 'tap'
import { configFor, redisIsReady, startApp, startHouse, tokens } from './helper.ts'
import { sendBatch, unknownKey } from './log-rows.ts'
import { tablesOf } from './people-helper.ts'
import { batchOf, callerAt, usageOf } from './usage-batches.ts'

const hourMs = 3_600_000
const dayMs = 24 * hourMs

interface Use { address: string, client?: string, secretId: string, at: number, count?: number }

test('who calls with a key', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const app = await startApp(t, config)
  await redisIsReady(app)
  const { call } = app
  const sql = tablesOf(t, config.databaseUrl)
  const projectId = (await call('POST', '/projects', { name: 'P' })).body.id as string
  const now = Date.now()

  /** A key in a rotation, and its secrets. */
  async function newRotation () {
    const { id: keyId } = (await call('POST', `/projects/${projectId}/keys`, { name: 'K' })).body
    const at = `/projects/${projectId}/keys/${keyId}`
    const secret = async (state: string): Promise<string> => (await sql`SELECT id FROM secrets WHERE key_id = ${keyId} AND state = ${state}`)[0]?.['id']
    const first = await secret('current')
    await call('POST', `${at}/rotate`, { gracePeriodSeconds: 3600 })
    return { keyId: keyId as string, at, old: first, current: await secret('current') }
  }
  const see = async (keyId: string, uses: Use[]): Promise<void> => {
    for (const { address, client = 'curl/8.5.0', secretId, at, count = 1 } of uses) {
      await sql`
        INSERT INTO usage_callers (project_id, key_id, address, client, secret_id, hour, count, last_seen)
        VALUES (${projectId}, ${keyId}, ${address}, ${client}, ${secretId}, date_trunc('hour', ${new Date(at).toISOString()}::timestamptz), ${count}, ${new Date(at).toISOString()})`
    }
  }

  await t.test('while a rotation runs it is told who has moved and who still uses the old secret', async t => {
    const { keyId, at, old, current } = await newRotation()
    t.strictSame((await call('GET', `${at}/callers`)).body, { data: [], rotation: { moved: 0, stillOld: 0 } })
    await see(keyId, [
      { address: 'moved', secretId: old, at: now - 5000 }, { address: 'moved', secretId: current, at: now - 4000, count: 7 },
      { address: 'moved back', secretId: current, at: now - 3000 }, { address: 'moved back', secretId: old, at: now - 2500 },
      { address: 'old', secretId: old, at: now - 2000 },
      { address: 'new', secretId: current, at: now - 1000 },
      { address: 'both at once', secretId: current, at: now - 500 }, { address: 'both at once', secretId: old, at: now - 500 },
      { address: 'gone', secretId: 'sec_of_before', at: now - 400 },
      { address: 'old', client: 'other', secretId: current, at: now - 300 }
    ])
    const { status, body } = await call('GET', `${at}/callers`)
    t.equal(status, 200)
    t.strictSame(body.data.map(({ address, client, secretState }: Record<string, string>) => `${address} ${client} ${secretState}`), [
      'old other current', 'gone curl/8.5.0 ended', 'both at once curl/8.5.0 retiring', 'new curl/8.5.0 current', 'old curl/8.5.0 retiring', 'moved back curl/8.5.0 retiring', 'moved curl/8.5.0 current'
    ])
    t.strictSame(body.rotation, { moved: 3, stillOld: 3 })
    t.strictSame(body.data.at(-1), { address: 'moved', client: 'curl/8.5.0', secretId: current, secretState: 'current', lastSeen: new Date(now - 4000).toISOString(), requests24h: 8 })

    await see(keyId, [{ address: 'old', secretId: current, at: now + 1 }])
    t.match((await call('GET', `${at}/callers`)).body.rotation, { moved: 4, stillOld: 2 })

    await sql`UPDATE secrets SET not_after = now() - interval '1 second' WHERE id = ${old}`
    t.match((await call('GET', `${at}/callers`)).body, { rotation: null }, 'its grace is over')
    t.equal((await call('GET', `${at}/callers`)).body.data.filter(({ secretState }: Record<string, string>) => secretState === 'ended').length, 3)
    await call('POST', `${at}/rotate`, { gracePeriodSeconds: 0 })
    t.strictSame(new Set((await call('GET', `${at}/callers`)).body.data.map(({ secretState }: Record<string, string>) => secretState)), new Set(['ended']))
  })

  await t.test('requests of 24 hours, callers of 7 days, whole hours', async t => {
    const { keyId, at, current } = await newRotation()
    // The next hour may begin while this runs: then the bounds move by one hour, and nothing here lies on them.
    await see(keyId, [
      { address: 'a', secretId: current, at: now, count: 100 }, { address: 'a', secretId: current, at: now - 22 * hourMs, count: 10 }, { address: 'a', secretId: current, at: now - 25 * hourMs, count: 1 },
      { address: 'week', secretId: current, at: now - 7 * dayMs + 2 * hourMs, count: 1 }, { address: 'older', secretId: current, at: now - 7 * dayMs - 2 * hourMs, count: 1 }
    ])
    t.strictSame((await call('GET', `${at}/callers`)).body.data.map(({ address, requests24h }: Record<string, unknown>) => [address, requests24h]), [['a', 110], ['week', 0]])
  })

  await t.test('at most fifty, the newest first, as the consumer keeps them', async t => {
    const { keyId, at, current } = await newRotation()
    for (const from of [0, 30]) {
      await sendBatch(app, batchOf([usageOf(projectId, keyId, { callers: Array.from({ length: 30 }, (_, i) => callerAt(now - (60 - from - i) * 1000, current, `192.0.2.${from + i}`)) })]))
    }
    const { data } = (await call('GET', `${at}/callers`)).body
    t.strictSame(data.map(({ address }: Record<string, string>) => address), Array.from({ length: 50 }, (_, i) => `192.0.2.${59 - i}`))
    await see(keyId, Array.from({ length: 30 }, (_, i) => ({ address: `more ${i}`, secretId: current, at: now + i })))
    t.equal((await call('GET', `${at}/callers`)).body.data.length, 50, 'also between two visits of the consumer')
  })

  await t.test('a key of somebody else has none, and a deleted one nobody new', async t => {
    const { keyId, at, old } = await newRotation()
    await see(keyId, [{ address: 'a', secretId: old, at: now }])
    const other = (await call('POST', '/projects', { name: 'Q' })).body.id as string
    t.match(await call('GET', `/projects/${other}/keys/${keyId}/callers`), { status: 404, body: { code: 'key_not_found' } })
    t.match(await call('GET', `/projects/${projectId}/keys/${unknownKey}/callers`), { status: 404, body: { code: 'key_not_found' } })
    t.match(await call('GET', `${at}/callers`, undefined, tokens.reader), { status: 403 })
    t.match(await call('GET', `${at}/callers?limit=5`), { status: 400 })
    await call('DELETE', at)
    t.match((await call('GET', `${at}/callers`)).body, { data: [{ address: 'a', secretState: 'ended' }], rotation: null })
  })
})
