import type { ChangesPage } from '@keygate/contracts'
import { examples, type KeyRecord } from '@keygate/contracts'
import t from 'tap'
import { isConfirmed } from '../src/admission/admit-alone.ts'
import type { Entry } from '../src/admission/records.ts'
import { ChangeFeed } from '../src/key-service/change-feed.ts'

/** A feed whose polls the test answers, on a clock of its own. */
const setUp = (oldest?: string) => {
  const polls: { after: string | undefined, answer: (page: ChangesPage | 'gone') => void, fail: () => void }[] = []
  let now = 10_000
  let forgotten = 0
  const feed = new ChangeFeed({
    fetch: async after => await new Promise((resolve, reject) => { polls.push({ after, answer: resolve, fail: () => { reject(new Error('away')) } }) }),
    oldestCursor: () => oldest,
    onGone: () => { forgotten++ },
    everyMs: 0,
    lingerMs: 1000,
    nowMs: () => now
  })
  t.teardown(() => { feed.stop() })
  const next = async (count: number): Promise<void> => { while (polls.length < count) await new Promise(resolve => { setImmediate(resolve) }) }
  return { feed, polls, next, pass: (ms: number) => { now += ms }, now: () => now, forgotten: () => forgotten }
}
const record = (keyVersion: number): KeyRecord => ({ ...examples.found.record as KeyRecord, keyVersion, projectVersion: 1 })
const page = (cursor: string, ...versions: number[]): ChangesPage => ({ cursor, data: versions.map(version => ({ projectId: record(1).projectId, keyId: record(1).keyId, version })) })
const entry = (of: Partial<Entry>): Entry => ({ digest: 'd', record: record(1), generation: 1, begunAt: 1, begunMs: 10_000, confirmedMs: 10_000, cursor: '100', ...of })

t.test('a feed begins at the oldest record held and goes on from each answer', async t => {
  const { feed, polls, next } = setUp('90')
  feed.keepAlive()
  await next(1)
  t.equal(polls[0]?.after, '90')
  t.notOk(feed.covers('100'), 'nothing is covered before the first answer')
  polls[0]?.answer(page('110'))
  await next(2)
  t.equal(polls[1]?.after, '110')
  t.ok(feed.covers('90') && feed.covers('100'))
  t.notOk(feed.covers('89'), 'what was read before the feed began may have changed unheard')
})

t.test('a record below a version that was told may not be used, nor one of a project that has changed', async t => {
  const { feed, polls, next } = setUp('90')
  feed.keepAlive()
  await next(1)
  polls[0]?.answer({ cursor: '110', data: [...page('', 2).data, { projectId: record(1).projectId, keyId: '*', version: 1 }] })
  await next(2)
  t.ok(feed.isBehind(record(1)))
  t.notOk(feed.isBehind(record(2)))
  polls[1]?.answer({ cursor: '120', data: [{ projectId: record(1).projectId, keyId: '*', version: 2 }] })
  await next(3)
  t.ok(feed.isBehind(record(2)))
  polls[2]?.answer(page('130', 1))
  await next(4)
  t.ok(feed.isBehind(record(1)), 'a row that comes late lowers nothing')
})

t.test('a confirmation counts from when it began, less than the bound', async t => {
  const { feed, polls, next, pass, now } = setUp('90')
  t.ok(isConfirmed(entry({}), feed, 1000, 10_999))
  t.notOk(isConfirmed(entry({}), feed, 1000, 11_000))
  pass(5000)
  feed.keepAlive()
  await next(1)
  pass(800) // the answer takes its time
  t.notOk(isConfirmed(entry({}), feed, 1000, now()))
  polls[0]?.answer(page('110'))
  await next(2)
  t.equal(feed.polledMs, 15_000)
  t.ok(isConfirmed(entry({}), feed, 1000, 15_999), 'by the poll, from its beginning')
  t.notOk(isConfirmed(entry({}), feed, 1000, 16_000))
  t.notOk(isConfirmed(entry({ begunMs: 15_001, confirmedMs: 15_001 }), feed, 1000, 16_001), 'a poll confirms only what was looked up before it')
  t.notOk(isConfirmed(entry({ cursor: '89', confirmedMs: 15_900 }), feed, 1000, 15_950), 'a look-up from before the feed\'s beginning is no confirmation')
  t.notOk(isConfirmed(entry({ confirmedMs: 15_900 }), { ...view(feed), isBehind: () => true }, 300_000, 15_950), 'nothing confirms a record that was overtaken')
})

t.test('a cursor that is no longer kept: everything held is forgotten, and the feed begins anew', async t => {
  const { feed, polls, next, forgotten } = setUp('90')
  feed.keepAlive()
  await next(1)
  polls[0]?.answer('gone')
  await next(2)
  t.equal(forgotten(), 1)
  t.equal(polls[1]?.after, undefined)
  polls[1]?.answer(page('500'))
  await next(3)
  t.ok(feed.covers('500'))
  t.notOk(feed.covers('499'))
})

t.test('a poll that fails changes nothing; the feed ends when nobody needs it', async t => {
  const { feed, polls, next, pass } = setUp('90')
  feed.keepAlive()
  await next(1)
  polls[0]?.fail()
  await next(2)
  t.equal(polls[1]?.after, '90')
  t.notOk(feed.hasAnswered)
  pass(1000)
  polls[1]?.answer(page('110'))
  for (let turns = 0; turns < 20; turns++) await new Promise(resolve => { setImmediate(resolve) })
  t.equal(polls.length, 2, 'no third poll')
  feed.keepAlive()
  await next(3)
  t.notOk(feed.hasAnswered, 'and another beginning knows nothing of the first')
})

function view (feed: ChangeFeed): Pick<ChangeFeed, 'covers' | 'isBehind' | 'polledMs' | 'hasAnswered'> {
  return { covers: cursor => feed.covers(cursor), isBehind: of => feed.isBehind(of), polledMs: feed.polledMs, hasAnswered: feed.hasAnswered }
}
