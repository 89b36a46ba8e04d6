import type { UsageSum } from '@keygate/contracts'
import { test } from 'tap'
import { attentions, type Attention } from '../src/keys/schemas.ts'
import type { KeyRow } from '../src/keys/queries.ts'
import { readSinceRevoked, sinceMinuteOf } from '../src/keys/since-revoked.ts'
import { configFor, redisIsReady, startApp, startHouse, type Call } from './helper.ts'
import { tablesOf } from './people-helper.ts'
import { callerAt, storeUsage, sumAt, usageOf } from './usage-batches.ts'

const [minuteMs, hourMs, dayMs] = [60_000, 3_600_000, 86_400_000]

interface TestKey { id: string, projectId: string, at: string }

async function newProject (call: Call): Promise<string> { return (await call('POST', '/projects', { name: 'P' })).body.id as string }

async function newKey (call: Call, projectId: string, body: object = {}): Promise<TestKey> {
  const { id } = (await call('POST', `/projects/${projectId}/keys`, { name: 'K', ...body })).body as { id: string }
  return { id, projectId, at: `/projects/${projectId}/keys/${id}` }
}

test('what keys show of their use', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const sql = tablesOf(t, config.databaseUrl)
  const app = await startApp(t, config)
  await redisIsReady(app)
  const { call } = app

  await t.test('requests24h: 24 hours of UTC, the last one runs; whatever became of the requests', async t => {
    const hour = async () => (await sql`SELECT date_trunc('hour', now(), 'UTC') AS hour`)[0]?.['hour'].getTime() as number
    const none = Array<number>(24).fill(0)

    /** False: the hour ended in the middle. */
    async function attempt (): Promise<boolean> {
      const [projectId, elsewhere] = [await newProject(call), await newProject(call)]
      const [busy, quiet, foreign] = [await newKey(call, projectId), await newKey(call, projectId), await newKey(call, elsewhere)]
      const now = await hour()
      await storeUsage(app, [
        usageOf(projectId, busy.id, {
          sums: [
            sumAt(now - 23 * hourMs - 1, { admitted: 2000 }), // of the hour before those 24
            sumAt(now - 23 * hourMs, { admitted: 1, limited: 20, refused: 300, upstreamErrors: 1, admittedLocally: 1 }),
            sumAt(now - 23 * hourMs + 59 * minuteMs, { admitted: 4000, operation: 'GET /exports' }),
            sumAt(now - 5 * hourMs, { limited: 7 }),
            sumAt(now, { admitted: 9 }),
            sumAt(now, { refused: 50_000_000_000, scope: 'exports' }),
            sumAt(now + hourMs, { admitted: 1 }) // of a Redis whose clock is ahead
          ]
        }),
        usageOf(elsewhere, foreign.id, { sums: [sumAt(now, { admitted: 5 })] }),
        usageOf(elsewhere, busy.id, { sums: [sumAt(now, { admitted: 5_000_000 })] }) // of another project
      ])
      const list = (await call('GET', `/projects/${projectId}/keys`)).body.data as Array<{ id: string, requests24h: number[] }>
      const [single, other] = [(await call('GET', busy.at)).body, (await call('GET', foreign.at)).body]
      if (await hour() !== now) return false
      const expected = [4321, ...none.slice(1, 18), 7, ...none.slice(19, 23), 50_000_000_010]
      t.strictSame(Object.fromEntries(list.map(key => [key.id, key.requests24h])), { [busy.id]: expected, [quiet.id]: none })
      t.strictSame(single.requests24h, expected)
      t.strictSame(other.requests24h, [...none.slice(1), 5])
      return true
    }
    for (let isDone = false; !isDone;) isDone = await attempt()

    const projectId = await newProject(call)
    const quiet = await newKey(call, projectId)
    for (const [method, path, body] of [['POST', `/projects/${projectId}/keys`, { name: 'L' }], ['PATCH', quiet.at, { name: 'L' }], ['POST', `${quiet.at}/rotate`], ['POST', `${quiet.at}/disable`]] as const) {
      const answer = await call(method, path, body)
      t.notHas(answer.body, { requests24h: Array }, `${method} ${path}: what changes a key counts nothing`)
      t.ok(answer.status < 300)
    }
  })

  await t.test('attention: four filters and their counts', async t => {
    const [projectId, elsewhere] = [await newProject(call), await newProject(call)]
    const names: Record<string, string> = {}
    const expected: Record<Attention, string[]> = { 'old-secret-in-use': [], expiring: [], 'at-limit': [], unused: [] }

    const make = async (name: string, found: Attention[], body: object = {}) => {
      const key = await newKey(call, projectId, { name, scopes: ['submissions'], ...body })
      names[key.id] = name
      for (const attention of found) expected[attention].push(name)
      return key
    }
    const rotated = async (name: string, found: Attention[], oldUsed: string | null, body: object = {}) => {
      const key = await make(name, found, body)
      await call('POST', `${key.at}/rotate`, { gracePeriodSeconds: 86_400 })
      await sql`UPDATE secrets SET last_used_at = now() - ${oldUsed}::interval WHERE key_id = ${key.id} AND state = 'retiring'`
      return key
    }
    await rotated('old in use', ['old-secret-in-use'], '23 hours 59 minutes')
    await rotated('old not in use', [], '24 hours 1 minute')
    await rotated('old never used', [], null)
    const finished = await rotated('finished', [], '1 minute')
    await call('POST', `${finished.at}/rotate/finish`)
    const over = await rotated('grace is over', [], '1 minute')
    await sql`UPDATE secrets SET not_after = now() - interval '1 second' WHERE key_id = ${over.id} AND state = 'retiring'`
    const disabled = await rotated('disabled in a rotation', [], '1 minute')
    await call('POST', `${disabled.at}/disable`)
    const revoked = await rotated('revoked in a rotation', [], '1 minute')
    await call('POST', `${revoked.at}/revoke`)
    const expiredInRotation = await rotated('expired in a rotation', [], '1 minute')
    await sql`UPDATE keys SET expires_at = now() - interval '1 second' WHERE id = ${expiredInRotation.id}`

    const expires = async (name: string, found: Attention[], when: string) => {
      const key = await make(name, found)
      await sql`UPDATE keys SET expires_at = now() + ${when}::interval WHERE id = ${key.id}`
      return key
    }
    await expires('expires in an hour', ['expiring'], '1 hour')
    await expires('expires within seven days', ['expiring'], '6 days 23 hours 59 minutes')
    await expires('expires later', [], '7 days 1 minute')
    await expires('has expired', [], '-1 second')
    await call('POST', `${(await expires('expires, and is disabled', [], '1 hour')).at}/disable`)

    const limited = async (name: string, found: Attention[], agoMs: number, counts: Partial<UsageSum>) => {
      const key = await make(name, found)
      await storeUsage(app, [usageOf(projectId, key.id, { sums: [sumAt(Date.now() - agoMs, counts)] })])
      return key
    }
    await limited('limited now', ['at-limit'], 0, { limited: 1 })
    await limited('limited in two operations', ['at-limit'], 59 * minuteMs, { admitted: 5, limited: 3 })
    await limited('limited before', [], 62 * minuteMs, { limited: 1000 })
    await limited('admitted and refused', [], 0, { admitted: 100, refused: 100 })
    await call('POST', `${(await limited('limited, then revoked', [], 0, { limited: 1 })).at}/revoke`)

    const aged = async (name: string, found: Attention[], created: string, used: string | null) => {
      const key = await make(name, found)
      await sql`UPDATE keys SET created_at = now() - ${created}::interval, last_used_at = now() - ${used}::interval WHERE id = ${key.id}`
      return key
    }
    await aged('never used', ['unused'], '90 days 1 minute', null)
    await aged('long unused', ['unused'], '400 days', '90 days 1 minute')
    await aged('young, never used', [], '89 days 23 hours', null)
    await aged('used within 90 days', [], '400 days', '89 days 23 hours')
    await call('POST', `${(await aged('unused and disabled', [], '400 days', null)).at}/disable`)
    await call('DELETE', (await aged('unused and deleted', [], '400 days', null)).at)

    const all = await rotated('all four', [...attentions], '1 hour')
    await storeUsage(app, [usageOf(projectId, all.id, { sums: [sumAt(Date.now(), { limited: 1 })] })])
    await sql`UPDATE keys SET created_at = now() - interval '91 days', last_used_at = NULL, expires_at = now() + interval '2 days' WHERE id = ${all.id}`
    const foreign = await newKey(call, elsewhere, { name: 'foreign' })
    await storeUsage(app, [usageOf(elsewhere, foreign.id, { sums: [sumAt(Date.now(), { limited: 1 })] })])

    const list = async (query: string, limit = 100) => {
      const found: string[] = []
      for (let cursor: string | null = ''; cursor !== null;) {
        const { status, body, text } = await call('GET', `/projects/${projectId}/keys?limit=${limit}&${query}${cursor === '' ? '' : `&cursor=${cursor}`}`)
        if (status !== 200) throw new Error(text)
        found.push(...body.data.map(({ id }: { id: string }) => names[id]))
        cursor = body.nextCursor
      }
      return found
    }
    for (const attention of attentions) {
      t.same((await list(`attention=${attention}`)).sort(), expected[attention].sort(), attention)
      for (const sort of ['name', '-lastUsedAt', 'expiresAt']) t.same((await list(`attention=${attention}&sort=${sort}`, 1)).sort(), expected[attention], `${attention}, page by page, by ${sort}`)
      t.same(await list(`attention=${attention}&search=all+four&status=active&scope=submissions`), ['all four'], 'with the other filters')
      t.same(await list(`attention=${attention}&status=disabled`), [])
    }
    t.strictSame((await call('GET', `/projects/${projectId}/keys/attention`)).body, { data: attentions.map(attention => ({ attention, keys: expected[attention].length })) })
    t.strictSame((await call('GET', `/projects/${elsewhere}/keys/attention`)).body.data.map(({ keys }: { keys: number }) => keys), [0, 0, 1, 0])
    t.match(await call('GET', `/projects/${projectId}/keys?attention=old`), { status: 422, body: { code: 'invalid_request', errors: [{ pointer: '/attention' }] } })
    t.match(await call('GET', '/projects/0b1d2c3e-4f50-4a61-8b72-9c83ad94be99/keys/attention'), { status: 404, body: { code: 'project_not_found' } })
    await call('DELETE', `/projects/${elsewhere}`)
    t.match(await call('GET', `/projects/${elsewhere}/keys/attention`), { status: 404 })
  })

  await t.test('P2 a revoked key shows what came since: nothing admitted, and who still tries', async t => {
    const projectId = await newProject(call)
    const redisNow = async () => {
      const [seconds, micros] = (await app.parts.redis.call(async client => await client.time())).map(Number) as [number, number]
      return seconds * 1000 + Math.floor(micros / 1000)
    }
    const key = await newKey(call, projectId)
    t.equal((await call('GET', key.at)).body.sinceRevoked, null, 'not revoked')
    const before = await redisNow()
    const { body: revoked } = await call('POST', `${key.at}/revoke`)
    const after = await redisNow()
    t.ok(before <= Date.parse(revoked.effectiveAt) && Date.parse(revoked.effectiveAt) <= after, 'since when, by Redis\'s clock')
    t.notHas(revoked, { sinceRevoked: {} })
    t.strictSame((await call('GET', key.at)).body.sinceRevoked, { admitted: 0, refused: 0, callers: 0 })

    // Moments of yesterday: in a minute, at its first and at its last millisecond, before the end of an hour and of a day.
    const midnight = Date.now() - Date.now() % dayMs - dayMs
    const moments = [10 * hourMs + 15 * minuteMs + 30_500, 10 * hourMs, 10 * hourMs + 15 * minuteMs + 59_999, 10 * hourMs + 59 * minuteMs + 30_000, dayMs - 1].map(ms => midnight + ms)
    for (const at of moments) {
      await t.test(new Date(at).toISOString(), async t => {
        const key = await newKey(call, projectId)
        const secretId = (await sql`SELECT id FROM secrets WHERE key_id = ${key.id}`)[0]?.['id'] as string
        await call('POST', `${key.at}/revoke`)
        await sql`UPDATE keys SET effective_at = ${new Date(at)}, last_used_at = ${new Date(at)} WHERE id = ${key.id}`
        const shown = async () => (await call('GET', key.at)).body.sinceRevoked
        const add = async (parts: Parameters<typeof usageOf>[2]) => { await storeUsage(app, [usageOf(projectId, key.id, parts)]) }

        await add({ sums: [sumAt(at, { admitted: 40, limited: 3, refused: 2, upstreamErrors: 1 }), sumAt(at - minuteMs, { admitted: 40, refused: 9 })], callers: [callerAt(at, secretId, '192.0.2.1'), callerAt(at - minuteMs, secretId, '192.0.2.9')] })
        t.strictSame(await shown(), { admitted: 0, refused: 0, callers: 0 }, 'it was in use until that very millisecond')

        await add({ sums: [sumAt(at, { refused: 5 })], callers: [callerAt(at + 1, secretId, '192.0.2.1')] })
        t.strictSame(await shown(), { admitted: 0, refused: 7, callers: 1 }, 'somebody came since: the minute counts')

        const next = at - at % minuteMs + minuteMs
        await add({
          sums: [sumAt(next, { refused: 10 }), sumAt(next + hourMs, { refused: 100, operation: 'GET /exports' }), sumAt(next + hourMs, { refused: 1000 }), sumAt(next + dayMs, { refused: 10_000 })],
          callers: [callerAt(next, secretId, '192.0.2.1', 'node'), callerAt(next + hourMs, secretId, '192.0.2.1', 'node'), callerAt(next, secretId, '192.0.2.2')]
        })
        t.strictSame(await shown(), { admitted: 0, refused: 11_117, callers: 3 })

        await sql`UPDATE keys SET last_used_at = ${new Date(at + 1)} WHERE id = ${key.id}`
        t.equal((await shown()).admitted, 1, 'a use behind the revocation shows, in its very minute too')
        await add({ sums: [sumAt(next, { admitted: 2 }), sumAt(next + hourMs, { admitted: 20 }), sumAt(next + dayMs, { admitted: 200 })] })
        t.equal((await shown()).admitted, 222)

        await sql`UPDATE keys SET effective_version = version - 1 WHERE id = ${key.id}`
        t.match((await call('GET', key.at)).body, { status: 'revoked', effective: 'pending', effectiveAt: null, sinceRevoked: null }, 'not everywhere yet: there is no since')
      })
    }
  })

  await t.test('since any moment: as if minutes were added up one by one', async t => {
    const projectId = await newProject(call)
    const key = await newKey(call, projectId)
    const midnight = Date.now() - Date.now() % dayMs
    // Always the same ones, over three days.
    let seed = 1
    const below = (limit: number) => { seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fff_ffff; return Math.floor(seed / 0x8000_0000 * limit) }
    const sums = Array.from({ length: 1500 }, (_, n) => sumAt(midnight - 2 * dayMs + below(3 * dayMs), { operation: `GET /${n % 3}`, admitted: 1 + below(9), refused: below(9) }))
    await storeUsage(app, [usageOf(projectId, key.id, { sums })])
    for (let round = 0; round < 200; round++) {
      const at = midnight - 2 * dayMs + (round < 40 ? below(72) * hourMs : below(3 * dayMs))
      const row = { status: 'revoked', projectId, id: key.id, effectiveAt: new Date(at).toISOString(), lastUsedAt: null } as KeyRow
      const later = sums.filter(({ minute }) => minute > Math.floor(at / minuteMs))
      const total = (name: 'admitted' | 'refused') => later.reduce((sum, counts) => sum + counts[name], 0)
      const found = await app.parts.database.run(async db => await readSinceRevoked(db, row))
      const expected = { admitted: total('admitted'), refused: total('refused'), callers: 0 }
      if (JSON.stringify(found) !== JSON.stringify(expected)) t.fail(row.effectiveAt ?? '', { found, expected })
    }
    t.strictSame(sinceMinuteOf(0), { minute: 0, hour: hourMs, day: dayMs })
    t.strictSame(sinceMinuteOf(hourMs - 1), { minute: hourMs - minuteMs, hour: hourMs, day: dayMs })
    t.strictSame(sinceMinuteOf(dayMs - 1), { minute: dayMs - minuteMs, hour: dayMs, day: dayMs })
  })
})
