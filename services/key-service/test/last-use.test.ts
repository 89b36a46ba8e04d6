import { digestSecret, generateSecret } from '@keygate/api-key'
import { test } from 'tap'
import { createLastUse } from '../src/keys/last-use.ts'
import { configFor, redisIsReady, startApp, startHouse } from './helper.ts'
import { tablesOf } from './people-helper.ts'
import { callerAt, sendUsage, sumAt, usageOf } from './usage-batches.ts'

const before = '2026-01-02T03:04:05.000Z'
const minuteMs = 60_000

test('what moves lastUsedAt, and what does not', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const sql = tablesOf(t, config.databaseUrl)

  interface Used { key: string, current?: string | null, retiring?: string | null }

  const app = await startApp(t, config)
  await redisIsReady(app)
  const { call } = app
  const projectId = (await call('POST', '/projects', { name: 'P' })).body.id as string
  const at = Date.now()
  const secretOf = async (id: string, state: string) => (await sql`SELECT id FROM secrets WHERE key_id = ${id} AND state = ${state}`)[0]?.['id'] as string

  async function newKey (body: object = {}) {
    const made = (await call('POST', `/projects/${projectId}/keys`, { name: 'K', ...body })).body
    const id = made.id as string
    return { id, secret: made.secret as string, secretId: await secretOf(id, 'current'), at: `/projects/${projectId}/keys/${id}` }
  }
  async function rotated () {
    const key = await newKey()
    await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 3600 })
    return { ...key, oldId: await secretOf(key.id, 'retiring'), secretId: await secretOf(key.id, 'current') }
  }
  type Made = Awaited<ReturnType<typeof newKey>>
  const admitted = async ({ id }: Made, secretId: string) => { await sendUsage(app, [usageOf(projectId, id, { secrets: [{ secretId, lastUsedMs: at }], sums: [sumAt(at, { admitted: 1 })] })]) }

  const moved = new Date(at).toISOString()
  const bystander = await newKey()
  /** What is done to a key, what comes of it, and what its times are then. */
  const cases: Record<string, { make: () => Promise<Made>, use: (key: Made) => Promise<void>, uses: Used }> = {}
  const add = <K extends Made>(name: string, make: () => Promise<K>, use: (key: K) => Promise<void>, uses: Used) => { cases[name] = { make, use: use as (key: Made) => Promise<void>, uses } }
  const nothing: Used = { key: before, current: before }
  const both: Used = { key: moved, current: moved }

  add('admitted', newKey, async key => { await admitted(key, key.secretId) }, both)
  add('admitted with the new secret of a rotation', rotated, async key => { await admitted(key, key.secretId) }, { ...both, retiring: before })
  add('admitted with the old secret within its grace', rotated, async key => { await admitted(key, key.oldId) }, { key: moved, current: before, retiring: moved })
  add('admitted, then disabled, and told of after that', newKey, async key => { await call('POST', `${key.at}/disable`); await admitted(key, key.secretId) }, both)
  add('admitted, then revoked, and told of after that', newKey, async key => { await call('POST', `${key.at}/revoke`); await admitted(key, key.secretId) }, both)

  add('never used', newKey, async () => {}, nothing)
  add('limited and refused', newKey, async ({ id, secretId }) => {
    await sendUsage(app, [usageOf(projectId, id, { sums: [sumAt(at, { limited: 3, refused: 2 })], callers: [callerAt(at, secretId, '192.0.2.1')] })])
  }, nothing)
  add('looked up', newKey, async key => { t.match(await call('POST', '/verifications', { digest: digestSecret(key.secret), projectId }), { status: 200, body: { outcome: 'found' } }) }, nothing)
  add('with a secret that is not there any more', newKey, async key => { await admitted(key, generateSecret('sec')) }, { ...nothing, key: moved })
  add('with the secret of another key', newKey, async key => { await admitted(key, bystander.secretId) }, { ...nothing, key: moved })
  add('of no key', newKey, async key => { await admitted({ ...key, id: `${key.id}x` }, key.secretId) }, nothing)
  add('with a secret that has ended since', newKey, async key => { await call('POST', `${key.at}/rotate`); await admitted(key, key.secretId) }, { key: moved, current: null })
  add('deleted before it was told', newKey, async key => { await call('DELETE', key.at); await admitted(key, key.secretId) }, { key: before })
  add('everything else', newKey, async key => {
    for (const [method, path, body] of [['GET', key.at], ['GET', `${key.at}/limit`], ['PATCH', key.at, { name: 'L' }], ['POST', `${key.at}/reveal`, { reason: 'to see it' }], ['DELETE', `${key.at}/limit`]] as const) t.ok((await call(method, path, body)).status < 300, method)
  }, nothing)

  const made: Array<[string, Made, Used]> = []
  for (const [name, { make, uses }] of Object.entries(cases)) made.push([name, await make(), uses])
  await sql`UPDATE keys SET last_used_at = ${before}`
  await sql`UPDATE secrets SET last_used_at = ${before}`
  for (const [name, key] of made) await cases[name]?.use(key)
  await app.app.close() // which writes what is still noted
  t.strictSame((await sql`SELECT last_used_at FROM secrets WHERE id = ${bystander.secretId}`)[0]?.['last_used_at'], new Date(before), 'nobody else\'s')

  for (const [name, { id }, uses] of made) {
    const [key] = await sql`SELECT last_used_at FROM keys WHERE id = ${id}`
    const secrets = await sql`SELECT state, last_used_at FROM secrets WHERE key_id = ${id}`
    const timeOf = (row: Record<string, unknown> | undefined) => (row?.['last_used_at'] as Date | null)?.toISOString() ?? null
    t.strictSame({ key: timeOf(key), ...Object.fromEntries(secrets.map(secret => [secret['state'], timeOf(secret)])) }, uses, name)
  }
})

test('lastUsedAt goes on in steps of a minute, and never back', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const sql = tablesOf(t, config.databaseUrl)
  const app = await startApp(t, config)
  await redisIsReady(app)
  const { call } = app
  const projectId = (await call('POST', '/projects', { name: 'P' })).body.id as string
  const { id: keyId } = (await call('POST', `/projects/${projectId}/keys`, { name: 'K' })).body as { id: string }
  await call('POST', `/projects/${projectId}/keys/${keyId}/rotate`, { gracePeriodSeconds: 3600 })
  const secretId = async (state: string) => (await sql`SELECT id FROM secrets WHERE key_id = ${keyId} AND state = ${state}`)[0]?.['id'] as string
  const [current, retiring] = [await secretId('current'), await secretId('retiring')]
  const used = { projectId, keyId, secretId: current }
  // Two replicas, as it were: neither knows what the other has noted.
  const parts = { database: app.parts.database, log: app.app.log, intervalMs: 3_600_000 }
  const [one, other] = [createLastUse(parts), createLastUse(parts)]
  const at = Date.now() - 3_600_000
  const times = async () => {
    const [row] = await sql`SELECT (SELECT last_used_at FROM keys WHERE id = ${keyId}) AS key, (SELECT last_used_at FROM secrets WHERE id = ${current}) AS current, (SELECT last_used_at FROM secrets WHERE id = ${retiring}) AS retiring`
    const after = (time: Date | null | undefined) => time === null || time === undefined ? null : time.getTime() - at
    return [after(row?.['key']), after(row?.['current']), after(row?.['retiring'])]
  }
  const version = async () => (await call('GET', `/projects/${projectId}/keys/${keyId}`)).body.version as number
  const versionBefore = await version()

  const steps: Array<[string, Array<[typeof one, string, number]>, Array<number | null>]> = [
    ['the first use', [[one, current, 0]], [0, 0, null]],
    ['less than a minute later', [[one, current, minuteMs - 1]], [0, 0, null]],
    ['the other secret: its own first, and none of the key', [[one, retiring, minuteMs - 1]], [0, 0, minuteMs - 1]],
    ['a minute later', [[one, current, minuteMs]], [minuteMs, minuteMs, minuteMs - 1]],
    ['earlier, told later by somebody else', [[other, current, -7_200_000], [other, retiring, 1]], [minuteMs, minuteMs, minuteMs - 1]],
    ['the latest of what was noted in any order', [[one, current, 5 * minuteMs], [one, current, 3 * minuteMs], [one, retiring, 9 * minuteMs]], [9 * minuteMs, 5 * minuteMs, 9 * minuteMs]]
  ]
  for (const [name, noted, expected] of steps) {
    for (const [lastUse, secretId, ms] of noted) lastUse.note({ projectId, keyId, secretId }, at + ms)
    await one.flush()
    await other.flush()
    t.strictSame(await times(), expected, name)
  }
  await t.test('two replicas at once: one row, one of the two times, and neither waits', async t => {
    one.note(used, at + 20 * minuteMs)
    other.note(used, at + 21 * minuteMs)
    await Promise.all([one.flush(), other.flush()])
    t.ok([20, 21].includes((await times())[0] as number / minuteMs))
  })
  await t.test('a clock that ran ahead moves it a minute beyond now at most', async t => {
    one.note(used, Date.parse('2999-01-01T00:00:00Z'))
    await one.flush()
    const [row] = await sql`SELECT last_used_at > now() AND last_used_at <= now() + interval '1 minute' AS is_near FROM keys WHERE id = ${keyId}`
    t.equal(row?.['is_near'], true)
  })
  t.equal(await version(), versionBefore, 'no change: the version stays')

  await t.test('of a revoked key the first use behind the revocation is written at once, others by the minute', async t => {
    await call('POST', `/projects/${projectId}/keys/${keyId}/revoke`)
    const revokedAt = Date.now() - 600_000
    await sql`UPDATE keys SET effective_at = ${new Date(revokedAt)}, last_used_at = ${new Date(revokedAt - 500)} WHERE id = ${keyId}`
    const note = async (ms: number) => {
      one.note(used, revokedAt + ms)
      await one.flush()
      return (await sql`SELECT last_used_at FROM keys WHERE id = ${keyId}`)[0]?.['last_used_at'].getTime() - revokedAt
    }
    t.strictSame([await note(-100), await note(0), await note(1), await note(2), await note(minuteMs)], [-500, -500, 1, 1, 1])
    t.equal(await note(minuteMs + 1), minuteMs + 1)
  })
  await one.close()
  await other.close()
})
