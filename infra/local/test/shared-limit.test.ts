import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { repoRoot } from '../src/root.ts'
import { openHouse, until, type Answer } from './house.ts'

// Four replicas on one Redis; the clock of the last one is five seconds ahead, and that of the one before takes steps when it is told to.
const preload = (file: string): string[] => ['--import', pathToFileURL(join(repoRoot, 'infra/local/test', file)).href]
const stepping = 2
const house = await openHouse({ gateways: 4, gatewayNodeArgs: index => index === 3 ? preload('shift-clock.js').map(arg => arg.replace(/js$/, 'js?ms=5000')) : index === stepping ? preload('step-clock.js') : [] })
t.teardown(house.stop)

const policies = (limit: number, windowSeconds = 3600): object => ({ policies: [{ name: 'p', limit, windowSeconds }] })
const remaining = (answers: Answer[]): number[] => answers.filter(a => a.status === 200).map(a => Number(/remaining=(\d+)/.exec(String(a.headers['ratelimit']))?.[1])).sort((a, b) => b - a)
const reset = ({ headers }: Answer): number => Number(/reset=(\d+)/.exec(String(headers['ratelimit']))?.[1])
const statuses = (answers: Answer[]): Record<number, number> => answers.reduce<Record<number, number>>((sum, { status }) => ({ ...sum, [status]: (sum[status] ?? 0) + 1 }), {})

t.test('P1 R10 R12: 40 calls at once over 4 replicas, one with another clock: exactly 20 pass, each remaining once', async t => {
  const key = await house.createKey(policies(20))
  const answers = await Promise.all(Array.from({ length: 40 }, async (_, i) => await house.use(i % 4, key.secret)))
  t.strictSame(statuses(answers), { 200: 20, 429: 20 })
  t.strictSame(remaining(answers), Array.from({ length: 20 }, (_, i) => 19 - i))
})

t.test('R12: the replica with the other clock shows the same numbers', async t => {
  const key = await house.createKey(policies(20))
  const there = await house.use(3, key.secret)
  const here = await house.use(0, key.secret)
  t.equal(there.headers['ratelimit'], 'limit=20, remaining=19, reset=3600')
  t.match(here.headers['ratelimit'], /^limit=20, remaining=18, reset=(?:3600|3599|359\d)$/)
})

t.test('R11: two replicas and a limit of 60 admit 60 in total, not 120', async t => {
  const key = await house.createKey(policies(60))
  const answers = await Promise.all(Array.from({ length: 130 }, async (_, i) => await house.use(i % 2, key.secret)))
  t.strictSame(statuses(answers), { 200: 60, 429: 70 })
})

t.test('R13: a replica restarted in mid-window keeps the count', async t => {
  const key = await house.createKey(policies(20))
  for (let i = 0; i < 5; i++) await house.use(1, key.secret)
  const before = house.stack.gateways[1]
  await before?.kill()
  house.stack.gateways[1] = await house.stack.startGateway(1)
  const after = await house.use(1, key.secret)
  t.match(after.headers['ratelimit'], /^limit=20, remaining=14, /)
})

t.test('B4-07: a gateway\'s clock is set an hour ahead, an hour behind, and stands still: it counts, waits and ends as the others do', async t => {
  const { gateways } = house.stack
  const spent = await house.createKey(policies(3))
  for (let i = 0; i < 3; i++) await house.use(stepping, spent.secret)
  const later = await house.createKey({ expiresAt: new Date(Date.now() + 1_800_000).toISOString() })
  const soon = Date.now() + 3000
  const ended = await house.createKey({ expiresAt: new Date(soon).toISOString() })
  for (const gateway of [0, stepping]) await house.use(gateway, later.secret)
  await until('the key has ended', async () => await house.use(0, ended.secret), ({ status }) => status === 401)

  for (const step of ['an hour ahead', 'an hour behind', 'standing still', 'right']) {
    const lookUps = await house.metric(stepping, 'gateway_verifications_total')
    process.kill(gateways[stepping]?.pid as number, 'SIGWINCH')
    await until(`its clock is ${step}`, async () => gateways[stepping]?.output() ?? '', output => output.includes(`the clock is ${step}\n`))

    const [here, there] = [await house.use(0, spent.secret), await house.use(stepping, spent.secret)]
    t.strictSame([here.status, there.status], [429, 429], `${step}: the window is the same`)
    for (const answer of [here, there]) t.equal(Number(answer.headers['retry-after']), reset(answer), 'and so is the wait')
    t.ok(reset(there) <= reset(here) && reset(there) > 3000, `${reset(there)} s`)
    t.strictSame([(await house.use(0, later.secret)).status, (await house.use(stepping, later.secret)).status], [200, 200], 'a key that ends in half an hour has not ended')
    for (const gateway of [0, stepping]) t.match(JSON.parse((await house.use(gateway, ended.secret)).body), { status: 401, code: 'key_expired' })
    t.ok(await house.metric(stepping, 'gateway_verifications_total') - lookUps <= 1, 'what is held has not become older (the key that has ended may be asked for once)')

    const key = await house.createKey(policies(20))
    const answers = await Promise.all(Array.from({ length: 40 }, async (_, i) => await house.use(i % 4, key.secret)))
    t.strictSame(statuses(answers), { 200: 20, 429: 20 }, 'over all of them the limit holds')
    t.strictSame(remaining(answers), Array.from({ length: 20 }, (_, i) => 19 - i))
    for (const answer of answers) t.ok(reset(answer) > 3000 && reset(answer) <= 3600, `${reset(answer)} s`)
  }
})

t.test('B4-07: a gateway that is frozen for a while judges what waited for it by how things are then', async t => {
  const [frozen, other] = [1, 0]
  const { pid } = house.stack.gateways[frozen] as { pid: number }
  const [key, revoked] = [await house.createKey(policies(30)), await house.createKey()]
  for (const gateway of [frozen, other]) for (const { secret } of [key, revoked]) await house.use(gateway, secret)
  const before = await house.metric(frozen, 'gateway_store_failures_total')
  t.teardown(() => { process.kill(pid, 'SIGCONT') })

  process.kill(pid, 'SIGSTOP')
  const waiting = Array.from({ length: 20 }, async () => await house.use(frozen, key.secret))
  const refused = Array.from({ length: 5 }, async () => await house.use(frozen, revoked.secret))
  const answers: Answer[] = []
  for (let i = 0; i < 35; i++) answers.push(await house.use(other, key.secret))
  t.strictSame(statuses(answers), { 200: 28, 429: 7 }, 'meanwhile the other goes on, and two were used before')
  t.equal((await house.change(revoked, 'POST', '/revoke', {})).effective, 'everywhere')
  process.kill(pid, 'SIGCONT')

  const late = await Promise.all(waiting)
  t.strictSame(statuses(late), { 429: 20 })
  for (const answer of late) t.equal(Number(answer.headers['retry-after']), reset(answer))
  t.strictSame(statuses(await Promise.all(refused)), { 401: 5 }, 'P2 holds for what was sent before the change as well: it is judged after it')
  t.equal(await house.metric(frozen, 'gateway_store_failures_total'), before, 'its time-outs were not taken for a Redis that is away')
})
