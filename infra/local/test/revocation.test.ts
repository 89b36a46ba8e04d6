import { Redis } from 'ioredis'
import t from 'tap'
import { openHouse, type Key } from './house.ts'

/** A change of each kind so many times; `npm run revocation -w infra/local` makes more of them. */
const rounds = Number(process.env['KEYGATE_REVOCATION_ROUNDS'] ?? 5)
const callers = 50

// Refusals are part of these runs: their limit per address is set above the load.
const house = await openHouse({ env: { gateway: { KEYGATE_REFUSALS_LIMIT: '100000', LOG_LEVEL: 'warn' } } })
t.teardown(house.stop)
const gateways = [0, 1]

interface Sent { at: number, end: number, status: number, secret: string }

interface Kind {
  name: string
  /** Settings of the key before the change. */
  settings?: object
  prepare?: (key: Key) => Promise<Key>
  /** Fulfils with the key as it is then; a `secret` in it is a new one. */
  change: (key: Key) => Promise<{ effective: string, secret?: string | undefined }>
  before: number
  after: number
}

const refused = 401
const kinds: Kind[] = [
  { name: 'rotate', change: async key => await house.change(key, 'POST', '/rotate', {}), before: 200, after: refused },
  { name: 'revoke', change: async key => await house.change(key, 'POST', '/revoke', {}), before: 200, after: refused },
  { name: 'disable', change: async key => await house.change(key, 'POST', '/disable'), before: 200, after: refused },
  { name: 'enable', settings: { active: false }, change: async key => await house.change(key, 'POST', '/enable'), before: refused, after: 200 },
  { name: 'narrow scopes', settings: { allowedForAll: false, scopes: ['forms', 'submissions'] }, change: async key => await house.change(key, 'PATCH', '', { scopes: ['submissions'] }), before: 200, after: 403 },
  { name: 'widen scopes', settings: { allowedForAll: false, scopes: ['submissions'] }, change: async key => await house.change(key, 'PATCH', '', { scopes: ['forms'] }), before: 403, after: 200 },
  { name: 'bar hosts', settings: { allowedHosts: ['127.0.0.1'] }, change: async key => await house.change(key, 'PATCH', '', { allowedHosts: ['127.0.0.2'] }), before: 200, after: 403 },
  { name: 'delete', change: async key => { await house.change(key, 'DELETE', ''); return { effective: 'everywhere' } }, before: 200, after: refused },
  { name: 'create', change: async () => await house.createKey(), before: 200, after: 200 },
  { name: 'open hosts', settings: { allowedHosts: ['127.0.0.2'] }, change: async key => await house.change(key, 'PATCH', '', { allowedHosts: null }), before: 403, after: 200 }
]

/** The moments of this test in order: what was sent after a change was answered has a later one. */
let clock = 0

/** 50 callers on one key through both gateways, and a change in their middle. */
async function changeUnderLoad (kind: Kind): Promise<{ sent: Sent[], answeredAt: number, newSecret: string | undefined }> {
  const key = await house.createKey(kind.settings)
  for (const gateway of gateways) {
    const { status, body } = await house.use(gateway, key.secret)
    if (status !== kind.before) throw new Error(`${kind.name}: warming gave ${status} ${body}`)
  }
  const sent: Sent[] = []
  const secrets = [key.secret]
  const run = { stop: false }
  let notify = (): void => {}
  const answers = async (count: number): Promise<void> => {
    const enough = sent.length + count
    await new Promise<void>(resolve => { notify = () => { if (sent.length >= enough) resolve() } })
  }
  const caller = async (n: number): Promise<void> => {
    for (let i = n; !run.stop; i++) {
      const at = ++clock
      const secret = secrets[i % secrets.length] ?? ''
      const { status } = await house.use(i % 2, secret)
      sent.push({ at, end: ++clock, status, secret })
      notify()
    }
  }
  const all = Promise.all(Array.from({ length: callers }, async (_, n) => { await caller(n) }))
  await answers(callers)
  const changed = await kind.change(key)
  const answeredAt = ++clock
  if (changed.effective !== 'everywhere') throw new Error(`${kind.name}: ${changed.effective}`)
  const newSecret = changed.secret
  if (newSecret !== undefined) secrets.push(newSecret)
  await answers(3 * callers)
  run.stop = true
  await all
  return { sent, answeredAt, newSecret }
}

/** A key that nobody uses but these requests: both gateways are warmed on the old state, and the first request on each comes after the change. */
async function changeInQuiet (kind: Kind): Promise<{ status: number, wanted: number }[]> {
  const key = await house.createKey(kind.settings)
  for (const gateway of gateways) await house.use(gateway, key.secret)
  const { secret } = await kind.change(key)
  const answers = async (of: string, wanted: number) => await Promise.all(gateways.map(async gateway => ({ status: (await house.use(gateway, of)).status, wanted })))
  return [...await answers(key.secret, kind.after), ...(secret === undefined ? [] : await answers(secret, 200))]
}

t.test('P2 K1 K2: under load, every request sent after a change was answered is judged by the new state', async t => {
  for (const kind of kinds) {
    const counts = { before: 0, during: 0, after: 0, stale: 0, trouble: 0 }
    const callsBefore = await verifications()
    for (let round = 0; round < rounds; round++) {
      counts.stale += (await changeInQuiet(kind)).filter(({ status, wanted }) => status !== wanted).length
      const { sent, answeredAt, newSecret } = await changeUnderLoad(kind)
      for (const { at, status, secret } of sent) {
        const wanted = secret === newSecret ? 200 : kind.after
        if (status === 429 || status >= 500) counts.trouble++
        if (at > answeredAt) {
          counts.after++
          if (status !== wanted) counts.stale++
        } else if (status === kind.before) counts.before++
        else counts.during++
      }
    }
    const total = counts.before + counts.during + counts.after
    const calls = await verifications() - callsBefore
    t.comment(`${kind.name}: ${total} requests, ${counts.after} sent after the answer, ${counts.stale} of them judged by the old state; ${counts.trouble} x 429 or 5xx; ${calls} calls to key-service for ${rounds} changes`)
    t.equal(counts.stale, 0, `${kind.name}: no stale admission and no stale refusal`)
    t.equal(counts.trouble, 0, `${kind.name}: no 429 and no 5xx`)
    t.ok(counts.after >= rounds * callers && counts.before >= rounds && calls < total / 4, `${kind.name}: in the middle of the load, and not by asking for every request`)
  }
})

t.test('P2: no decision was made without Redis', async t => {
  for (const gateway of gateways) {
    t.equal(await house.metric(gateway, 'gateway_store_failures_total'), 0)
    const all = await house.metric(gateway, 'gateway_ratelimit_decisions_total')
    const byRedis = await house.metric(gateway, 'gateway_ratelimit_decisions_total', 'store="redis"')
    t.equal(all - byRedis, 0)
    t.ok(byRedis > 1000, `${byRedis} decisions by Redis`)
  }
})

t.test('P2 does not come from having no cache: 1 000 requests on a warm key ask key-service 0 times and run 1 000 scripts', async t => {
  const redis = new Redis(house.stack.redisUrl)
  t.teardown(() => { redis.disconnect() })
  const scripts = async (): Promise<number> => [...(await redis.info('commandstats')).matchAll(/cmdstat_(?:evalsha|eval|fcall):calls=(\d+)/g)].reduce((sum, [, calls]) => sum + Number(calls), 0)
  const key = await house.createKey()
  for (const gateway of gateways) t.equal((await house.use(gateway, key.secret)).status, 200)
  const [asked, run] = [await verifications(), await scripts()]
  for (let i = 0; i < 1000; i++) {
    const { status } = await house.use(i % 2, key.secret)
    if (status !== 200) t.fail(`request ${i}: ${status}`)
  }
  t.equal(await verifications() - asked, 0)
  t.equal(await scripts() - run, 1000)
})

async function verifications (): Promise<number> {
  return (await Promise.all(gateways.map(async gateway => await house.metric(gateway, 'gateway_verifications_total')))).reduce((a, b) => a + b)
}
