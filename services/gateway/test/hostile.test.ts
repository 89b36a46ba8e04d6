import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { digestSecret, generateSecret } from '@keygate/api-key'
import { addressTag, hashAddress } from '@keygate/rate-limit'
import { Redis } from 'ioredis'
import t from 'tap'
import { LookUpQueues } from '../src/admission/look-up-queues.ts'
import { Door } from './door.ts'
import { flood, many, requestText, statuses, type Statuses } from './flood.ts'
import { basicOf, call, openGatewayHouse, type Answer } from './house.ts'
import { heapOf, startMeasuredGateway } from './process.ts'

/** Requests that make things up. */
const flooding = process.env['KEYGATE_THOROUGH'] === '1' ? 100_000 : 20_000

const house = await openGatewayHouse(upstream => `
apis:
  - name: forms
    prefix: /app/api/v1
    upstream: ${upstream}/app/api/v1
    openapi: ../upstream/forms.openapi.yaml
    project: { pathParameter: formId }
    scopes: tags
    policies: [{ name: wide, limit: 100000, window: 60s }]
    anonymousPolicies: [{ name: wide, limit: 100000, window: 60s, partition: address }]
`, { KEYGATE_REFUSALS_LIMIT: '100000' })
const { stack } = house

const door = await Door.open(() => stack.keyService.url)
const redis = new Redis(stack.redisUrl)
t.teardown(async () => {
  redis.disconnect()
  await house.stop()
  door.close()
})

const project = await house.createProject()
const path = `/app/api/v1/forms/${project.id}`
const from = (address: string): string[] => ['X-Forwarded-For', address]
/** Well-formed to the last character but the checksum. */
const offByChecksum = (): string => {
  const secret = generateSecret('kg')
  return secret.slice(0, -1) + (secret.endsWith('0') ? '1' : '0')
}
t.test('look-up queues: one at a time per address, sixteen wait, the next is turned away; addresses are apart', async t => {
  const queues = new LookUpQueues()
  const order: number[] = []
  let running = 0
  let most = 0
  const gates: Array<() => void> = []
  const work = (i: number) => async (): Promise<number> => {
    most = Math.max(most, ++running)
    await new Promise<void>(resolve => { gates.push(resolve) })
    running--
    order.push(i)
    return i
  }
  const results = Array.from({ length: 20 }, async (_, i) => await queues.inTurn('a', work(i)))
  const other = queues.inTurn('b', async () => 'at once')
  t.equal(await other, 'at once', 'another address does not wait')
  t.strictSame(await Promise.all(results.slice(17)), [null, null, null], 'one runs and sixteen wait')
  for (let i = 0; i < 17; i++) {
    t.equal(gates.length, i + 1)
    gates[i]?.()
    t.equal(await results[i], i)
  }
  t.strictSame(order, Array.from({ length: 17 }, (_, i) => i), 'in their order')
  t.equal(most, 1)
  t.equal(await queues.inTurn('a', async () => 'again'), 'again', 'a queue that is empty takes new ones')
  await t.rejects(queues.inTurn('a', async () => { throw new Error('failed') }), { message: 'failed' })
  t.equal(await queues.inTurn('a', async () => 'and on'), 'and on', 'a failure does not stop those behind it')
})

t.test('look-up queues: an address is suspect for as long as its budget is empty, and only so many are remembered', async t => {
  let nowMs = 0
  const queues = new LookUpQueues(() => nowMs)
  t.notOk(queues.isSuspect('a'))
  queues.suspect('a', 1000)
  nowMs = 999
  t.ok(queues.isSuspect('a'))
  queues.suspect('a', 1000)
  nowMs = 1998
  t.ok(queues.isSuspect('a'))
  nowMs = 1999
  t.notOk(queues.isSuspect('a'))
  for (let i = 0; i < 10_001; i++) queues.suspect(`x${i}`, 1000)
  t.notOk(queues.isSuspect('x0'), 'the one that was told first is forgotten')
  t.ok(queues.isSuspect('x1') && queues.isSuspect('x10000'))
})

t.test('GX-11: ten thousand keys with a wrong checksum: not one reaches key-service', async t => {
  const gateway = await house.openGateway(door.env)
  const seen = await flood(gateway.url, 10_000, i => {
    const secret = offByChecksum()
    return requestText({ path, headers: i % 2 === 0 ? ['X-API-Key', secret] : basicOf(`${project.id}:${secret}`) })
  })
  t.strictSame(seen, { 401: 10_000 })
  t.strictSame([door.total, await gateway.metric('gateway_verifications_total')], [0, 0])
})

t.test('GX-11: guesses with a right checksum: past the budget 429, and one look-up at a time; known keys and other addresses do not notice', async t => {
  const gateway = await house.openGateway({ ...door.env, KEYGATE_REFUSALS_LIMIT: '20', KEYGATE_RECORD_TTL_SECONDS: '3600', KEYGATE_TRUST_PROXY: '127.0.0.1' })
  const [known, owner, fresh] = [await project.createKey(), await project.createKey(), await project.createKey()]
  const use = async (secret: string, address: string): Promise<Answer> => await call(gateway.url, { path, headers: [...basicOf(`${project.id}:${secret}`), ...from(address)] })
  const guess = async (): Promise<Answer> => await use(generateSecret('kg'), '198.51.100.1')
  t.equal((await use(known.secret, '198.51.100.1')).status, 200)

  const first = await many(21, guess, 1)
  t.strictSame(statuses(first), { 401: 20, 429: 1 })
  const before = door.total
  door.most = 0
  const times = 1000
  const [guesses, mine] = await Promise.all([many(times, guess, 10), many(50, async () => await use(known.secret, '198.51.100.1'), 2)])
  t.strictSame(statuses(guesses), { 429: times })
  for (const { headers, problem } of guesses.slice(0, 20)) t.match([headers['retry-after'], headers['ratelimit'], problem.code], [/^[1-9]\d?$/, undefined, 'too_many_refusals'])
  t.strictSame(statuses(mine), { 200: 50 }, 'the right secret, from the same address all the time')
  t.equal(door.total - before, times, 'each guess costs one look-up at most')
  t.equal(door.most, 1, 'never two at once')

  // Forty more while key-service is slow: one is asked for, sixteen wait, the others are told at once.
  const unheld = new Set([digestSecret(owner.secret), digestSecret(fresh.secret)])
  door.holds = digest => !unheld.has(digest)
  door.most = 0
  const turnedAway: Answer[] = []
  const waiting: Array<Promise<Answer>> = []
  await new Promise<void>(resolve => {
    for (let i = 0; i < 40; i++) {
      const answer = guess()
      waiting.push(answer)
      answer.then(answer => { if (turnedAway.push(answer) === 23) resolve() }, t.fail)
    }
  })
  for (const { status, problem, headers } of turnedAway) t.match([status, problem.code, headers['retry-after']], [503, 'too_many_look_ups', '1'])
  t.equal(door.held.length, 1)
  t.match((await use(fresh.secret, '198.51.100.1')).problem, { status: 503, code: 'too_many_look_ups' }, 'a key that is not known here waits in the same queue')
  t.equal((await use(known.secret, '198.51.100.1')).status, 200)
  t.equal((await use(owner.secret, '198.51.100.2')).status, 200, 'another address is asked for at once')
  t.match((await call(gateway.url, { path: '/.keygate/me', headers: ['X-API-Key', generateSecret('kg'), ...from('198.51.100.1')] })).problem, { code: 'too_many_look_ups' }, 'and there is no other door')
  door.holds = () => false
  door.release()
  t.strictSame(statuses(await Promise.all(waiting)), { 503: 23, 429: 17 })
  t.equal(door.most, 2, 'one of the guesser, one of the other address')
})

t.test('GX-11: the same with key-service frozen', async t => {
  const gateway = await house.openGateway({ KEYGATE_REFUSALS_LIMIT: '1', KEYGATE_TRUST_PROXY: '127.0.0.1' })
  const { secret } = await project.createKey()
  const guess = async (): Promise<Answer> => await call(gateway.url, { path, headers: ['X-API-Key', generateSecret('kg'), ...from('198.51.100.3')] })
  const mine = async (): Promise<Answer> => await call(gateway.url, { path, headers: ['X-API-Key', secret, ...from('198.51.100.3')] })
  t.equal((await mine()).status, 200)
  await guess()
  t.equal((await guess()).status, 429)
  t.teardown(() => { process.kill(stack.keyService.pid, 'SIGCONT') })
  process.kill(stack.keyService.pid, 'SIGSTOP')
  const waiting: Array<Promise<Answer>> = []
  await new Promise<void>(resolve => {
    let away = 0
    for (let i = 0; i < 30; i++) {
      const answer = guess()
      waiting.push(answer)
      answer.then(() => { if (++away === 13) resolve() }, t.fail)
    }
  })
  t.strictSame(statuses(await many(20, mine)), { 200: 20 })
  process.kill(stack.keyService.pid, 'SIGCONT')
  t.strictSame(statuses(await Promise.all(waiting)), { 503: 13, 429: 17 })
})

t.test('GX-12 GX-13: a flood of made-up addresses, keys and forms makes one name in Redis, takes no memory and displaces nobody', async t => {
  const gateway = await startMeasuredGateway(house, { ...door.env, KEYGATE_REFUSALS_LIMIT: '100', KEYGATE_RECORD_TTL_SECONDS: '3600', LOG_LEVEL: 'fatal' })
  const keys = await many(100, async () => await project.createKey(), 5)
  const useKnown = async (): Promise<Statuses> => statuses(await many(keys.length, async i => await call(gateway.url, { path, headers: basicOf(`${project.id}:${keys[i]?.secret ?? ''}`) })))
  t.strictSame(await useKnown(), { 200: 100 })
  const address = (i: number): string => `${1 + i % 223}.${(i >> 8) % 256}.${i % 256}.7`
  const pour = async (times: number): Promise<void> => {
    const seen = await flood(gateway.url, times, i => {
      const form = randomUUID()
      const spoofed = [...from(address(i)), 'Forwarded', `for=${address(i)}`, 'X-Real-IP', address(i), 'User-Agent', `agent ${i}`, 'X-Request-Id', `id-${i}`]
      const kinds = [
        { path, headers: [...basicOf(`${project.id}:${offByChecksum()}`), ...spoofed] },
        { path: `/app/api/v1/forms/${form}`, headers: [...basicOf(`${form}:${offByChecksum()}`), ...spoofed] },
        { path: `/app/api/v1/forms/${form}`, headers: spoofed },
        { path: `/${randomUUID()}`, headers: [`X-${randomUUID()}`, 'x', ...spoofed] },
        // a guess that key-service is asked for
        { path: `/app/api/v1/forms/${form}`, headers: [...basicOf(`${form}:${generateSecret('kg')}`), ...spoofed] }
      ]
      return requestText(kinds[i % 50 === 0 ? 4 : i % 4] as { path: string, headers: string[] })
    })
    t.strictSame(Object.keys(seen).filter(status => !['401', '404', '429', '503'].includes(status)), [], JSON.stringify(seen))
    t.equal(Object.values(seen).reduce((sum, count) => sum + count), times)
  }
  const names = await redis.keys('*')
  await pour(flooding / 5)
  const warm = await heapOf(gateway)
  await pour(flooding)
  const made = (await redis.keys('*')).filter(name => !names.includes(name) && !/^kg:(?:gateways|usage|\{[^}]*\}:admitted)/.test(name))
  // Others that were there before may have ended by now: a log lives for a minute after its last request.
  const ofOurAddress = `kg:{${addressTag(hashAddress('127.0.0.1'))}}:rl:`
  t.strictSame(made.filter(name => !name.startsWith(ofOurAddress)), [], 'nothing is named after an address, a key or a form that was made up')
  t.ok(made.length <= 1, `one address, one name: ${made.join(' ')}`)
  const grown = await heapOf(gateway) - warm
  t.comment(`heap: ${warm} bytes, then ${grown} more, ${(grown / flooding).toFixed(0)} a request`)
  t.ok(grown < 100 * flooding, 'not even a name of each is kept')
  t.strictSame(await useKnown(), { 200: 100 })
  t.strictSame(keys.map(({ secret }) => door.asked.get(digestSecret(secret))), keys.map(() => 1), 'GX-13: the keys that were known stayed known')
})

t.test('GX-21 B4-07: gateways whose clocks are an hour ahead and behind: totals, numbers and ends are those of a right one', async t => {
  const start = async (ms: number): Promise<string> => {
    const shifted = `${pathToFileURL(join(import.meta.dirname, '../../../infra/local/test/shift-clock.js')).href}?ms=${ms}`
    const gateway = await house.startGateway({ LOG_LEVEL: 'fatal' }, { nodeArgs: ['--import', shifted] })
    return gateway.url
  }
  const gateways = [house.gateways[0] as string, ...await Promise.all([3_600_000, -3_600_000].map(start))]
  const use = async (gateway: number, secret: string): Promise<Answer> => await call(gateways[gateway] as string, { path, headers: basicOf(`${project.id}:${secret}`) })
  const policy = { name: 'p', limit: 20, windowSeconds: 3000, algorithm: 'sliding', partition: 'key' }

  const { secret } = await project.createKey({ policies: [policy] })
  const answers = await many(60, async i => await use(i % 3, secret), 60)
  t.strictSame(statuses(answers), { 200: 20, 429: 40 })
  t.strictSame(answers.filter(({ status }) => status === 200).map(({ headers }) => Number(/remaining=(\d+)/.exec(headers['ratelimit'] ?? '')?.[1])).sort((a, b) => a - b), Array.from({ length: 20 }, (_, i) => i), 'each remaining once')
  for (const { headers, status } of answers) {
    const reset = Number(/reset=(\d+)/.exec(headers['ratelimit'] ?? '')?.[1])
    t.ok(reset > 2900 && reset <= 3000, `${reset} s`)
    if (status === 429) t.equal(headers['retry-after'], String(reset))
  }

  const later = await project.createKey({ expiresAt: new Date(Date.now() + 1_800_000).toISOString() })
  t.strictSame((await Promise.all([0, 1, 2].map(async i => await use(i, later.secret)))).map(({ status }) => status), [200, 200, 200], 'it ends in half an hour, whatever the clock here says')
  const soon = Date.now() + 2000
  const ending = await project.createKey({ expiresAt: new Date(soon).toISOString() })
  await Promise.all([0, 1, 2].map(async i => await use(i, ending.secret)))
  while (await redisNow() < soon) await new Promise(resolve => { setTimeout(resolve, 50) })
  for (const i of [0, 1, 2]) t.match((await use(i, ending.secret)).problem, { status: 401, code: 'key_expired' })
})

async function redisNow (): Promise<number> {
  const [seconds] = await redis.time()
  return Number(seconds) * 1000
}
