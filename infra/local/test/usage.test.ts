import { request } from 'node:http'
import t, { type Test } from 'tap'
import { basic, until } from './house.ts'
import { createSpots } from './spots.ts'
import { capBytes, lateMs, maxmemory, openUsageHouse } from './usage-house.ts'

/** Of each kind of trouble; `npm run usage-rounds -w infra/local` has more of them. A gateway is killed in two ways, so that is half of each. */
const isThorough = process.env['KEYGATE_THOROUGH'] === '1'
const [rounds, kills, killsOfGateways] = isThorough ? [50, 50, 25] : [2, 1, 1]
const burst = 20

const house = await openUsageHouse()
t.teardown(house.stop)
const { store, sql, stack, got, books, balanced, send, sendMany, weighsEven, gatewayToRedis, keyServiceToRedis } = house
const spots = createSpots(async () => {
  const { admitted: stored, lost } = await house.settled('before and after each round')
  return { requests: got.admitted, stored, lost }
})

const wide = await house.createKey()
const logged = await house.createKey({ logging: { all: 'forever' } })
const narrow = await house.createKey({ policies: [{ name: 'few', limit: 5, windowSeconds: 86_400 }] })
const scopeless = await house.createKey({ allowedForAll: false, scopes: [] })
const allKeys = [wide, logged, narrow, scopeless]

/** A gateway that has just started knows no keys, and without key-service it cannot ask. */
const warm = async (): Promise<void> => { for (const key of allKeys) await sendMany(4, key) }
await warm()

const metric = async (url: string | undefined, name: string): Promise<number> => Number(new RegExp(`^${name}\\S* (\\d+)`, 'm').exec(await (await fetch(url ?? '')).text())?.[1])
const repeated = async (url: string | undefined): Promise<number> => await metric(url, 'key_service_usage_repeated_batches_total')

t.test('admitted, limited and refused requests of both gateways are stored as the client got them', async t => {
  for (const key of allKeys) await sendMany(burst, key)
  await balanced(t, 'quiet')
  const { admitted, limited, refused, lost } = await until('refusals have come too', books, ({ limited, refused }) => limited + refused >= got.limited + got.refused)
  t.strictSame([admitted, limited, refused, lost], [got.admitted, got.limited, got.refused, 0])
  t.ok(got.limited > 5 && got.refused > burst)
  const perKey = await sql`SELECT key_id, sum(admitted)::int AS admitted, sum(refused)::int AS refused FROM usage_minutes WHERE project_id = ${house.projectId} AND key_id <> '*' GROUP BY 1`
  t.equal(perKey.find(row => row['key_id'] === narrow.id)?.['admitted'], 5, 'as many as its limit')
  t.equal(perKey.find(row => row['key_id'] === scopeless.id)?.['refused'], got.refused)
  t.equal((await sql`SELECT count(*)::int AS rows FROM request_log WHERE key_id = ${logged.id}`)[0]?.['rows'], 4 + burst, 'a row for each request of the key that is logged, and of no other')
  t.equal((await sql`SELECT count(*)::int AS rows FROM request_log WHERE project_id = ${house.projectId}`)[0]?.['rows'], 4 + burst)
})

t.test('a client that leaves while its request is decided is counted all the same', async t => {
  const { admitted: before } = await books()
  const held = gatewayToRedis.once('held')
  gatewayToRedis.pause('down')
  const { hostname, port } = new URL(stack.gateways[0]?.url ?? '')
  const leaving = request({ host: hostname, port, path: house.example, headers: Object.fromEntries([basic(house.projectId, wide.secret)]) })
  leaving.on('error', () => {}).end()
  await held // the script has decided
  const left = await house.metric(0, 'http_server_request_duration_seconds_count', '"499"')
  leaving.destroy()
  await until('the gateway has noticed', async () => await house.metric(0, 'http_server_request_duration_seconds_count', '"499"'), count => count > left)
  gatewayToRedis.resume()
  await until('it is stored', books, ({ admitted }) => admitted > before)
  const { admitted, lost } = await until('all of it', books, ({ waiting }) => waiting === 0)
  t.strictSame([admitted, lost], [before + 1, 0])
  t.equal(house.arrived(), got.admitted, 'nobody passed it on, since nobody waits for its answer')
  got.admitted++
  got.left++
})

t.test(`P6: key-service is killed between COMMIT and acknowledgement, ${kills} times: what comes again is left out`, async t => {
  await spots.run(t, 'consumer killed between COMMIT and acknowledgement', kills, async what => {
    const { lost: before } = await balanced(t, `${what}, before`)
    const caught = keyServiceToRedis.swallow('up', chunk => chunk.includes('xack'))
    await sendMany(burst, wide)
    await caught
    await stack.keyService.kill()
    keyServiceToRedis.resume()
    t.ok(await store.xlen('kg:usage:0') > 0, 'the batch lies there still')
    stack.keyService = await stack.startKeyService()
    const { lost } = await balanced(t, what)
    t.equal(lost, before)
    t.ok(await until('it came again', async () => await repeated(stack.keyService.metricsUrl), count => count >= 1))
  })
})

t.test(`P6: two consumers have the same batch in hand, ${rounds} times: it is counted once`, async t => {
  const second = await stack.startKeyService({ KEYGATE_PORT: '0' })
  t.teardown(second.stop)
  const countRepeated = async (): Promise<number> => (await Promise.all([stack.keyService, second].map(async ({ metricsUrl }) => await repeated(metricsUrl)))).reduce((a, b) => a + b)
  const inHand = async (): Promise<Array<[id: string, consumer: string, idleMs: number, deliveries: number]>> => await store.xpending('kg:usage:0', 'key-service', '-', '+', 10) as Array<[string, string, number, number]>
  await spots.run(t, 'two consumers on one batch', rounds, async what => {
    const { lost: before } = await balanced(t, `${what}, before`)
    const repeatedBefore = await countRepeated()
    // Else it would read the next batch while the first one has this one, and wait with that.
    process.kill(second.pid, 'SIGSTOP')
    try {
      await sql.begin(async tx => {
        await tx`SELECT 1 FROM usage_boots FOR UPDATE` // who wants to store waits
        await sendMany(burst, wide)
        await until('the first one is late', inHand, entries => entries.some(([,, idleMs]) => idleMs > 2 * lateMs))
        // Whatever else came is had by a third one: the second finds nothing but what is late, wherever it stopped.
        await store.xreadgroup('GROUP', 'key-service', 'third', 'COUNT', 100, 'STREAMS', 'kg:usage:0', '>')
        process.kill(second.pid, 'SIGCONT')
        await until('both have had it', inHand, ([oldest]) => oldest !== undefined && oldest[3] > 1)
      })
    } finally {
      process.kill(second.pid, 'SIGCONT')
    }
    t.equal((await balanced(t, what)).lost, before)
    t.ok(await until('it is noticed', countRepeated, count => count > repeatedBefore), 'it came twice')
  })
})

/**
 * SIGKILLs gateway 1 at the moment that the trap tells, with a burst in its hand. The last request of the burst waits in the upstream until the trap is set:
 * so a batch comes into it, however slowly everything else goes.
 *
 * @param isTold everything but this last request has been stored before.
 * @returns what was lost by it.
 */
async function killWithBatch (t: Test, what: string, trap: () => Promise<Buffer>, { isTold }: { isTold: boolean }): Promise<number> {
  const { lost: before, admitted } = await balanced(t, `${what}, before`)
  const [boot] = await sql`SELECT boot_id FROM usage_boots WHERE replica LIKE ${`%:${new URL(stack.gateways[0]?.url ?? '').port}`} ORDER BY first_at DESC LIMIT 1`
  const bootId = String(boot?.['boot_id'])
  const held = house.holdNext()
  const last = send(0, wide)
  const release = await held
  await sendMany(burst - 1, wide, () => 0)
  if (isTold) await until('all but one is stored', books, books => books.admitted === admitted + burst - 1)
  const caught = trap()
  release()
  await caught
  await last
  await stack.gateways[0]?.kill()
  gatewayToRedis.resume()
  const started = stack.startGateway(0)
  await until('it is settled', async () => {
    await store.zrem('kg:gateways', bootId) // else it would count as living for a minute
    return (await sql`SELECT settled_at FROM usage_boots WHERE boot_id = ${bootId}`)[0]?.['settled_at'] as Date | null
  }, settledAt => settledAt !== null)
  stack.gateways[0] = await started
  return (await balanced(t, what)).lost - before
}

const hasSums = (chunk: Buffer): boolean => chunk.includes('xadd') && chunk.includes('"keys":[{')

t.test(`P6 B2-14: a gateway is SIGKILLed with a batch that Redis never got, ${killsOfGateways} times: lost, and told as lost`, async t => {
  await spots.run(t, 'gateway SIGKILLed with a batch that Redis never got', killsOfGateways, async what => {
    const lost = await killWithBatch(t, what, async () => await gatewayToRedis.swallow('up', hasSums), { isTold: false })
    t.ok(lost >= 1 && lost <= burst, `${lost} lost, of ${burst}`)
  })
})

t.test(`P6: a gateway is SIGKILLed before it heard that Redis has its batch, ${killsOfGateways} times: nothing is lost, and nothing counted twice`, async t => {
  await spots.run(t, 'gateway SIGKILLed before it heard that Redis has its batch', killsOfGateways, async what => {
    let isOnItsWay = false
    const lost = await killWithBatch(t, what, async () => await gatewayToRedis.swallow('both', chunk => {
      if (!isOnItsWay) isOnItsWay = hasSums(chunk)
      else if (/\d{13}-\d+\r\n/.test(chunk.toString('latin1'))) return true // the entry's id
      return false
    }), { isTold: true })
    t.equal(lost, 0)
  })
})

const memoryUsed = async (): Promise<number> => Number(/^used_memory:(\d+)/m.exec(await store.info('memory'))?.[1])
const oldest = async (): Promise<string> => (await store.xrange('kg:usage:0', '-', '+', 'COUNT', 1))[0]?.[0] ?? ''
/** An entry in the stream that carries requests. */
const carrier = async (): Promise<string> => {
  const found = await until('a batch with requests lies there', async () => (await store.xrange('kg:usage:0', '-', '+')).find(([, fields]) => fields[1]?.includes('"keys":[{')), found => found !== undefined)
  return found?.[0] ?? ''
}

/** Batches that have been stored long ago, again: they count for nothing, and take room. */
async function addBallast (count: number, bytes: number): Promise<void> {
  const [boot] = await sql`SELECT boot_id, replica FROM usage_boots ORDER BY first_at LIMIT 1`
  const batch = { version: 1, bootId: boot?.['boot_id'], seq: 0, atMs: Date.now(), replica: boot?.['replica'], lines: [], incarnations: [], keys: [], rows: [] }
  const text = JSON.stringify(batch)
  const pipeline = store.pipeline()
  for (let i = 0; i < count; i++) pipeline.xadd('kg:usage:0', '*', 'batch', text + ' '.repeat(Math.max(0, bytes - text.length)))
  await pipeline.exec()
}

/** Requests that are logged until the stream's cap has taken some of them; nobody reads it. */
async function fillTheStream (t: Test, ballastBytes = 0): Promise<void> {
  let most = 0
  await sendMany(50, logged)
  const first = await carrier()
  if (ballastBytes > 0) await addBallast(32, ballastBytes / 32)
  do {
    await sendMany(50, logged)
    most = Math.max(most, await memoryUsed())
  } while (await oldest() <= first) // the ids are of the same length
  t.ok(most < maxmemory, `Redis took at most ${most} of ${maxmemory} bytes`)
  const taken = await until('it is within its cap', async () => Number(await store.memory('USAGE', 'kg:usage:0', 'SAMPLES', 0)), taken => taken < 1.25 * capBytes)
  t.comment(`the stream takes ${taken} bytes of ${capBytes}`)
}

t.test(`P6: the stream is trimmed by its cap while key-service is away, ${rounds} times: what is missed is told as lost, exactly`, async t => {
  await spots.run(t, 'stream trimmed by its cap', rounds, async what => {
    await warm()
    const { lost: before } = await balanced(t, `${what}, before`)
    process.kill(stack.keyService.pid, 'SIGSTOP') // as good as ended, and without a start
    try {
      await fillTheStream(t, capBytes)
    } finally {
      process.kill(stack.keyService.pid, 'SIGCONT')
    }
    const { lost } = await balanced(t, what)
    t.ok(lost > before, `${lost - before} lost`)
  })
})

t.test('B2-13: PostgreSQL away until the cap is full, and on: every request is decided, and Redis keeps its memory; back, it catches up and says how far', async t => {
  await warm()
  await balanced(t, 'before')
  await house.toPostgres.stop()
  await fillTheStream(t)
  const limited = got.limited
  for (let i = 0; i < 5; i++) await sendMany(100, i % 2 === 0 ? narrow : wide)
  t.strictSame(got.others, [], 'every answer is 200 or 429')
  t.equal(got.limited, limited + 300, 'limits are kept as ever')
  for (const gateway of [0, 1]) {
    t.equal(await house.metric(gateway, 'gateway_usage_dropped_total'), 0)
    t.equal(await house.metric(gateway, 'gateway_store_failures_total'), 0)
  }
  // Small ones, until there are so many that it is worth a word.
  await store.xtrim('kg:usage:0', 'MAXLEN', 200)
  await addBallast(1500, 0)
  await house.toPostgres.start()
  await balanced(t, 'back')
  await weighsEven(t)
  const said = await until('it says so', async () => stack.keyService.output(), output => output.includes('caught up with usage'))
  t.match(said, /usage cannot be stored; it waits in Redis/)
  t.match(said, /"batches":\d+,"of":\d+,"oldest":"[^"]+"[^\n]*catching up with usage/)
})

t.test(`P6: Redis is flushed while it is used, ${rounds} times: what was in it is lost and told as lost, and the balance says what it cannot weigh`, async t => {
  await spots.run(t, 'Redis flushed', rounds, async what => {
    const { lost: before } = await balanced(t, `${what}, before`)
    keyServiceToRedis.pause('up', chunk => chunk.includes('xreadgroup')) // so that something lies there
    const flood = sendMany(10 * burst, wide)
    await until('something waits that has ended', async () => await store.xrange('kg:usage:0', '-', '+'), entries => entries.some(([, fields]) => fields[1]?.includes('"keys":[{')))
    await store.flushall()
    keyServiceToRedis.resume()
    await flood
    await sendMany(2, wide) // what only a lost batch has told is told again with the next one
    const { lost } = await balanced(t, what)
    t.ok(lost > before, `${lost - before} lost`)
  })
  const { code, out } = await house.weighed()
  t.match({ code, out }, { code: 0, out: / left side incomplete\n# \d+ lines, 0 unbalanced/ }, 'usage balance')
})

t.test('P6: a gateway is ended by SIGTERM while it is used: nothing is lost', async t => {
  const { lost: before } = await balanced(t, 'before')
  const enough = house.arrived() + burst
  const flood = sendMany(10 * burst, wide, () => 1)
  await until('it is used', async () => house.arrived(), count => count >= enough)
  await stack.gateways[1]?.stop()
  await flood
  const { admitted, lost } = await balanced(t, 'ended')
  t.strictSame([lost, admitted + lost], [before, house.arrived() + got.left], 'all that reached the upstream')
})

t.test('what all of it came to', async t => {
  for (const line of spots.report()) t.comment(line)
})
