import { examples, type KeyRecord, type VerificationOutcome } from '@keygate/contracts'
import t from 'tap'
import { Records, type RecordsOptions } from '../src/admission/records.ts'
import { KeyServiceUnavailableError } from '../src/key-service/client.ts'

/** Look-ups that the test answers when it likes: what matters here is only their order. */
const setUp = (options: Partial<RecordsOptions> = {}) => {
  const asked: { digest: string, answer: (outcome: VerificationOutcome) => void, fail: () => void }[] = []
  const connection = { generation: 1 }
  let nowMs = 0
  const records = new Records({
    keyService: {
      verify: async digest => await new Promise((resolve, reject) => {
        asked.push({ digest, answer: resolve, fail: () => { reject(new KeyServiceUnavailableError('test')) } })
      })
    },
    connection,
    recordTtlMs: 60_000,
    nowMs: () => nowMs,
    ...options
  })
  return { records, asked, connection, pass: (ms: number) => { nowMs += ms } }
}
/** The next turn of the event loop: everything that can begin has begun. */
const turn = async (): Promise<void> => { await new Promise(resolve => { setImmediate(resolve) }) }
const until = async (holds: () => boolean): Promise<void> => {
  for (let turns = 0; !holds(); turns++) {
    if (turns > 10_000) throw new Error(`waited in vain until ${holds.toString()}`)
    await turn()
  }
}
const found = (keyVersion: number): VerificationOutcome => ({ outcome: 'found', cursor: '1', record: { ...examples.found.record as KeyRecord, keyVersion } })
const unknown: VerificationOutcome = { outcome: 'unknown', cursor: '1' }
const version = (result: Awaited<ReturnType<Records['find']>>): number | string => result.outcome === 'found' ? result.entry.record.keyVersion : result.outcome

t.test('one look-up serves all who ask at once, and those who come later', async t => {
  const { records, asked } = setUp()
  const all = Promise.all([1, 2, 3].map(async () => await records.find('d', records.moment())))
  await until(() => asked.length > 0)
  asked[0]?.answer(found(1))
  t.strictSame((await all).map(version), [1, 1, 1])
  t.equal(version(await records.find('d', records.moment())), 1)
  t.equal(asked.length, 1)
})

t.test('"unknown" answers only requests that came before its look-up began', async t => {
  const { records, asked } = setUp()
  const before = records.find('d', records.moment())
  const during = records.find('d', records.moment()) // the key may be created between the read and this arrival
  await until(() => asked.length > 0)
  asked[0]?.answer(unknown)
  t.equal(version(await before), 'unknown')
  await until(() => asked.length === 2)
  t.equal(asked.length, 2, 'asked again for the one who came later')
  await until(() => asked.length > 1)
  asked[1]?.answer(found(1))
  t.equal(version(await during), 1)
})

t.test('"unknown" is not remembered', async t => {
  const { records, asked } = setUp()
  const first = records.find('d', records.moment())
  await until(() => asked.length > 0)
  asked[0]?.answer(unknown)
  await first
  const second = records.find('d', records.moment())
  await until(() => asked.length > 1)
  asked[1]?.answer(found(1))
  t.equal(version(await second), 1)
})

t.test('a request answered stale joins only a look-up begun after that answer, and takes its fence', async t => {
  const { records, asked } = setUp({ queueMs: 0 })
  const slow = records.find('d', records.moment()) // read PostgreSQL before the change, still on its way
  await turn()
  const stale = records.findAfterStale('d', records.moment(), 'memory-2')
  const sameTurn = records.findAfterStale('d', records.moment(), 'memory-3')
  await until(() => asked.length === 2)
  t.equal(asked.length, 2, 'the older look-up is not joined; one new look-up serves both')
  const later = records.findAfterStale('d', records.moment(), 'memory-4')
  await until(() => asked.length === 3)
  t.equal(asked.length, 3, 'a look-up begun before its answer is not joined')
  await until(() => asked.length > 0)
  asked[0]?.answer(found(1))
  await until(() => asked.length > 1)
  asked[1]?.answer(found(2))
  await until(() => asked.length > 2)
  asked[2]?.answer(found(2))
  t.match(await stale, { fence: 'memory-2' })
  t.match(await sameTurn, { fence: 'memory-2' }, 'the fence of the look-up, not of the request')
  t.match(await later, { fence: 'memory-4' })
  t.notOk('fence' in await slow)
  t.equal(version(await records.find('d', records.moment())), 2, 'the older look-up does not stay')
})

t.test('many who are answered stale while a look-up runs cost one more, begun when it has ended', async t => {
  const { records, asked } = setUp({ queueMs: 60_000 })
  const first = records.find('d', records.moment())
  await turn()
  const all = []
  for (let i = 0; i < 20; i++) {
    all.push(records.findAfterStale('d', records.moment(), 'memory'))
    await turn()
  }
  t.equal(asked.length, 1)
  await until(() => asked.length > 0)
  asked[0]?.answer(found(1))
  await first
  await until(() => asked.length === 2)
  await until(() => asked.length > 1)
  asked[1]?.answer(found(2))
  t.strictSame((await Promise.all(all)).map(version), Array(20).fill(2))
  t.equal(asked.length, 2)
})

t.test('an older look-up that ends last does not replace a newer record', async t => {
  const { records, asked } = setUp({ queueMs: 0 })
  const older = records.find('d', records.moment())
  await turn()
  const newer = records.findAfterStale('d', records.moment(), 'memory')
  await until(() => asked.length === 2)
  await until(() => asked.length > 1)
  asked[1]?.answer(found(2))
  await newer
  await until(() => asked.length > 0)
  asked[0]?.answer(found(1))
  await older
  t.equal(version(await records.find('d', records.moment())), 2)
})

t.test('a record of another generation of the connection is asked again before use', async t => {
  const { records, asked, connection } = setUp()
  const first = records.find('d', records.moment())
  await turn()
  connection.generation = 2 // reconnected while the look-up ran
  await until(() => asked.length > 0)
  asked[0]?.answer(found(1))
  const entry = await first
  t.match(entry, { entry: { generation: 1 } }, 'stamped with the generation at its beginning')
  const second = records.find('d', records.moment())
  await until(() => asked.length > 1)
  asked[1]?.answer(found(1))
  t.match(await second, { entry: { generation: 2 } })
})

t.test('after its time a record is asked again; while key-service is away it goes on, asked about once a second', async t => {
  const { records, asked, pass } = setUp()
  const first = records.find('d', records.moment())
  await until(() => asked.length > 0)
  asked[0]?.answer(found(1))
  await first
  pass(60_000)
  const refused = records.find('d', records.moment())
  await until(() => asked.length > 1)
  asked[1]?.fail()
  t.equal(version(await refused), 1)
  pass(999)
  t.equal(version(await records.find('d', records.moment())), 1)
  t.equal(asked.length, 2, 'not per request')
  pass(1)
  const again = records.find('d', records.moment())
  await until(() => asked.length > 2)
  asked[2]?.answer(found(2))
  t.equal(version(await again), 2)
})

t.test('key-service silent: of many old records one is asked a second, and nobody waits for the dead-line', async t => {
  const { records, asked, pass } = setUp({ patienceMs: 1 })
  const digests = Array.from({ length: 20 }, (_, i) => `d${i}`)
  for (const digest of digests) {
    const first = records.find(digest, records.moment())
    await until(() => asked.at(-1)?.digest === digest)
    asked.at(-1)?.answer(found(1))
    await first
  }
  pass(60_000)
  t.equal(version(await records.find('d0', records.moment())), 1, 'goes on after a little patience')
  t.equal(asked.length, 21)
  for (const digest of digests) t.equal(version(await records.find(digest, records.moment())), 1)
  t.equal(asked.length, 21, 'the others do not ask at all')
  asked[20]?.fail()
  await turn()
  pass(1000)
  await Promise.all(digests.map(async digest => await records.find(digest, records.moment())))
  t.equal(asked.length, 22, 'one tries')
  pass(1000)
  await Promise.all(digests.map(async digest => await records.find(digest, records.moment())))
  t.equal(asked.length, 22, 'and while it is on its way no other')
  asked[21]?.answer(found(2))
  await turn()
  const fresh = records.find('d5', records.moment())
  await until(() => asked.length === 23)
  asked[22]?.answer(found(2))
  await fresh // the old one, if this machine took longer than the patience of a millisecond
  await turn()
  t.equal(version(await records.find('d5', records.moment())), 2, 'it answers again: all is as before')
  t.equal(asked.length, 23)
})

t.test('a record that is not there cannot go on: the failure is told', async t => {
  const { records, asked } = setUp()
  const first = records.find('d', records.moment())
  await until(() => asked.length > 0)
  asked[0]?.fail()
  await t.rejects(first, KeyServiceUnavailableError)
})

t.test('the number of records is bounded', async t => {
  const { records, asked } = setUp({ capacity: 2 })
  for (const digest of ['a', 'b', 'c']) {
    const result = records.find(digest, records.moment())
    await until(() => asked.at(-1)?.digest === digest)
    asked.at(-1)?.answer(found(1))
    await result
  }
  const again = records.find('a', records.moment())
  await until(() => asked.length > 3)
  t.equal(asked.length, 4, 'the oldest was forgotten')
  asked[3]?.answer(found(1))
  await again
  await records.find('c', records.moment())
  t.equal(asked.length, 4, 'the youngest was not')
})
