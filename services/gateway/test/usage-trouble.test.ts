import { request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { usageStream, type UsageBatch, type UsageLine } from '@keygate/contracts'
import type { Service } from '@keygate/local'
import t from 'tap'
import { basicOf, call } from './house.ts'
import { flood, requestText } from './flood.ts'
import { MiB, heapOf, metricOf, startMeasuredGateway } from './process.ts'
import { bookedOf, openUsageHouse, sumsOf, totalsOf, until } from './usage-house.ts'

const isThorough = process.env['KEYGATE_THOROUGH'] === '1'
const house = await openUsageHouse()
t.teardown(house.stop)
const { redis, toRedis, held } = house
const project = await house.createProject()
const path = `/forms/forms/${project.id}`
const as = (secret: string): string[] => basicOf(`${project.id}:${secret}`)

/** What the script has counted for a boot. */
async function countedOf (bootId: string): Promise<number> {
  let counted = 0
  for (const name of await redis.keys(`kg:{${project.id}}:admitted:*`)) counted += Number(await redis.hget(name, bootId) ?? 0)
  return counted
}

/** The newest totals of a boot, over all hours. */
function linesOf (batches: UsageBatch[]): Pick<UsageLine, 'admitted' | 'finished' | 'unanswered'> {
  const lines = new Map(batches.flatMap(({ lines }) => lines).filter(({ projectId }) => projectId === project.id).map(line => [line.hour, line]))
  const sum = (count: 'admitted' | 'finished' | 'unanswered'): number => [...lines.values()].reduce((sum, line) => sum + line[count], 0)
  return { admitted: sum('admitted'), finished: sum('finished'), unanswered: sum('unanswered') }
}

t.test('usage: SIGTERM: all is sent, also what was not due for long, and what was cut at the deadline; the last batch has the last word', async t => {
  const key = await project.createKey({ logging: { all: 'forever' } })
  const gateway = await house.bootOf(house.startGateway({ KEYGATE_USAGE_FLUSH_MS: '60000', KEYGATE_DRAIN_DELAY_MS: '0', KEYGATE_SHUTDOWN_TIMEOUT_MS: '3000' }))
  const wanted = 300
  t.strictSame(await flood(gateway.url, wanted, () => requestText({ path, headers: as(key.secret) })), { 200: wanted })
  const { hostname, port, host } = new URL(gateway.url)
  const open = request({ host: hostname, port, path: `${path}?held`, headers: ['host', host, ...as(key.secret)] }).on('error', () => {})
  open.end()
  await until('the upstream has it', async () => held.length > 0)
  t.equal((await house.batches(gateway.bootId)).length, 1, 'the hello alone')
  process.kill(gateway.pid, 'SIGTERM')
  t.equal(await gateway.exited, 0)
  held.splice(0).forEach(response => response.destroy())
  const batches = await house.batches(gateway.bootId)
  t.equal(totalsOf(batches, key.id).admitted, wanted + 1)
  t.equal(batches.flatMap(({ rows }) => rows).length, wanted + 1, 'no row is missing')
  t.strictSame(linesOf(batches), { admitted: wanted + 1, finished: wanted + 1, unanswered: 0 })
  t.equal(await countedOf(gateway.bootId), wanted + 1)
  t.notMatch(gateway.output(), /they are lost/)
})

t.test('usage: an XADD whose reply is lost is sent again with the same number, unchanged', async t => {
  const key = await project.createKey()
  const gateway = await house.bootOf(house.openGateway({ REDIS_URL: house.redisUrlByProxy, KEYGATE_REDIS_TIMEOUT_MS: '1000', KEYGATE_USAGE_FLUSH_MS: '20' }))
  const swallowed = toRedis.swallow('down', chunk => /^\$\d+\r\n\d{13}-\d+\r\n/.test(chunk.toString('latin1')))
  t.equal((await call(gateway.url, { path, headers: as(key.secret) })).status, 200)
  await swallowed
  const entries = async (): Promise<string[]> => (await redis.xrange(usageStream, '-', '+')).map(([, fields]) => fields[1] ?? '').filter(text => text.includes(gateway.bootId))
  const before = await entries()
  toRedis.resume() // it connects anew
  t.equal((await call(gateway.url, { path, headers: as(key.secret) })).status, 200)
  await until('both are booked', async () => bookedOf(totalsOf(await house.batches(gateway.bootId), key.id)) === 2)
  const after = await entries()
  t.equal(after[before.length], before.at(-1), 'what may have been lost comes again as it was')
  const seqs = after.map(text => (JSON.parse(text) as UsageBatch).seq)
  t.ok(seqs.length > new Set(seqs).size)
  t.strictSame([...new Set(seqs)], [...new Set(seqs)].map((_, i) => i), 'without a hole')
})

t.test('B2-13: Redis stops under load: requests go on, memory is bounded, and what is dropped is sent minus stored, exactly', async t => {
  const key = await project.createKey({ logging: { all: 'forever' } })
  const gateway = await house.bootOf(startMeasuredGateway(house, { LOG_LEVEL: 'silent', KEYGATE_REDIS_TIMEOUT_MS: '100', KEYGATE_REPLICAS: '1' }))
  const text = requestText({ path, headers: as(key.secret) })
  const before = await flood(gateway.url, 300, () => text)
  const heap = await heapOf(gateway)
  const pid = house.stack.redis?.pid ?? 0
  const wanted = isThorough ? 30_000 : 3000
  process.kill(pid, 'SIGSTOP')
  let during: Record<string, number>
  let grown: number
  try {
    during = await flood(gateway.url, wanted, () => text)
    grown = await heapOf(gateway) - heap
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  t.strictSame([before, during], [{ 200: 300 }, { 200: wanted }], 'each one was answered')
  t.ok(grown < 64 * MiB, `${(grown / MiB).toFixed(1)} MiB`)
  const sent = 300 + wanted
  const dropped = async (what: string): Promise<number> => await metricOf(gateway, 'gateway_usage_dropped_total', `what="${what}"`)
  const batches = await until('all that is left is stored', async () => {
    const batches = await house.batches(gateway.bootId)
    const rows = batches.flatMap(({ rows }) => rows).length
    return totalsOf(batches, key.id).admitted + await dropped('requests') >= sent && rows + await dropped('rows') >= sent && batches
  })
  const totals = totalsOf(batches, key.id)
  t.equal(await dropped('requests'), sent - totals.admitted)
  t.equal(await dropped('rows'), sent - batches.flatMap(({ rows }) => rows).length)
  if (isThorough) t.ok(await dropped('rows') > 0)
  const { admitted, finished, unanswered } = linesOf(batches)
  t.ok(totals.admittedLocally > 0)
  t.equal(totals.admittedLocally, sent - admitted, 'those that no script was heard of are told apart')
  t.equal(finished, admitted)
  t.ok(admitted + unanswered >= await countedOf(gateway.bootId), `${unanswered} were not answered`)
  await gateway.stop()
})

t.test('B2-14: SIGKILL: what was answered before the last batch is in the batches, and the running totals say how many are missing', async t => {
  const rounds = isThorough ? 50 : 3
  for (let round = 1; round <= rounds; round++) {
    const key = await project.createKey()
    const gateway: Service & { bootId: string } = await house.bootOf(house.startGateway({ KEYGATE_USAGE_FLUSH_MS: '200' }))
    const answeredAt: number[] = []
    const connections = 4
    const over = new AbortController()
    const load = Promise.all(Array.from({ length: connections }, async () => {
      // The call before the one that was answered has ended for the gateway as well: its connection went on.
      while (!over.signal.aborted) {
        const { status } = await call(gateway.url, { path, headers: as(key.secret) }).catch(() => ({ status: 0 }))
        if (status === 200) answeredAt.push(Date.now())
      }
    }))
    await until('some batches came', async () => (await house.batches(gateway.bootId)).filter(({ keys }) => keys.length > 0).length >= 3)
    await delay(20 * (round % 10))
    await gateway.kill()
    over.abort()
    await load
    const batches = await house.batches(gateway.bootId)
    const stored = totalsOf(batches, key.id).admitted
    const lastMs = Math.max(...batches.map(({ atMs }) => atMs))
    const counted = await countedOf(gateway.bootId)
    const { admitted, finished } = linesOf(batches)
    t.ok(stored >= answeredAt.filter(ms => ms < lastMs).length - connections, `${stored} are stored, ${answeredAt.length} were answered`)
    t.ok(counted >= answeredAt.length)
    t.equal(finished, stored, 'of what was told nothing is missing')
    t.ok(counted >= admitted && admitted >= finished)
    t.equal((counted - admitted) + (admitted - finished), counted - stored, `the tail: ${counted - stored}`)
    t.strictSame(sumsOf(batches, key.id).filter(({ admittedLocally }) => admittedLocally > 0), [])
  }
})

t.test('usage: what Redis refuses is kept, and requests go on', async t => {
  const key = await project.createKey()
  const gateway = await house.bootOf(house.openGateway({}))
  const name = `${usageStream}:aside`
  await redis.rename(usageStream, name)
  await redis.set(usageStream, 'something else')
  for (let i = 0; i < 20; i++) t.equal((await call(gateway.url, { path, headers: as(key.secret) })).status, 200) || t.bailout()
  await redis.del(usageStream)
  await redis.rename(name, usageStream)
  await until('it is booked', async () => totalsOf(await house.batches(gateway.bootId), key.id).admitted === 20)
  t.strictSame(linesOf(await house.batches(gateway.bootId)), { admitted: 20, finished: 20, unanswered: 0 })
})
