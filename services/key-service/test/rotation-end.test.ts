import { digestSecret } from '@keygate/api-key'
import { test } from 'tap'
import { configFor, redisIsReady, startApp, startHouse } from './helper.ts'
import { tablesOf } from './people-helper.ts'

const hour = 3_600_000
const isoOf = (ms: number) => new Date(ms).toISOString()

test('a grace ends with the key', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const app = await startApp(t, config)
  await redisIsReady(app)
  const sql = tablesOf(t, config.databaseUrl)
  const { call } = app
  const projectId = (await call('POST', '/projects', { name: 'P' })).body.id as string

  async function newKey (expiresAt: string | null) {
    const { body } = await call('POST', `/projects/${projectId}/keys`, { name: 'K', expiresAt })
    const at = `/projects/${projectId}/keys/${body.id}`
    return {
      at,
      rotate: async (gracePeriodSeconds: number) => (await call('POST', `${at}/rotate`, { gracePeriodSeconds })).body,
      extend: async (gracePeriodSeconds: number) => (await call('PATCH', `${at}/rotate`, { gracePeriodSeconds })).body,
      edit: async (settings: object) => (await call('PATCH', at, settings)).body,
      /** The end as the row of the old secret has it. */
      stored: async () => (await sql`SELECT not_after FROM secrets WHERE key_id = ${body.id} AND state = 'retiring'`)[0]?.['not_after'].toISOString() as string | undefined,
      /** The end as answers tell it. */
      shown: async () => (await call('GET', at)).body.rotation?.until as string | undefined,
      /** What a gateway judges the old secret by. */
      record: async () => (await call('POST', '/verifications', { digest: digestSecret(body.secret) })).body.record as { secretNotAfterMs: number, notAfterMs: number | null },
      /** As a row could stand there that another release has written. */
      put: async (notAfter: string) => await sql`UPDATE secrets SET not_after = ${notAfter} WHERE key_id = ${body.id} AND state = 'retiring'`
    }
  }
  const now = Date.now()
  const [soon, later, latest] = [isoOf(now + hour), isoOf(now + 24 * hour), isoOf(now + 48 * hour)]
  const day = 24 * 3600

  await t.test('POST rotate beyond the expiry: the row ends with the key, and so it is told', async t => {
    const key = await newKey(soon)
    t.equal((await key.rotate(day)).rotation.until, soon, 'answered')
    t.equal(await key.stored(), soon, 'stored')
    t.match(await key.record(), { secretNotAfterMs: Date.parse(soon), notAfterMs: Date.parse(soon) }, 'looked up')
  })

  await t.test('PATCH rotate beyond the expiry: the row ends with the key, and so it is told', async t => {
    const key = await newKey(soon)
    await key.rotate(60)
    t.equal((await key.extend(day)).rotation.until, soon, 'answered')
    t.equal(await key.stored(), soon, 'stored')
    t.equal((await key.record()).secretNotAfterMs, Date.parse(soon), 'looked up')
  })

  await t.test('a grace that ends before the key is left as it was asked for', async t => {
    for (const expiresAt of [later, null]) {
      const key = await newKey(expiresAt)
      const { rotation } = await key.rotate(1800)
      t.equal(Date.parse(rotation.until) - Date.parse(rotation.startedAt), 1_800_000)
      t.equal(await key.stored(), rotation.until)
      await key.edit({ expiresAt: latest })
      t.equal(await key.stored(), rotation.until, 'with a later expiry too')
      await key.edit({ expiresAt: null })
      t.equal(await key.stored(), rotation.until, 'and with none')
      await key.edit({ expiresAt: soon })
      t.equal(await key.stored(), rotation.until, 'and with an earlier one that is later than its end')
    }
  })

  await t.test('a grace is exactly as long as it was asked for, wherever in a millisecond it begins', async t => {
    const key = await newKey(null)
    const lengths = new Set<number>()
    for (let i = 0; i < 100; i++) {
      const { rotation } = await key.rotate(1800)
      lengths.add(Date.parse(rotation.until) - Date.parse(rotation.startedAt))
    }
    t.same([...lengths], [1_800_000])
  })

  await t.test('an expiry that comes earlier during a rotation cuts the row, and so it is told', async t => {
    for (const expiresAt of [latest, null]) {
      const key = await newKey(expiresAt)
      await key.rotate(day)
      t.equal((await key.edit({ expiresAt: soon })).rotation.until, soon, 'answered')
      t.equal(await key.stored(), soon, 'stored')
      t.match(await key.record(), { secretNotAfterMs: Date.parse(soon), notAfterMs: Date.parse(soon) }, 'looked up')
    }
  })

  await t.test('what was cut stays cut when the expiry goes on, and can be asked for anew', async t => {
    for (const [how, cut] of Object.entries({
      'by POST rotate': async () => { const key = await newKey(soon); await key.rotate(2 * day); return key },
      'by PATCH rotate': async () => { const key = await newKey(soon); await key.rotate(60); await key.extend(2 * day); return key },
      'by the expiry': async () => { const key = await newKey(null); await key.rotate(2 * day); await key.edit({ expiresAt: soon }); return key }
    })) {
      const key = await cut()
      for (const expiresAt of [latest, null]) {
        t.equal((await key.edit({ expiresAt })).rotation.until, soon, `${how}: answered with ${expiresAt}`)
        t.equal(await key.stored(), soon, `${how}: stored with ${expiresAt}`)
        t.match(await key.record(), { secretNotAfterMs: Date.parse(soon), notAfterMs: expiresAt === null ? null : Date.parse(expiresAt) }, `${how}: looked up with ${expiresAt}`)
      }
      const extended = (await key.extend(day)).rotation.until
      t.ok(Date.parse(extended) > Date.parse(soon), how)
      t.equal(await key.stored(), extended, how)
    }
  })

  await t.test('an old secret that ended with its key does not work again when the key does', async t => {
    const key = await newKey(null)
    await key.rotate(day)
    await key.edit({ expiresAt: soon })
    // The hour passes: the key has expired, and with it the grace.
    const past = isoOf(now - hour)
    await sql`UPDATE keys SET expires_at = ${past} WHERE expires_at = ${soon} AND id = ${key.at.split('/').at(-1) ?? ''}`
    await key.put(past)
    t.match((await call('GET', key.at)).body, { status: 'expired', rotation: null })
    t.match(await key.edit({ expiresAt: latest }), { status: 'active', rotation: null })
    t.equal((await key.record()).secretNotAfterMs, Date.parse(past), 'a gateway refuses it')
    t.match(await call('PATCH', `${key.at}/rotate`, { gracePeriodSeconds: day }), { status: 409, body: { code: 'no_rotation' } })
  })

  await t.test('a row that outlives the key is told with the key\'s end, and a gateway gets both', async t => {
    const key = await newKey(soon)
    await key.rotate(60)
    await key.put(later)
    t.equal(await key.stored(), later)
    t.equal(await key.shown(), soon)
    t.match(await key.record(), { secretNotAfterMs: Date.parse(later), notAfterMs: Date.parse(soon) }, 'which refuses at the earlier one')
  })

  await t.test('a change of anything else does not touch the end', async t => {
    const key = await newKey(soon)
    await key.rotate(60)
    await key.put(later)
    await key.edit({ name: 'Other' })
    t.equal(await key.stored(), later)
  })
})
