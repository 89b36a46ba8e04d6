import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { repoRoot } from '../src/root.ts'
import { openHouse, type Answer } from './house.ts'

// Four replicas on one Redis; the clock of the last one is five seconds ahead.
const shifted = `${pathToFileURL(join(repoRoot, 'infra/local/test/shift-clock.js')).href}?ms=5000`
const house = await openHouse({ gateways: 4, gatewayNodeArgs: index => index === 3 ? ['--import', shifted] : [] })
t.teardown(house.stop)

const policies = (limit: number, windowSeconds = 3600): object => ({ policies: [{ name: 'p', limit, windowSeconds }] })
const remaining = (answers: Answer[]): number[] => answers.filter(a => a.status === 200).map(a => Number(/remaining=(\d+)/.exec(String(a.headers['ratelimit']))?.[1])).sort((a, b) => b - a)
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
