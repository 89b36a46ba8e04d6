import type { KeyRecord, UsageBatch, UsageOfKey, UsageRow } from '@keygate/contracts'
import { UsageBatch as Batch } from '@keygate/contracts'
import { StoreUnavailableError, hashAddress } from '@keygate/rate-limit'
import t from 'tap'
import { Compile } from 'typebox/compile'
import type { OperationTarget } from '../src/routing/target.ts'
import { addressHash } from '../src/usage/address-hash.ts'
import { bookedScope, loggedUntilMs, type Booking, type Ending } from '../src/usage/booking.ts'
import { clientNames } from '../src/usage/client-name.ts'
import { Fold, foldBounds } from '../src/usage/fold.ts'
import { Ledger } from '../src/usage/ledger.ts'
import { pack } from '../src/usage/pack.ts'
import { UsageRecorder } from '../src/usage/recorder.ts'

const minuteMs = 60_000
const hourMs = 3_600_000
const projectId = '5f0c7127-3be9-4488-b801-c7b6415b45e9'
const noon = Date.parse('2026-11-21T12:00:00Z')
const validBatch = Compile(Batch)

const alive = setInterval(() => {}, 60_000) // the recorder's own timer keeps no process
t.teardown(() => { clearInterval(alive) })

function recordOf (over: Partial<KeyRecord> = {}): KeyRecord {
  return {
    projectId,
    keyId: 'key_1',
    keyVersion: 1,
    projectVersion: 1,
    status: 'active',
    scopes: ['forms'],
    allowedForAll: false,
    allowedHosts: null,
    notAfterMs: null,
    policies: null,
    logging: { all: null, scopes: {} },
    secretId: 'sec_1',
    secretState: 'current',
    secretNotAfterMs: null,
    ...over
  }
}

function targetOf (id = 'getForm', scopes = ['forms']): OperationTarget {
  return { kind: 'operation', api: { name: 'forms' }, operation: { id, scopes, method: 'GET' } } as unknown as OperationTarget
}

const target = targetOf()
const line = { projectId, hour: noon / hourMs, admitted: 1, finished: 0, unanswered: 0 }
const booking = (over: Partial<Booking> = {}): Booking => ({ record: recordOf(), target, outcome: 'admitted', code: null, atMs: noon, line, ...over })
const ending = (over: Partial<Ending> = {}): Ending => ({ status: 200, ms: 5, bytes: 10, requestId: 'r', address: '192.0.2.1', client: 'curl/8', ...over })
const forever = recordOf({ logging: { all: 'forever', scopes: {} } })
const keysOf = (fold: Fold): UsageOfKey[] => [...fold.keys()]
const requestsOf = (keys: UsageOfKey[]): number => keys.flatMap(key => key.sums).reduce((sum, { admitted, limited, refused }) => sum + admitted + limited + refused, 0)

t.test('the scope that a request is booked under', async t => {
  const held = (scopes: string[], allowedForAll = false): { scopes: string[], allowedForAll: boolean } => ({ scopes, allowedForAll })
  t.equal(bookedScope(held(['b', 'a']), ['a', 'b']), 'a', 'the first of the operation\'s that the key holds')
  t.equal(bookedScope(held(['b']), ['a', 'b']), 'b')
  t.equal(bookedScope(held(['b'], true), ['a', 'b']), 'a', 'for all: the first at all')
  t.equal(bookedScope(held(['c']), ['a', 'b']), 'a', 'it holds none: the first')
  t.equal(bookedScope(held(['c']), []), '', 'an operation without scopes')
})

t.test('K22: until when requests are logged, also where key-service sends what is not known here', async t => {
  const until = '2026-11-21T12:00:00Z'
  t.equal(loggedUntilMs({ all: null, scopes: {} }, ['a']), -Infinity)
  t.equal(loggedUntilMs({ all: 'forever', scopes: {} }, []), Infinity)
  t.equal(loggedUntilMs({ all: until, scopes: {} }, ['a']), noon)
  t.equal(loggedUntilMs({ all: null, scopes: { a: until, b: 'forever' } }, ['a']), noon)
  t.equal(loggedUntilMs({ all: null, scopes: { a: until, b: 'forever' } }, ['a', 'b']), Infinity, 'the later of two')
  t.equal(loggedUntilMs({ all: until, scopes: { a: '2020-01-01T00:00:00Z' } }, ['a']), noon)
  t.equal(loggedUntilMs({ all: null, scopes: { a: 'forever' } }, ['toString', '__proto__', 'b']), -Infinity)
  for (const odd of [undefined, null, 'forever', 7, [], {}, { all: 7 }, { all: 'someday' }, { all: null, scopes: null }, { scopes: { a: {} } }]) t.equal(loggedUntilMs(odd, ['a']), -Infinity, JSON.stringify(odd))
})

t.test('K25: a client\'s name is the first product of its User-Agent, unless that may hold a secret', async t => {
  const nameOf = clientNames(text => text.includes('kg_'))
  t.equal(nameOf(undefined), '')
  t.equal(nameOf(''), '')
  t.equal(nameOf('curl/8.5.0'), 'curl/8.5.0')
  t.equal(nameOf('curl/8.5.0'), 'curl/8.5.0', 'remembered')
  t.equal(nameOf('Mozilla/5.0 (X11; Linux; someone@example.org) Gecko/1'), 'Mozilla/5.0', 'comments are left out')
  t.equal(nameOf('(compatible; x) curl/8'), '')
  t.equal(nameOf('"x"'), '')
  t.equal(nameOf('app/1 kg_canary'), '', 'a secret behind it')
  t.equal(nameOf('kg_canary/1'), '')
  t.equal(nameOf('a'.repeat(500)).length, 64)
  t.equal(nameOf('a'.repeat(8000)).length, 64, 'too long to be remembered')
  t.equal(clientNames(() => false)('kg_canary/1'), 'kg_canary/1', 'what one gateway remembers is not another\'s')
  for (let i = 0; i < 3000; i++) t.equal(nameOf(`c${i}/1`), `c${i}/1`) || t.bailout()
})

t.test('GX-33: a hashed address is the same for all gateways of a token, and nobody else finds it by trying all addresses', async t => {
  const [hash, again, other] = ['a-token-of-this-test', 'a-token-of-this-test', 'another-token-of-this-test'].map(addressHash) as [typeof hashAddress, typeof hashAddress, typeof hashAddress]
  t.match(hash('192.0.2.7'), /^[\w-]{22}$/)
  t.equal(again('192.0.2.7'), hash('192.0.2.7'))
  t.not(hash('192.0.2.8'), hash('192.0.2.7'))
  t.not(other('192.0.2.7'), hash('192.0.2.7'))
  t.not(hashAddress('192.0.2.7'), hash('192.0.2.7'), 'nor is it the name that limits have in Redis')
})

t.test('a fold sums up by key, operation, scope and minute', async t => {
  const fold = new Fold()
  t.ok(fold.isEmpty)
  const [record, renewed] = [recordOf(), recordOf()]
  fold.add(booking({ record }), ending())
  t.notOk(fold.isEmpty)
  fold.add(booking({ record: renewed }), ending({ status: 404 }))
  fold.add(booking({ record }), ending({ status: 502 }))
  fold.add(booking({ record }), ending({ status: 499 }))
  fold.add(booking({ record, line: null }), ending({ status: 504 }))
  fold.add(booking({ record, outcome: 'limited', code: 'limited', line: null }), ending({ status: 429 }))
  fold.add(booking({ record, outcome: 'refused', code: 'scope_missing', line: null }), ending({ status: 503 }))
  fold.add(booking({ record, atMs: noon + minuteMs - 1 }), ending())
  fold.add(booking({ record, atMs: noon + minuteMs }), ending())
  fold.add(booking({ record, target: targetOf('getForm') }), ending())
  fold.add(booking({ record, target: targetOf('other', ['files']) }), ending())
  const sum = { api: 'forms', operation: 'getForm', scope: 'forms', minute: noon / minuteMs, admitted: 7, limited: 1, refused: 1, upstreamErrors: 2, admittedLocally: 1 }
  const [key, ...others] = keysOf(fold)
  t.strictSame(others, [], 'one entry for a key, however often its record was looked up anew and the catalogue read')
  t.strictSame(key?.sums, [
    sum,
    { ...sum, minute: noon / minuteMs + 1, admitted: 1, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 },
    { ...sum, operation: 'other', scope: 'files', admitted: 1, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 }
  ])
  t.strictSame(key?.secrets, [{ secretId: 'sec_1', lastUsedMs: noon + minuteMs }])
  t.strictSame(key?.callers, [{ address: '192.0.2.1', client: 'curl/8', secretId: 'sec_1', lastSeenMs: noon + minuteMs, counts: [{ hour: noon / hourMs, count: 11 }] }])
  t.strictSame([fold.rows, fold.dropped], [[], { requests: 0, rows: 0 }])
})

t.test('a fold: names that PostgreSQL could not hold are cut, and told apart all the same', async t => {
  const fold = new Fold()
  const long = 'ab\u20ac'.repeat(2000)
  for (const id of [long, long, `${long}x`, 'half \ud800', 'nul \0', 'x'.repeat(399) + '\ud83d\ude00']) fold.add(booking({ record: forever, target: targetOf(id, [long]) }), ending())
  const sums = keysOf(fold)[0]?.sums ?? []
  t.strictSame(sums.map(({ admitted }) => admitted), [2, 1, 1, 1, 1])
  t.strictSame(sums.slice(2, 4).map(({ operation }) => operation), ['half \ufffd', 'nul \ufffd'])
  t.match(sums[0]?.operation, /^(ab\u20ac)+a?b?~[\w-]{12}$/)
  t.strictSame(fold.rows.map(({ operation }) => operation), [0, 0, 1, 2, 3, 4].map(i => sums[i]?.operation))
  for (const { api, operation, scope } of sums) {
    t.ok(Buffer.byteLength(api + operation + scope) < 2500 && operation.length <= 400 && scope.length <= 200)
    t.equal(Buffer.from(operation).toString(), operation, 'whole characters')
  }
})

t.test('a fold: a key that changes while it is summed up; two secrets; what was only refused used no secret', async t => {
  const fold = new Fold()
  fold.add(booking({ target: targetOf('both', ['a', 'b']), record: recordOf({ scopes: ['a'] }) }), ending())
  fold.add(booking({ target: targetOf('both', ['a', 'b']), record: recordOf({ scopes: ['b'], keyVersion: 2 }) }), ending())
  fold.add(booking({ record: recordOf({ secretId: 'sec_2' }) }), ending())
  fold.add(booking({ record: recordOf({ keyId: 'key_2', secretId: 'sec_3' }), outcome: 'refused', code: 'key_disabled', line: null }), ending({ status: 401 }))
  const [one, two] = keysOf(fold)
  t.strictSame(one?.sums.map(({ scope, admitted }) => [scope, admitted]), [['a', 1], ['b', 1], ['forms', 1]])
  t.strictSame(one?.secrets.map(({ secretId }) => secretId), ['sec_1', 'sec_2'])
  t.strictSame(one?.callers.map(({ secretId, counts }) => [secretId, counts[0]?.count]), [['sec_1', 2], ['sec_2', 1]], 'who still uses the old secret')
  t.match(two, { keyId: 'key_2', secrets: [], sums: [{ admitted: 0, refused: 1 }], callers: [{ secretId: 'sec_3' }] })
})

t.test('a fold: callers by address and client, and by hour; not more than fifty of a key, and not more than so many at all', async t => {
  const fold = new Fold({ ...foldBounds, callers: 60 })
  const record = recordOf()
  for (let i = 0; i < 70; i++) fold.add(booking({ record }), ending({ address: `192.0.2.${i}` }))
  fold.add(booking({ record }), ending({ address: '192.0.2.0' }))
  fold.add(booking({ record, atMs: noon + hourMs }), ending({ address: '192.0.2.1' }))
  fold.add(booking({ record, atMs: noon }), ending({ address: '192.0.2.1' }))
  fold.add(booking({ record }), ending({ address: '192.0.2.2', client: 'wget/1' }))
  for (let i = 0; i < 30; i++) fold.add(booking({ record: recordOf({ keyId: 'key_2' }) }), ending({ address: `192.0.2.${i}` }))
  const [one, two] = keysOf(fold)
  t.equal(one?.callers.length, 50)
  t.equal(two?.callers.length, 10)
  t.strictSame(one?.callers[0]?.counts, [{ hour: noon / hourMs, count: 2 }])
  t.match(one?.callers[1], { lastSeenMs: noon + hourMs, counts: [{ hour: noon / hourMs, count: 2 }, { hour: noon / hourMs + 1, count: 1 }] })
  t.equal(requestsOf(keysOf(fold)), 104, 'all requests are in the sums')

  const long = new Fold()
  for (let i = 0; i < 150; i++) long.add(booking({ record, atMs: noon + i * hourMs }), ending())
  t.equal(keysOf(long)[0]?.callers[0]?.counts.length, 100, 'no more hours than a batch may name')
  t.ok(validBatch.Check({ version: 1, bootId: 'b', seq: 0, atMs: noon, replica: '', lines: [], incarnations: [], keys: keysOf(long), rows: [] }))
})

t.test('a fold writes down the requests that are logged', async t => {
  const fold = new Fold()
  fold.add(booking({ record: recordOf() }), ending())
  fold.add(booking({ record: forever }), ending({ requestId: 'one', bytes: 7 }))
  fold.add(booking({ record: forever }), ending({ status: 502 }))
  fold.add(booking({ record: forever, outcome: 'limited', code: 'limited', line: null }), ending({ status: 429 }))
  fold.add(booking({ record: forever, outcome: 'refused', code: 'host_not_allowed', line: null }), ending({ status: 403 }))
  const until = recordOf({ logging: { all: null, scopes: { forms: new Date(noon).toISOString() } } })
  fold.add(booking({ record: until, atMs: noon - 1 }), ending({ requestId: 'last' }))
  fold.add(booking({ record: until, atMs: noon }), ending({ requestId: 'too late' }))
  fold.add(booking({ record: until, atMs: noon - 1, target: targetOf('other', ['files']) }), ending({ requestId: 'another scope' }))
  t.strictSame(fold.rows[0], {
    atMs: noon,
    requestId: 'one',
    projectId,
    keyId: 'key_1',
    secretId: 'sec_1',
    api: 'forms',
    operation: 'getForm',
    method: 'GET',
    scope: 'forms',
    outcome: 'admitted',
    code: null,
    status: 200,
    ms: 5,
    bytes: 7,
    address: '192.0.2.1',
    client: 'curl/8'
  }, 'and no field besides these')
  t.strictSame(fold.rows.map(({ outcome, code, requestId }) => [outcome, code, requestId]), [
    ['admitted', null, 'one'], ['upstream_error', null, 'r'], ['limited', 'limited', 'r'], ['refused', 'host_not_allowed', 'r'], ['admitted', null, 'last']
  ])
})

t.test('B2-13: a fold is bounded: rows go oldest first, then sums, and each request that goes is counted', async t => {
  const bounds = { sums: 100, rows: 100, callers: 1000, callersOfKey: 50 }
  const fold = new Fold(bounds)
  for (let i = 0; i < 555; i++) fold.add(booking({ record: forever, atMs: noon + i }), ending({ requestId: String(i) }))
  t.ok(fold.rows.length <= 100)
  t.equal(fold.rows.length + fold.dropped.rows, 555)
  t.equal(fold.rows.at(-1)?.requestId, '554')
  t.equal(fold.rows[0]?.requestId, String(fold.dropped.rows), 'the oldest went')
  t.equal(fold.dropped.requests, 0, 'their requests are in the sums')

  const hot = recordOf({ keyId: 'hot' })
  let sent = 0
  for (let minute = 0; minute < 50; minute++) {
    for (let i = 0; i < 20; i++, sent += 3) {
      fold.add(booking({ record: recordOf({ keyId: `key_${i % 10}` }), atMs: noon + (hourMs + minute * minuteMs), target: i < 10 ? target : targetOf('other') }), ending())
      fold.add(booking({ record: hot, atMs: noon + (hourMs + minute * minuteMs), target: targetOf(`op${i}`) }), ending())
      fold.add(booking({ record: hot, atMs: noon + hourMs, outcome: 'limited', line: null }), ending({ status: 429 }))
    }
  }
  const keys = keysOf(fold)
  t.ok(keys.flatMap(key => key.sums).length <= 100)
  t.ok(fold.dropped.requests > 0)
  t.equal(requestsOf(keys) + fold.dropped.requests, 555 + sent, 'exactly')
  t.notOk(keys.some(({ sums }) => sums.length === 0), 'no key of which nothing is left')
})

t.test('a fold: Redis away for hours, while one key is looked up anew all the time, is as large as its minutes', async t => {
  const fold = new Fold()
  for (let i = 0; i < 60 * 60; i++) fold.add(booking({ record: recordOf(), atMs: noon + i * 1000, line: null }), ending())
  const [key] = keysOf(fold)
  t.equal(key?.sums.length, 60)
  t.strictSame([key?.sums[7]?.admitted, key?.sums[7]?.admittedLocally, fold.dropped.requests], [60, 60, 0])
})

t.test('a ledger tells what changed, and tells it again 1, 2, 4, 8 ... minutes later, until 48 hours after its hour', async t => {
  const ledger = new Ledger()
  const hour = noon / hourMs
  const now = noon / minuteMs
  t.notOk(ledger.hasNews(now))
  const first = ledger.lineOf(projectId, hour)
  t.equal(ledger.lineOf(projectId, hour), first)
  first.admitted++
  ledger.changed(first)
  ledger.changed(first)
  t.ok(ledger.hasNews(now))
  t.strictSame(ledger.take(now), [{ projectId, hour, admitted: 1, finished: 0, unanswered: 0 }], 'once, and a snapshot')
  t.notOk(ledger.hasNews(now))
  t.strictSame(ledger.take(now), [])

  first.finished++
  ledger.changed(first)
  t.equal(ledger.take(now).length, 1)
  const told: number[] = []
  for (let minute = now; minute < now + 49 * 60 + 10; minute++) {
    if (!ledger.hasNews(minute)) continue
    t.strictSame(ledger.take(minute), [{ projectId, hour, admitted: 1, finished: 1, unanswered: 0 }])
    t.notOk(ledger.hasNews(minute), 'once')
    told.push(minute - now)
  }
  t.strictSame(told, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048])
  t.strictSame(ledger.takeAll(now + 50 * 60), [], 'forgotten')
  t.not(ledger.lineOf(projectId, hour), first)
})

t.test('a ledger: a change begins anew; minutes that nobody asked in are made up for once; what is under way is kept', async t => {
  const ledger = new Ledger()
  const hour = noon / hourMs
  const now = noon / minuteMs
  const line = ledger.lineOf(projectId, hour)
  line.admitted++
  ledger.changed(line)
  ledger.take(now)
  t.equal(ledger.take(now + 100).length, 1, 'one for those of 1, 2, 4 ... 64')
  t.notOk(ledger.hasNews(now + 127))
  t.ok(ledger.hasNews(now + 128))
  line.unanswered++
  ledger.changed(line)
  t.equal(ledger.take(now + 128).length, 1, 'what is due and has changed is told once')
  t.ok(ledger.hasNews(now + 129))
  ledger.take(now + 129)
  t.ok(ledger.hasNews(now + 130))
  const other = ledger.lineOf('another', hour + 70)
  ledger.changed(other)
  t.equal(ledger.take(now + 70 * 60).length, 2)
  t.equal(ledger.lineOf(projectId, hour), line, 'it has not finished, so it is not forgotten')
  line.finished++
  ledger.changed(line)
  t.strictSame(ledger.take(now + 70 * 60 + 1).map(({ finished }) => finished).sort(), [0, 1])
  t.strictSame(ledger.takeAll(now + 70 * 60 + 2).map(({ projectId }) => projectId), ['another'])
})

const head = { version: 1, bootId: 'boot', atMs: noon, replica: 'größe:1' } as const
const nothing = { lines: [], incarnations: [], keys: [], rows: [] }
/** As they are read: each one valid, the numbers without a hole. */
function packed (t: { ok: (value: unknown, message: string) => unknown, strictSame: (a: unknown, b: unknown, message: string) => unknown }, lists: Parameters<typeof pack>[0], maxBytes: number): UsageBatch[] {
  let seq = 5
  const texts = [...pack(lists, head, () => seq++, maxBytes)]
  const batches = texts.map(text => JSON.parse(text) as UsageBatch)
  t.strictSame(batches.map(batch => batch.seq), texts.map((_, i) => 5 + i), 'consecutive')
  t.ok(batches.every(batch => validBatch.Check(batch)), 'each is a batch')
  t.ok(texts.every(text => Buffer.byteLength(text) <= maxBytes), `none is longer than ${maxBytes} bytes: ${Math.max(...texts.map(text => Buffer.byteLength(text)))}`)
  return batches
}

t.test('pack: one batch, also of nothing; several of what is too long for one, the lines first', async t => {
  t.strictSame(packed(t, nothing, 1000), [{ ...head, seq: 5, ...nothing }])
  const lines = Array.from({ length: 30 }, (_, i) => ({ projectId, hour: i, admitted: i, finished: 0, unanswered: 0 }))
  const rows: UsageRow[] = Array.from({ length: 50 }, (_, i) => ({ atMs: noon, requestId: String(i), projectId, keyId: 'k', secretId: 's', api: 'ü'.repeat(100), operation: 'o', method: 'GET', scope: '', outcome: 'admitted', code: null, status: 200, ms: 1, bytes: 0, address: 'a', client: '' }))
  const incarnations = [{ projectId, incarnation: 'i', minute: 1 }]
  const batches = packed(t, { lines, incarnations, keys: [], rows }, 3000)
  t.ok(batches.length > 5)
  t.strictSame(batches.flatMap(batch => batch.lines), lines)
  t.strictSame(batches.flatMap(batch => batch.incarnations), incarnations)
  t.strictSame(batches.flatMap(batch => batch.rows), rows, 'all, in their order')
  const lastLine = batches.findLastIndex(batch => batch.lines.length > 0)
  t.ok(batches.findIndex(batch => batch.rows.length > 0) >= lastLine)
})

t.test('pack: a key with very many sums and callers, and long names, comes in several batches, each of which is one', async t => {
  const sums = Array.from({ length: 2000 }, (_, i) => ({ api: 'a', operation: `GET /${'ö'.repeat(i % 300)}/${i}`, scope: '', minute: 1, admitted: i, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 }))
  const callers = Array.from({ length: 50 }, (_, i) => ({ address: `192.0.2.${i}`, client: 'c', secretId: 's', lastSeenMs: noon, counts: Array.from({ length: 100 }, (_, hour) => ({ hour, count: 1 })) }))
  const secrets = [{ secretId: 's', lastUsedMs: noon }]
  const keys = [{ projectId, keyId: 'small', secrets, sums: sums.slice(0, 1), callers: [] }, { projectId, keyId: 'huge', secrets, sums, callers }, { projectId, keyId: 'last', secrets: [], sums: sums.slice(0, 2), callers: [] }]
  const batches = packed(t, { ...nothing, keys }, 256 * 1024)
  t.ok(batches.length >= 3)
  for (const { keyId, ...key } of keys) {
    const pieces = batches.flatMap(batch => batch.keys).filter(piece => piece.keyId === keyId)
    t.strictSame(pieces.flatMap(piece => piece.sums), key.sums)
    t.strictSame(pieces.flatMap(piece => piece.callers), key.callers)
    t.strictSame(pieces.flatMap(piece => piece.secrets), key.secrets)
  }
  const lazily = pack({ ...nothing, keys: (function * () { yield * keys; throw new Error('nobody asked for so much') })() }, head, () => 0, 64 * 1024)
  t.type(lazily.next().value, 'string', 'one at a time: the rest is written down when it is asked for')
})

/** A stream that takes what it is told to, and a recorder before it; batches are sent by hand. */
function recorderOf ({ bounds = foldBounds } = {}): { recorder: UsageRecorder, taken: UsageBatch[], sent: string[], store: { takes: boolean, answers: boolean }, logged: string[], clock: { ms: number }, sentOne: () => Promise<void> } {
  const [taken, sent, logged] = [[] as UsageBatch[], [] as string[], [] as string[]]
  const store = { takes: true, answers: true }
  const clock = { ms: noon }
  let waiting: Array<() => void> = []
  const log = (...line: unknown[]): void => { logged.push(String(line.at(-1))) }
  const recorder = new UsageRecorder({
    bootId: 'boot',
    nowMs: () => clock.ms,
    flushMs: 1,
    bounds,
    log: { error: log, warn: log, info: log } as never,
    stream: {
      append: async batch => {
        sent.push(batch)
        if (store.takes) taken.push(JSON.parse(batch) as UsageBatch)
        for (const told of waiting.splice(0)) setImmediate(told)
        if (!store.takes || !store.answers) throw new StoreUnavailableError('no reply')
      }
    }
  })
  return { recorder, taken, sent, store, logged, clock, sentOne: async () => { await new Promise<void>(resolve => { waiting = [...waiting, resolve] }) } }
}

t.test('the recorder: seq 0 is a hello; what is finished is what the batches carry; the last word is every line', async t => {
  const { recorder, taken } = recorderOf()
  recorder.start('host:1')
  await recorder.stop()
  t.match(taken[0], { version: 1, bootId: 'boot', seq: 0, replica: 'host:1', lines: [], keys: [], rows: [] })

  const busy = recorderOf()
  busy.recorder.start('host:1')
  const [a, b] = [busy.recorder.admitted({ projectId }, noon), busy.recorder.admitted({ projectId }, noon)]
  busy.recorder.unanswered({ projectId })
  busy.recorder.sawIncarnation(projectId, 'memory')
  busy.recorder.sawIncarnation(projectId, 'memory')
  busy.recorder.ended(booking({ line: a }), () => ending())
  await busy.sentOne()
  busy.recorder.ended(booking({ line: b }), () => ending())
  busy.recorder.ended(booking({ line: null }), () => ending())
  await busy.recorder.stop()
  let [finished, carried] = [0, 0]
  for (const batch of busy.taken) {
    for (const { sums } of batch.keys) for (const { admitted, admittedLocally } of sums) carried += admitted - admittedLocally
    for (const line of batch.lines) finished = Math.max(finished, line.finished)
    t.equal(finished, carried, `batch ${batch.seq}`)
  }
  t.strictSame(busy.taken.map(({ seq }) => seq), busy.taken.map((_, i) => i))
  t.strictSame(busy.taken.at(-1)?.lines, [{ projectId, hour: noon / hourMs, admitted: 2, finished: 2, unanswered: 1 }])
  t.strictSame(busy.taken.flatMap(({ incarnations }) => incarnations), [{ projectId, incarnation: 'memory', minute: noon / minuteMs }])
  const sentBefore = busy.taken.length
  busy.recorder.ended(booking({ line: b }), () => ending())
  t.equal(busy.taken.length, sentBefore)
  const never = recorderOf()
  await never.recorder.stop()
  t.strictSame(never.sent, [], 'one that was never started says nothing')
})

t.test('the recorder: an idle gateway tells its lines again', async t => {
  const { recorder, taken, clock, sentOne } = recorderOf()
  recorder.start('host:1')
  recorder.ended(booking({ line: recorder.admitted({ projectId }, noon) }), () => ending())
  while (!taken.some(({ lines }) => lines[0]?.finished === 1)) await sentOne()
  const before = taken.length
  clock.ms += minuteMs
  await sentOne()
  t.match(taken[before], { lines: [{ admitted: 1, finished: 1 }], keys: [] })
  await recorder.stop()
})

t.test('the recorder: what was not confirmed is sent again as it was; meanwhile the rest is one fold', async t => {
  const { recorder, taken, sent, store, logged, sentOne } = recorderOf()
  recorder.start('host:1')
  store.answers = false // it takes them and does not say so
  const record = recordOf()
  recorder.ended(booking({ record, line: null }), () => ending())
  await sentOne()
  const again = sent.at(-1)
  for (let i = 0; i < 1000; i++) recorder.ended(booking({ record, line: null }), () => ending())
  await sentOne()
  await sentOne()
  t.strictSame([sent.at(-1), sent.at(-2)], [again, again], 'unchanged, with its number')
  store.answers = true
  await sentOne()
  await sentOne()
  await recorder.stop()
  const once = new Map(taken.map(batch => [batch.seq, batch]))
  t.ok(taken.length > once.size)
  t.equal(requestsOf([...once.values()].flatMap(batch => batch.keys)), 1001)
  t.ok(once.size <= 5, 'a thousand requests are one batch')
  t.strictSame([...once.keys()], [...once.keys()].map((_, i) => i))
  t.strictSame(logged, ['Redis does not take usage; it is kept and sent later', 'Redis takes usage again'], 'told once each')
})

t.test('the recorder: a fault while something is written down fails nobody, is counted and told once', async t => {
  const { recorder, taken, logged } = recorderOf()
  recorder.start('host:1')
  const first = recorder.admitted({ projectId }, noon)
  recorder.ended(booking({ line: first }), () => { throw new Error('no such header') })
  recorder.ended(booking({ line: null, record: recordOf({ logging: 7 as never, scopes: null as never }) }), () => ending())
  recorder.ended(booking({ line: null }), () => ending())
  t.strictSame(recorder.dropped, { requests: 2, rows: 0 })
  await recorder.stop()
  t.equal(requestsOf(taken.flatMap(batch => batch.keys)), 1)
  t.strictSame(taken.at(-1)?.lines.map(({ finished }) => finished), [1], 'it has ended all the same')
  t.equal(logged.length, 1)
})

t.test('the recorder: what does not fit while nothing is taken is counted, exactly; what cannot be sent at the end is told', async t => {
  const { recorder, taken, store, sentOne } = recorderOf({ bounds: { sums: 50, rows: 10, callers: 100, callersOfKey: 5 } })
  recorder.start('host:1')
  store.takes = false
  for (let i = 0; i < 3000; i++) recorder.ended(booking({ record: recordOf({ keyId: `key_${i}`, logging: { all: 'forever', scopes: {} } }), line: null }), () => ending())
  await sentOne()
  for (let i = 0; i < 3000; i++) recorder.ended(booking({ record: recordOf({ keyId: `key_${i}` }), line: null }), () => ending())
  store.takes = true
  await sentOne()
  await sentOne()
  await recorder.stop()
  const once = [...new Map(taken.map(batch => [batch.seq, batch])).values()]
  t.ok(recorder.dropped.requests > 5000)
  t.equal(requestsOf(once.flatMap(batch => batch.keys)) + recorder.dropped.requests, 6000)
  t.equal(once.flatMap(batch => batch.rows).length + recorder.dropped.rows, 3000)

  const away = recorderOf()
  away.store.takes = false
  away.recorder.start('host:1')
  await away.recorder.stop()
  t.match(away.logged.at(-1), /lost/)
})
