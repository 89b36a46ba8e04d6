import { digestSecret, generateSecret } from '@keygate/api-key'
import { test } from 'tap'
import { boundProject, configFor, redisIsReady, startApp, startHouse, tokens, type Answer } from './helper.ts'
import { tablesOf } from './people-helper.ts'

/**
 * key-service learns of a call only by the gateway's look-up of its secret. So what the gateway judges by itself, with the record in
 * its hand, cannot be told apart here: a call from a wrong host, for a scope that is not there, or beyond a limit, counts as a use.
 */
test('what moves lastUsedAt, and what does not', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const sql = tablesOf(t, config.databaseUrl)
  const before = '2026-01-02T03:04:05.000Z'

  interface Used { key: string, current: string | null, retiring?: string | null }

  const app = await startApp(t, config)
  await redisIsReady(app)
  const { call } = app
  const projectId = (await call('POST', '/projects', { name: 'P' })).body.id as string
  const other = (await call('POST', '/projects', { name: 'Other' })).body.id as string
  const look = async (secret: string, body: object = {}, token?: string) => await call('POST', '/verifications', { digest: digestSecret(secret), ...body }, token)
  const unknown = (answer: Answer) => { t.match(answer, { status: 200, body: { outcome: 'unknown' } }) }
  const found = (answer: Answer) => { t.match(answer, { status: 200, body: { outcome: 'found' } }) }

  async function newKey (body: object = {}) {
    const made = (await call('POST', `/projects/${projectId}/keys`, { name: 'K', ...body })).body
    return { id: made.id as string, secret: made.secret as string, at: `/projects/${projectId}/keys/${made.id}` }
  }
  async function rotated () {
    const key = await newKey()
    const { body } = await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 3600 })
    return { ...key, old: key.secret, secret: body.secret as string }
  }
  type Made = Awaited<ReturnType<typeof newKey>>
  const moved = 'moved'
  /** What is done to a key, how it is asked for, and which of its times have moved then. */
  const cases: Record<string, { make: () => Promise<Made>, ask: (key: Made) => Promise<void>, uses: Used }> = {}
  const add = <K extends Made>(name: string, make: () => Promise<K>, ask: (key: K) => Promise<void>, uses: Used) => { cases[name] = { make, ask: ask as (key: Made) => Promise<void>, uses } }
  const nothing: Used = { key: before, current: before }
  const both: Used = { key: moved, current: moved }

  add('active', newKey, async key => { found(await look(key.secret)) }, both)
  add('active, with its project', newKey, async key => { found(await look(key.secret, { projectId })) }, both)
  add('enabled again', newKey, async key => { await call('POST', `${key.at}/disable`); await call('POST', `${key.at}/enable`); found(await look(key.secret)) }, both)
  add('the new secret of a rotation', rotated, async key => { found(await look(key.secret)) }, { ...both, retiring: before })
  add('the old secret within its grace', rotated, async key => { found(await look(key.old)) }, { key: moved, current: before, retiring: moved })
  add('hosts, which the gateway judges', async () => await newKey({ allowedHosts: ['192.0.2.1'] }), async key => { found(await look(key.secret)) }, both)
  add('no scope at all, which the gateway judges', async () => await newKey({ scopes: [] }), async key => { found(await look(key.secret)) }, both)

  add('never asked for', newKey, async () => {}, nothing)
  add('disabled', newKey, async key => { await call('POST', `${key.at}/disable`); found(await look(key.secret)) }, nothing)
  add('disabled from the start', async () => await newKey({ active: false }), async key => { found(await look(key.secret)) }, nothing)
  add('revoked', newKey, async key => { await call('POST', `${key.at}/revoke`); found(await look(key.secret)) }, nothing)
  add('expired', newKey, async key => { await sql`UPDATE keys SET expires_at = now() - interval '1 second' WHERE id = ${key.id}`; found(await look(key.secret)) }, nothing)
  add('the old secret after its grace', rotated, async key => { await sql`UPDATE secrets SET not_after = now() - interval '1 second' WHERE key_id = ${key.id} AND state = 'retiring'`; found(await look(key.old)) }, { ...nothing, retiring: before })
  add('the old secret of an expired key', rotated, async key => { await sql`UPDATE keys SET expires_at = now() - interval '1 second' WHERE id = ${key.id}`; found(await look(key.old)) }, { ...nothing, retiring: before })
  add('the old secret after a finished rotation', rotated, async key => { await call('POST', `${key.at}/rotate/finish`); unknown(await look(key.old)) }, nothing)
  add('in another project', newKey, async key => { unknown(await look(key.secret, { projectId: other })) }, nothing)
  add('by a gateway of another project', newKey, async key => { unknown(await look(key.secret, {}, tokens.bound)); unknown(await look(key.secret, { projectId: boundProject }, tokens.bound)) }, nothing)
  add('by somebody who may not look up', newKey, async key => { t.match(await look(key.secret, {}, tokens.reader), { status: 403 }); t.match(await look(key.secret, {}, generateSecret('kgs')), { status: 401 }) }, nothing)
  add('with its secret as text, and with a part of it', newKey, async key => {
    t.match(await call('POST', '/verifications', { digest: key.secret.slice(0, 43) }), { status: 422 })
    unknown(await look(key.secret.slice(0, -1)))
    unknown(await look(`${key.secret}x`))
  }, nothing)
  add('everything but a look-up', newKey, async key => {
    for (const [method, path, body] of [['GET', key.at], ['GET', `${key.at}/limit`], ['PATCH', key.at, { name: 'L' }], ['POST', `${key.at}/reveal`, { reason: 'to see it' }], ['DELETE', `${key.at}/limit`]] as const) t.ok((await call(method, path, body)).status < 300, method)
  }, nothing)

  const made: Array<[string, Made, Used]> = []
  for (const [name, { make, uses }] of Object.entries(cases)) made.push([name, await make(), uses])
  const deleted = await newKey()
  await sql`UPDATE keys SET last_used_at = ${before}`
  await sql`UPDATE secrets SET last_used_at = ${before}`
  for (const [name, key] of made) await cases[name]?.ask(key)
  await call('DELETE', deleted.at)
  unknown(await look(deleted.secret))
  unknown(await look(generateSecret('kg')))
  await app.app.close() // which writes what is still noted

  const timeOf = (time: Date | null | undefined) => time?.toISOString() === before ? before : time instanceof Date && time > new Date(before) ? moved : String(time)
  for (const [name, { id }, uses] of made) {
    const [key] = await sql`SELECT last_used_at FROM keys WHERE id = ${id}`
    const secrets = await sql`SELECT state, last_used_at FROM secrets WHERE key_id = ${id}`
    t.strictSame({ key: timeOf(key?.['last_used_at']), ...Object.fromEntries(secrets.map(secret => [secret['state'], timeOf(secret['last_used_at'])])) }, uses, name)
  }
  t.equal(timeOf((await sql`SELECT last_used_at FROM keys WHERE id = ${deleted.id}`)[0]?.['last_used_at']), before, 'deleted')
})
