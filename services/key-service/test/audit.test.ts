import { fork } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, type Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { generateId, generateSecret } from '@keygate/api-key'
import { sql as raw } from 'drizzle-orm'
import fc from 'fast-check'
import postgres from 'postgres'
import { test, type Test } from 'tap'
import { permissions } from '../src/access/permissions.ts'
import { recordAlone, recordAudit, type AuditEntry, type ChangeContext } from '../src/audit/audit-log.ts'
import { canonical, hashOf, type ChainedEvent, type End } from '../src/audit/chain.ts'
import { describe } from '../src/audit/check.ts'
import { eventsOf } from '../src/audit/queries.ts'
import { storable } from '../src/audit/storable.ts'
import { verifyChain } from '../src/audit/verify.ts'
import { auditVerify } from '../src/cli/audit-verify.ts'
import { runCommandLine } from '../src/cli/run.ts'
import { openDatabase, type Database } from '../src/db/database.ts'
import { migrate } from '../src/db/migrate.ts'
import { beginSession } from '../src/people/sessions.ts'
import { boundProject, configFor, redisIsReady, startApp, startHouse, tokensFile, type House, type Sql } from './helper.ts'
import { newPerson, ownPage, password, type Person } from './people-helper.ts'
import { routesOf } from './routes-of.ts'

const context: ChangeContext = { actor: { type: 'host', id: 'command-line', name: 'command-line' }, requestId: 'req-1' }
const entryOf = (projectId: string | null, details: Record<string, unknown> = {}): AuditEntry => ({ action: 'test.event', projectId, keyId: null, details })

const event: ChainedEvent = {
  chain: 'installation',
  seq: 2,
  at: '2026-11-20T10:00:00.000Z',
  projectId: null,
  keyId: null,
  actor: { type: 'person', id: 'usr_1', name: 'Zoë "Z"' },
  action: 'test.event',
  requestId: 'req-1',
  details: { b: [1, { d: null, c: 1e21 }], a: '\u2028\u0001', 10: true, 9: 0.1 }
}

test('an event has one canonical text and one hash', t => {
  const expected = '{"action":"test.event","actor":{"id":"usr_1","name":"Zoë \\"Z\\"","type":"person"},"at":"2026-11-20T10:00:00.000Z","chain":"installation",' +
    '"details":{"10":true,"9":0.1,"a":"\u2028\\u0001","b":[1,{"c":1e+21,"d":null}]},"keyId":null,"projectId":null,"requestId":"req-1","seq":2}'
  t.equal(canonical(event), expected, 'RFC 8785')
  t.equal(hashOf('before', event), createHash('sha256').update(`before\n${expected}`).digest('base64url'))
  t.equal(canonical({ ...event, id: 7, hash: 'x' } as ChainedEvent), expected, 'exactly the members of the event')
  const others: ChainedEvent[] = [
    { ...event, chain: 'x' }, { ...event, seq: 3 }, { ...event, at: '2026-11-20T10:00:00.001Z' }, { ...event, projectId: boundProject }, { ...event, keyId: 'k' },
    { ...event, actor: { ...event.actor, type: 'host' } }, { ...event, actor: { ...event.actor, id: 'x' } }, { ...event, actor: { ...event.actor, name: 'x' } },
    { ...event, action: 'x' }, { ...event, requestId: 'x' }, { ...event, details: {} }
  ]
  t.equal(new Set([event, ...others].map(other => hashOf('before', other))).size, 12, 'every member counts')
  t.not(hashOf('after', event), hashOf('before', event))
  t.end()
})

test('what cannot be stored is replaced, all else stays as it is', t => {
  t.strictSame(storable({ 'a\0': '\ud800x\udfff\0', ok: '😀 \\u0000 \\ud800 \n\u0001"', none: undefined, at: new Date(0), list: [undefined] }), {
    'a\ufffd': '\ufffdx\ufffd\ufffd', ok: '😀 \\u0000 \\ud800 \n\u0001"', at: '1970-01-01T00:00:00.000Z', list: [null]
  })
  fc.assert(fc.property(fc.jsonValue(), value => { t.strictSame(storable(value), JSON.parse(JSON.stringify(value))) }), { numRuns: 50 })
  t.end()
})

test('the chain of audit events', async t => {
  const house = await startHouse(t)
  const { database, sql } = await openEmpty(t, house)
  const record = async (entry: AuditEntry): Promise<void> => { await database.transaction(async tx => { await recordAudit(tx, context, entry) }) }
  const seqsOf = async (chain: string): Promise<number[]> => (await sql<Array<{ seq: string }>>`SELECT seq FROM audit_events WHERE chain = ${chain} ORDER BY id`).map(({ seq }) => Number(seq))
  const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1)
  /** Twelve events in a chain of their own. */
  const newChain = async (length = 12): Promise<string> => {
    const projectId = randomUUID()
    await database.transaction(async tx => { for (let i = 1; i <= length; i++) await recordAudit(tx, context, entryOf(projectId, { i })) })
    return projectId
  }
  const headOf = async (chain: string): Promise<End> => (await verifyChain(database, chain)).end

  await t.test('whatever the details are, the chain holds', async t => {
    const projectId = randomUUID()
    const odd = fc.dictionary(fc.string({ unit: 'binary' }), fc.oneof(fc.string({ unit: 'binary' }), fc.jsonValue(), fc.double(), fc.bigInt({ min: -9007199254740991n, max: 9007199254740991n }).map(Number), fc.constantFrom('\0', '\ud83d', undefined, 5e-324, -0, 1.7976931348623157e308)))
    const samples = [...fc.sample(odd, 100), JSON.parse('{"__proto__":{"a":1}}') as Record<string, unknown>]
    for (const details of samples) await record({ ...entryOf(projectId, details), keyId: 'a\0\ud800' })
    t.match(await verifyChain(database, projectId), { end: { seq: samples.length }, broken: undefined })
  })

  await t.test('twenty first events of one chain at once: numbers without gaps, times that never go back', async t => {
    const projectId = randomUUID()
    await Promise.all(upTo(20).map(async () => { await record(entryOf(projectId.toUpperCase())) }))
    t.same(await seqsOf(projectId), upTo(20))
    t.equal((await verifyChain(database, projectId)).broken, undefined)
    t.same(await sql`SELECT 1 FROM (SELECT at < lag(at) OVER (ORDER BY seq) AS back FROM audit_events WHERE chain = ${projectId}) times WHERE back`, [])
  })

  await t.test('a change that fails leaves no event and no gap', async t => {
    const projectId = randomUUID()
    const outcomes = await Promise.allSettled(upTo(20).map(async i => await database.transaction(async tx => {
      await recordAudit(tx, context, entryOf(projectId, { i }))
      if (i % 2 === 0) throw new Error('no')
    })))
    t.equal(outcomes.filter(({ status }) => status === 'rejected').length, 10)
    t.same(await seqsOf(projectId), upTo(10))
    t.equal((await verifyChain(database, projectId)).broken, undefined)
    t.same(await sql`SELECT 1 FROM audit_events WHERE chain = ${projectId} AND (details->>'i')::int % 2 = 0`, [])
  })

  await t.test('at most two statements per event', async t => {
    let statements = 0
    await database.transaction(async tx => {
      const counting = new Proxy(tx, { get: (target, name) => { if (name === 'execute') statements++; return Reflect.get(target, name) as unknown } })
      await recordAudit(counting, context, entryOf(null))
    })
    t.equal(statements, 2)
  })

  await t.test('an event by itself; a project that never was gets no chain', async t => {
    const projectId = randomUUID()
    const nobody: ChangeContext = { actor: { type: 'nobody', id: 'x@example.org', name: 'x@example.org' }, requestId: 'req-2' }
    await recordAlone(database, nobody, { action: 'sign-in.failed', projectId: null, keyId: null, details: {} })
    await recordAlone(database, nobody, { action: 'permission.refused', projectId, keyId: null, details: { permission: 'keys:read' } })
    t.match(await sql`SELECT chain, actor_type, action, details FROM audit_events ORDER BY id DESC LIMIT 2`, [
      { chain: 'installation', action: 'permission.refused', details: { permission: 'keys:read', projectId } },
      { chain: 'installation', action: 'sign-in.failed', actor_type: 'nobody' }
    ])
    t.same(await seqsOf(projectId), [])
    t.equal((await verifyChain(database, 'installation')).broken, undefined)
  })

  await t.test('a chain may grow while it is verified', async t => {
    const projectId = await newChain(1)
    const state = { growing: true }
    const growth = (async () => {
      for (let i = 0; i < 100; i++) await record(entryOf(projectId))
      state.growing = false
    })()
    while (state.growing) t.equal((await verifyChain(database, projectId)).broken, undefined)
    await growth
    t.equal((await headOf(projectId)).seq, 101)
  })

  /** As a superuser, past the trigger. */
  const tamper = async (work: (tx: Sql) => Promise<unknown>): Promise<void> => {
    await sql.begin(async tx => {
      await tx`ALTER TABLE audit_events DISABLE TRIGGER ALL`
      await tx`ALTER TABLE audit_chains DISABLE TRIGGER ALL`
      await work(tx as unknown as Sql)
      await tx`ALTER TABLE audit_events ENABLE TRIGGER ALL`
      await tx`ALTER TABLE audit_chains ENABLE TRIGGER ALL`
    })
  }
  const eventAt = async (tx: Sql, chain: string, seq: number) => (await tx`SELECT *, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS iso FROM audit_events WHERE chain = ${chain} AND seq = ${seq}`)[0] as postgres.Row
  /** Makes the hashes right again from an event on, as somebody would who knows how they are made. */
  const rehash = async (tx: Sql, chain: string, from: number, to: number): Promise<string> => {
    let hash = (await tx`SELECT hash FROM audit_events WHERE chain = ${chain} AND seq = ${from - 1}`)[0]?.['hash'] as string
    for (let seq = from; seq <= to; seq++) {
      const row = await eventAt(tx, chain, seq)
      hash = hashOf(hash, {
        chain,
        seq,
        at: row['iso'],
        projectId: row['project_id'],
        keyId: row['key_id'],
        action: row['action'],
        requestId: row['request_id'],
        details: row['details'],
        actor: { type: row['actor_type'], id: row['actor_id'], name: row['actor_name'] }
      })
      await tx`UPDATE audit_events SET hash = ${hash} WHERE chain = ${chain} AND seq = ${seq}`
    }
    return hash
  }
  const insert = async (tx: Sql, chain: string, seq: number | null, hash = 'x'.repeat(43)): Promise<unknown> => await tx`
    INSERT INTO audit_events (chain, seq, hash, project_id, actor_type, actor_id, actor_name, action, request_id, details)
    VALUES (${chain}, ${seq}, ${hash}, ${chain}, 'host', 'x', 'x', 'x', 'x', '{}')`
  const remove = async (tx: Sql, chain: string, from: number, to = from): Promise<unknown> => await tx`DELETE FROM audit_events WHERE chain = ${chain} AND seq BETWEEN ${from} AND ${to}`

  await t.test('whatever a superuser does to a chain is found, with its place', async t => {
    const changed = (seq: number) => ({ fault: 'changed', seq })
    const missing = (seq: number, last: number, says: string) => ({ fault: 'missing', seq, last, says })
    const cases: Array<[string, (tx: Sql, chain: string) => Promise<unknown>, object, RegExp]> = [
      ...[
        'at = at + interval \'1 ms\'', 'at = \'infinity\'', 'key_id = \'k\'', 'project_id = NULL', 'actor_type = \'nobody\'', 'actor_id = \'x\'', 'actor_name = \'x\'', 'action = \'x\'',
        'request_id = \'x\'', 'details = \'{"i": 6}\'', 'details = \'null\'', 'hash = \'x\'', 'hash = NULL'
      ].map((assignment): [string, (tx: Sql, chain: string) => Promise<unknown>, object, RegExp] => [
        `SET ${assignment}`, async (tx, chain) => await tx`UPDATE audit_events SET ${tx.unsafe(assignment)} WHERE chain = ${chain} AND seq = 5`, changed(5), /^event 5 is not what was written; or event 4 was rewritten together with its hash$/
      ]),
      ['changes the first', async (tx, chain) => await tx`UPDATE audit_events SET action = 'x' WHERE chain = ${chain} AND seq = 1`, changed(1), /^event 1 is not what was written$/],
      ['rewrites one with its hash', async (tx, chain) => { await tx`UPDATE audit_events SET action = 'x' WHERE chain = ${chain} AND seq = 5`; await rehash(tx, chain, 5, 5) }, changed(6), /^event 6 .* or event 5 was rewritten/],
      ['rewrites the last one with its hash', async (tx, chain) => { await tx`UPDATE audit_events SET action = 'x' WHERE chain = ${chain} AND seq = 12`; await rehash(tx, chain, 12, 12) }, { fault: 'head-differs', seq: 12 }, /^event 12, the last one, was rewritten/],
      ['removes the first', async (tx, chain) => await remove(tx, chain, 1), missing(1, 1, 'next'), /^event 1 is missing$/],
      ['removes one in the middle', async (tx, chain) => await remove(tx, chain, 5), missing(5, 5, 'next'), /^event 5 is missing$/],
      ['removes several', async (tx, chain) => await remove(tx, chain, 5, 7), missing(5, 7, 'next'), /^events 5 to 7 are missing$/],
      ['moves one to another chain', async (tx, chain) => await tx`UPDATE audit_events SET chain = ${randomUUID()} WHERE chain = ${chain} AND seq = 5`, missing(5, 5, 'next'), /missing/],
      ['takes one out of its chain', async (tx, chain) => await tx`UPDATE audit_events SET chain = NULL, seq = NULL, hash = NULL WHERE chain = ${chain} AND seq = 5`, missing(5, 5, 'next'), /missing/],
      ['closes the gap', async (tx, chain) => { await remove(tx, chain, 5); for (let seq = 6; seq <= 12; seq++) await tx`UPDATE audit_events SET seq = ${seq - 1} WHERE chain = ${chain} AND seq = ${seq}` }, changed(5), /^event 5 /],
      ['cuts the tail', async (tx, chain) => await remove(tx, chain, 10, 12), missing(10, 12, 'head'), /^events 10 to 12 are missing at the end: the head says 12$/],
      ['removes all', async (tx, chain) => await remove(tx, chain, 1, 12), missing(1, 12, 'head'), /^events 1 to 12 are missing/],
      ['swaps two', async (tx, chain) => { for (const [from, to] of [[4, -1], [7, 4], [-1, 7]] as const) await tx`UPDATE audit_events SET seq = ${to} WHERE chain = ${chain} AND seq = ${from}` }, changed(4), /^event 4 /],
      ['puts one in and moves up the rest', async (tx, chain) => { for (let seq = 12; seq > 5; seq--) await tx`UPDATE audit_events SET seq = ${seq + 1} WHERE chain = ${chain} AND seq = ${seq}`; await insert(tx, chain, 6) }, changed(6), /^event 6 /],
      ['puts one before the first', async (tx, chain) => await insert(tx, chain, 0), { fault: 'put-in', seq: 0 }, /^event 0 was put in/],
      ['puts one in without a number', async (tx, chain) => await insert(tx, chain, null), { fault: 'unnumbered', seq: null, count: 1 }, /^1 of its events have no number/],
      ['adds one with a right hash', async (tx, chain) => { await insert(tx, chain, 13); await rehash(tx, chain, 13, 13) }, { fault: 'beyond-head', seq: 13 }, /^the events from 13 on are not known to the head/],
      ['adds one with a wrong hash', async (tx, chain) => await insert(tx, chain, 13), changed(13), /^event 13 /],
      ['changes the head\'s hash', async (tx, chain) => await tx`UPDATE audit_chains SET hash = 'x' WHERE chain = ${chain}`, { fault: 'head-differs', seq: 12 }, /or the head was$/],
      ['sets the head on', async (tx, chain) => await tx`UPDATE audit_chains SET seq = 13 WHERE chain = ${chain}`, missing(13, 13, 'head'), /^event 13 is missing/],
      ['sets the head back', async (tx, chain) => await tx`UPDATE audit_chains SET seq = 11 WHERE chain = ${chain}`, { fault: 'beyond-head', seq: 12 }, /^the events from 12 on .* or the head was set back$/],
      ['removes the head', async (tx, chain) => await tx`DELETE FROM audit_chains WHERE chain = ${chain}`, { fault: 'head-missing', seq: 12 }, /^its head is gone; the events end with 12$/]
    ]
    for (const [title, work, expected, sentence] of cases) {
      const chain = await newChain()
      await tamper(async tx => await work(tx, chain))
      const { broken } = await verifyChain(database, chain)
      t.same(broken, expected, title)
      if (broken !== undefined) t.match(describe(broken), sentence, title)
    }
    const forged = `forged-${randomUUID()}`
    await tamper(async tx => await tx`INSERT INTO audit_events (chain, seq, hash, project_id, actor_type, actor_id, actor_name, action, request_id, details) VALUES (${forged}, 1, 'x', ${boundProject}, 'host', 'x', 'x', 'x', 'x', '{}')`)
    await tamper(async tx => { await tx`INSERT INTO audit_chains VALUES (${forged}, 1, ${await rehash(tx, forged, 1, 1)})` })
    t.match((await verifyChain(database, forged)).broken, changed(1), 'a chain of another name than its project')
  })

  await t.test('who rewrites a chain to its head is found by a head that was kept elsewhere', async t => {
    const chain = await newChain()
    const kept = await headOf(chain)
    await record(entryOf(chain))
    t.match(await verifyChain(database, chain, { kept }), { end: { seq: 13 }, broken: undefined }, 'the chain has grown since')
    await tamper(async tx => {
      await tx`UPDATE audit_events SET actor_name = 'somebody else' WHERE chain = ${chain} AND seq = 5`
      await tx`UPDATE audit_chains SET hash = ${await rehash(tx, chain, 5, 13)} WHERE chain = ${chain}`
    })
    t.equal((await verifyChain(database, chain)).broken, undefined, 'by itself it holds')
    t.same((await verifyChain(database, chain, { kept })).broken, { fault: 'not-as-kept', seq: 12 })
    await tamper(async tx => { await remove(tx, chain, 9, 13); await tx`UPDATE audit_chains SET seq = 8, hash = (SELECT hash FROM audit_events WHERE chain = ${chain} AND seq = 8) WHERE chain = ${chain}` })
    t.equal((await verifyChain(database, chain)).broken, undefined)
    t.same((await verifyChain(database, chain, { kept })).broken, { fault: 'missing', seq: 9, last: 12, says: 'kept' })
  })

  await t.test('a long chain is read a page at a time, and a break at the edge of a page is found', async t => {
    const pages: number[] = []
    const onRead = (events: number): void => { pages.push(events) }
    const chain = await newChain(2000)
    t.match(await verifyChain(database, chain, { onRead }), { end: { seq: 2000 }, broken: undefined })
    t.same(pages, [1000, 1000, 0])
    await tamper(async tx => await tx`UPDATE audit_events SET action = 'x' WHERE chain = ${chain} AND seq = 1001`)
    t.same((await verifyChain(database, chain)).broken, { fault: 'changed', seq: 1001 })
    await tamper(async tx => await remove(tx, chain, 1000))
    t.same((await verifyChain(database, chain)).broken, { fault: 'missing', seq: 1000, last: 1000, says: 'next' })
  })

  await t.test('nothing of the trail is removed or set back through the service\'s own login', async t => {
    await newChain()
    for (const statement of ['UPDATE audit_events SET actor_name = \'x\'', 'DELETE FROM audit_events', 'TRUNCATE audit_events']) {
      await t.rejects(database.run(async db => await db.execute(raw.raw(statement))), { message: /append-only/ }, statement)
    }
    for (const statement of ['DELETE FROM audit_chains', 'TRUNCATE audit_chains', 'UPDATE audit_chains SET seq = seq - 1', 'UPDATE audit_chains SET seq = seq + 2', 'UPDATE audit_chains SET hash = \'x\'', 'UPDATE audit_chains SET chain = chain || \'x\'']) {
      await t.rejects(database.run(async db => await db.execute(raw.raw(statement))), { message: /only goes on/ }, statement)
    }
  })
})

test('the audit trail over HTTP and on the command line', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const [all, auditor, reader, bound] = [generateSecret('kgs'), generateSecret('kgs'), generateSecret('kgs'), generateSecret('kgs')] as [string, string, string, string]
  const config = configFor(t, url, house.redis.url, {
    serviceTokensFile: tokensFile(t, [
      { name: 'all', token: all, permissions },
      { name: 'auditor', token: auditor, permissions: ['audit:read'] },
      { name: 'reader', token: reader, permissions: ['projects:read', 'keys:read'] },
      { name: 'bound', token: bound, permissions, projectId: boundProject }
    ])
  })
  const app = await startApp(t, config)
  await redisIsReady(app)
  const sql = superuser(t, url)
  const { database } = app.parts
  const call = async (method: string, path: string, body?: unknown, token = all) => await app.call(method, path, body, token)
  const newProject = async (): Promise<string> => (await call('POST', '/projects', { name: 'P' })).body.id
  const newKey = async (projectId: string): Promise<string> => `/projects/${projectId}/keys/${(await call('POST', `/projects/${projectId}/keys`, { name: 'K' })).body.id}`
  const count = async (): Promise<number> => Number((await sql`SELECT count(*) FROM audit_events`)[0]?.['count'])
  const newest = async () => (await sql`SELECT * FROM audit_events ORDER BY id DESC LIMIT 1`)[0] as postgres.Row
  const holds = async (t: Test, chain: string): Promise<void> => { t.equal((await verifyChain(database, chain)).broken, undefined, `chain ${chain}`) }

  await t.test('every change leaves exactly one event in the chain of its project; what is refused or only read leaves none', async t => {
    const projectId = await newProject()
    const at = `/projects/${projectId}`
    const [key, other, role] = [await newKey(projectId), await newKey(projectId), `${at}/roles/${(await call('POST', `${at}/roles`, { name: 'R' })).body.id}`]
    const token = async (projectId: string | null): Promise<string> => `/service-tokens/${(await call('POST', '/service-tokens', { name: 'T', permissions: ['keys:read'], projectId })).body.id}`
    const [ofProject, ofAll] = [await token(projectId), await token(null)]
    const reason = 'a new server'
    const changes: Array<[string, string, string, string, unknown?]> = [
      ['createProject', 'project.create', 'POST', '/projects', { name: 'Q' }], ['editProject', 'project.edit', 'PATCH', at, { name: 'Q' }],
      ['createRole', 'role.create', 'POST', `${at}/roles`, { name: 'S' }], ['editRole', 'role.edit', 'PATCH', role, { name: 'T' }], ['deleteRole', 'role.delete', 'DELETE', role],
      ['createServiceToken', 'token.create', 'POST', '/service-tokens', { name: 'T', permissions: ['keys:read'], projectId }],
      ['deleteServiceToken', 'token.delete', 'DELETE', ofProject], ['deleteServiceToken', 'token.delete', 'DELETE', ofAll],
      ['createKey', 'key.create', 'POST', `${at}/keys`, { name: 'L' }], ['editKey', 'key.edit', 'PATCH', key, { name: 'M' }],
      ['disableKey', 'key.disable', 'POST', `${key}/disable`], ['enableKey', 'key.enable', 'POST', `${key}/enable`], ['revealKey', 'key.reveal', 'POST', `${key}/reveal`, { reason }],
      ['rotateKey', 'key.rotate', 'POST', `${key}/rotate`, { gracePeriodSeconds: 60 }], ['extendRotation', 'key.extendRotation', 'PATCH', `${key}/rotate`, { gracePeriodSeconds: 90 }],
      ['finishRotation', 'key.finishRotation', 'POST', `${key}/rotate/finish`], ['resetKeyLimit', 'limit.reset', 'DELETE', `${key}/limit`],
      ['revokeKey', 'key.revoke', 'POST', `${key}/revoke`], ['deleteKey', 'key.delete', 'DELETE', other], ['deleteProject', 'project.delete', 'DELETE', at]
    ]
    for (const [operation, action, method, path, body] of changes) {
      const before = await count()
      const answer = await call(method, path, body)
      t.match(answer.status, /^20/, operation)
      t.equal(await count(), before + 1, `${operation}: one event`)
      const chain = operation === 'createProject' ? answer.body.id : path === ofAll ? 'installation' : projectId
      t.match(await newest(), { chain, action, actor_type: 'token', actor_name: 'all', hash: /^[\w-]{43}$/ }, operation)
    }
    const before = await count()
    for (const [method, path, body] of [['POST', `${key}/enable`], ['PATCH', at, { name: '' }], ['GET', at], ['GET', key], ['DELETE', other]] as Array<[string, string, unknown?]>) await call(method, path, body)
    t.equal(await count(), before)
    await holds(t, projectId)

    const { paths } = (await app.app.inject('/openapi.json')).json()
    const ofPeople = new Set(['people', 'members', 'operators'])
    const known = new Set([...changes.map(([operation]) => operation), 'verify'])
    const unknown = Object.values<Record<string, { operationId: string, tags: string[] }>>(paths).flatMap(methods => Object.entries(methods))
      .filter(([method, { operationId, tags }]) => method !== 'get' && !known.has(operationId) && !tags.some(tag => ofPeople.has(tag)))
    t.same(unknown.map(([, { operationId }]) => operationId), [], 'no operation is forgotten here; those on people are in people.test.ts')
  })

  await t.test('twenty changes at once, in one project and in five: all done, every chain holds', async t => {
    for (const projects of [1, 5]) {
      const ids = await Promise.all(Array.from({ length: projects }, newProject))
      const keys: string[] = []
      for (let i = 0; i < 20; i++) keys.push(await newKey(ids[i % projects] as string))
      const answers = await Promise.all(keys.flatMap(key => [call('POST', `${key}/disable`), call('PATCH', key, { description: 'd' })]))
      t.ok(answers.every(({ status }) => status === 200), `${projects}: none is turned away`)
      for (const id of ids) {
        await holds(t, id)
        t.equal((await sql`SELECT 1 FROM audit_events WHERE chain = ${id}`).length, 1 + 60 / projects)
      }
    }
  })

  await t.test('a change that cannot be recorded leaves no gap', async t => {
    const key = await newKey(await newProject())
    await sql`REVOKE INSERT ON audit_events FROM keygate`
    t.equal((await call('POST', `${key}/disable`)).status, 500)
    await sql`GRANT INSERT ON audit_events TO keygate`
    t.equal((await call('POST', `${key}/disable`)).status, 200)
    t.match(await newest(), { seq: '3', action: 'key.disable' })
    await holds(t, key.split('/')[2] as string)
  })

  await t.test('a refused permission is written down, in the chain of the project if there is one', async t => {
    const projectId = await newProject()
    t.equal((await call('POST', `/projects/${projectId}/keys`, { name: 'x' }, reader)).status, 403)
    t.match(await newest(), { chain: projectId, action: 'permission.refused', actor_name: 'reader', details: { permission: 'keys:create', method: 'POST', route: '/v1/projects/:projectId/keys' } })
    const nowhere = randomUUID()
    t.equal((await call('POST', `/projects/${nowhere}/keys`, { name: 'x' }, reader)).status, 403)
    t.match(await newest(), { chain: 'installation', project_id: null, details: { projectId: nowhere } })
    const before = await count()
    t.equal((await call('GET', '/projects', undefined, generateSecret('kgs'))).status, 401)
    t.equal(await count(), before, 'nobody without a token')
    await holds(t, projectId)
    await holds(t, 'installation')
  })

  await t.test('who asks for what is another project\'s gets 404, and that is one event in the chain of the installation', async t => {
    const [theirs, own] = [await newProject(), await newProject()]
    const key = await newKey(theirs)
    const owner = await newPerson(app, config, { email: 'owner-elsewhere@example.org', project: own, role: 'owner' })
    const ofTheirs = async () => (await sql`SELECT 1 FROM audit_events WHERE chain = ${theirs} OR project_id = ${theirs}`).length
    const earlier = await ofTheirs()
    const keyId = key.split('/').at(-1) as string
    for (const [method, path, code, details] of [
      ['GET', key, 'key_not_found', { permission: 'keys:read', keyId, route: '/v1/projects/:projectId/keys/:keyId' }],
      ['DELETE', `/projects/${theirs.toUpperCase()}`, 'project_not_found', { permission: 'projects:delete', keyId: null, route: '/v1/projects/:projectId' }]
    ] as const) {
      const before = await count()
      t.match(await owner.call(method, path), { status: 404, body: { code } }, path)
      t.equal(await count(), before + 1, 'one event')
      const event = await newest()
      t.match(event, { chain: 'installation', project_id: null, key_id: null, action: 'permission.refused', actor_type: 'person', actor_id: owner.id })
      t.strictSame(event['details'], { ...details, projectId: theirs, method, code })
    }
    const asked = await count()
    t.match(await owner.call('POST', '/service-tokens', { name: 'T', permissions: ['keys:read'], projectId: theirs }), { status: 404, body: { code: 'project_not_found' } })
    t.equal(await count(), asked + 1, 'named in a body')
    t.match(await newest(), { chain: 'installation', project_id: null, action: 'permission.refused', details: { permission: 'tokens:write', projectId: theirs, code: 'project_not_found' } })
    const before = await count()
    for (const id of ['x', '%00', theirs.slice(1)]) t.match(await owner.call('GET', `/projects/${id}`), { status: 404 })
    t.match(await call('GET', `/projects/${randomUUID()}`), { status: 404 }, 'who sees all projects was refused nothing')
    t.equal(await count(), before, 'what cannot be an id, or is of nothing, is no event')
    t.equal(await ofTheirs(), earlier, 'their own trail says nothing of it')
    await holds(t, 'installation')
  })

  await t.test('another site with a session, and a token where only people may, are one event each', async t => {
    const ada = await newPerson(app, config, { email: 'elsewhere@example.org' })
    const elsewhere = { 'sec-fetch-site': 'cross-site' }
    await sql`UPDATE sessions SET last_seen_at = now() - interval '30 minutes' WHERE user_id = ${ada.id}`
    for (const [ask, code, actor, details] of [
      [async () => await ada.call('POST', '/projects', { name: 'x' }, elsewhere), 'cross_site', { actor_type: 'person', actor_id: ada.id }, { permission: 'projects:create', method: 'POST', route: '/v1/projects' }],
      [async () => await ada.call('POST', '/sign-out', undefined, elsewhere), 'cross_site', { actor_type: 'person', actor_id: ada.id }, { method: 'POST', route: '/v1/sign-out' }],
      ...['/sign-out', '/me/password', '/me/confirm'].map(path => [async () => await call('POST', path, { nonsense: true }, reader), 'not_a_person', { actor_type: 'token', actor_name: 'reader' }, { method: 'POST', route: `/v1${path}` }] as const)
    ] as const) {
      const before = await count()
      t.match(await ask(), { status: 403, body: { code } }, code)
      t.equal(await count(), before + 1, 'one event')
      const event = await newest()
      t.match(event, { ...actor, chain: 'installation', project_id: null, action: 'permission.refused' })
      t.strictSame(event['details'], { ...details, code })
    }
    t.match(await sql`SELECT last_seen_at < now() - interval '29 minutes' AS idle FROM sessions WHERE user_id = ${ada.id}`, [{ idle: true }], 'another site does not keep a session open')
    const before = await count()
    t.match(await ada.call('POST', '/projects', { name: 'x' }, { ...elsewhere, cookie: `keygate_session=${'x'.repeat(43)}` }), { status: 403, body: { code: 'cross_site' } })
    t.equal(await count(), before, 'a cookie that is nobody\'s')
    await holds(t, 'installation')
  })

  await t.test('every route that wants a recent password: its refusal is one event, and changes nothing', async t => {
    const projectId = await newProject()
    const key = await newKey(projectId)
    const person = async (email: string, options: object) => await newPerson(app, config, { email, ...options })
    const [owner, operator, other] = [await person('owner@example.org', { project: projectId, role: 'owner' }), await person('operator@example.org', { operator: true }), await person('other@example.org', {})]
    const { userId } = (await call('POST', `/projects/${projectId}/members`, { email: 'member@example.org', role: 'viewer' })).body
    const member = `/projects/${projectId}/members/${userId}`
    const unconfirmed = async () => await sql`UPDATE sessions SET authenticated_at = now() - interval '11 minutes'`
    // Whoever adds a route with the flag adds a request that would be accepted.
    const requests: Record<string, { by: Person, permission: string, path: string, body?: object, isOfKey?: boolean, chain?: string }> = {
      'POST /v1/projects/:projectId/keys/:keyId/reveal': { by: owner, permission: 'keys:reveal', path: `${key}/reveal`, body: { reason: 'a new server' }, isOfKey: true },
      'POST /v1/projects/:projectId/members': { by: owner, permission: 'members:write', path: `/projects/${projectId}/members`, body: { email: other.email, role: 'viewer' } },
      'PATCH /v1/projects/:projectId/members/:userId': { by: owner, permission: 'members:write', path: member, body: { role: 'manager' } },
      'POST /v1/projects/:projectId/members/:userId/invitation': { by: owner, permission: 'members:write', path: `${member}/invitation` },
      'POST /v1/operators': { by: operator, permission: 'operators:write', path: '/operators', body: { email: other.email }, chain: 'installation' },
      'POST /v1/service-tokens': { by: owner, permission: 'tokens:write', path: '/service-tokens', body: { name: 'T', permissions: ['keys:read'], projectId }, chain: 'installation' }
    }
    const everything = await person('everything@example.org', { project: projectId, role: 'owner', operator: true })
    await unconfirmed()
    const flagged: string[] = []
    for (const route of routesOf(app)) {
      // Of a type that no route takes: what is not refused before a body is looked at gets no further.
      const { statusCode, body } = await app.app.inject({ ...addressOf(route, { projectId }), headers: { ...ownPage, cookie: everything.cookie, 'content-type': 'text/plain' }, payload: 'x' })
      if (statusCode === 403 && body.includes('"confirmation_required"')) flagged.push(route)
    }
    t.same(Object.keys(requests).sort(), flagged.sort(), 'the routes of the running app')

    /** Every row but those of the trail, and the times that go on by themselves. */
    const state = async () => await Promise.all(['users', 'members', 'operators', 'service_tokens', 'one_time_links', 'projects', 'keys', 'secrets', 'outbox'].map(async table => await sql`SELECT to_jsonb(x) - 'effective_version' - 'effective_at' - 'delivered_at' AS row FROM ${sql(table)} x ORDER BY 1`))
    for (const [route, { by, permission, path, body, isOfKey = false, chain = projectId }] of Object.entries(requests)) {
      const [method = '', url] = route.split(' ')
      await unconfirmed()
      const [before, earlier] = [await count(), await state()]
      t.match(await by.call(method, path, body), { status: 403, body: { code: 'confirmation_required' } }, route)
      t.equal(await count(), before + 1, `${route}: one event`)
      t.match(await newest(), { chain, project_id: chain === projectId ? projectId : null, key_id: isOfKey ? key.split('/').at(-1) : null, action: 'permission.refused', actor_type: 'person', actor_id: by.id }, route)
      t.strictSame((await newest())['details'], { permission, method, route: url, code: 'confirmation_required' }, route)
      t.strictSame(await state(), earlier, `${route}: nothing changed`)
      t.match(await by.call(method, path, { nonsense: true }), { status: 403, body: { code: 'confirmation_required' } }, `${route}: before a body is looked at`)
      t.match(await by.call('POST', '/me/confirm', { password }), { status: 204 })
      t.match((await by.call(method, path, body)).status, /^20/, `${route}: confirmed`)
    }
    await holds(t, projectId)
    await holds(t, 'installation')
  })

  await t.test('the events of a project: newest first, in pages, and anybody can recompute them', async t => {
    const projectId = await newProject()
    const key = await newKey(projectId)
    for (let i = 0; i < 8; i++) await call('PATCH', key, { description: `${i}` })
    const path = `/projects/${projectId}/audit-events`
    const { status, body: { data, nextCursor } } = await call('GET', path, undefined, auditor)
    t.equal(status, 200)
    t.equal(nextCursor, null)
    t.same(data.map(({ seq }: End) => seq), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    t.match(data[0], { chain: projectId, projectId, keyId: key.split('/').at(-1), actor: { type: 'token', id: /^tok_/, name: 'all' }, action: 'key.edit', requestId: /./, details: { description: '7' } })
    t.ok(Number.isInteger(data[0].id))
    t.same(Object.keys(data[0]), ['id', 'at', 'chain', 'seq', 'hash', 'projectId', 'keyId', 'actor', 'action', 'requestId', 'details'])
    t.ok(data.every((event: ChainedEvent & { hash: string }, i: number) => event.hash === hashOf(data[i + 1]?.hash ?? '', event)))
    const walked: number[] = []
    for (let cursor: string | null = ''; cursor !== null;) {
      const { body } = await call('GET', `${path}?limit=3${cursor === '' ? '' : `&cursor=${cursor}`}`)
      walked.push(...body.data.map(({ seq }: End) => seq))
      cursor = body.nextCursor
      await call('PATCH', key, { description: 'more' })
    }
    t.same(walked, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1], 'what comes meanwhile shifts nothing')
    t.equal((await call('DELETE', `/projects/${projectId}`)).status, 204)
    t.match((await call('GET', `/projects/${projectId.toUpperCase()}/audit-events?limit=1`)).body, { data: [{ action: 'project.delete' }] }, 'the events of a deleted project stay')
    t.match(await call('GET', `${path}?action=none`), { status: 200, body: { data: [], nextCursor: null } })
  })

  await t.test('filters', async t => {
    const projectId = await newProject()
    const [one, two] = [await newKey(projectId), await newKey(projectId)]
    for (const key of [one, two]) for (const action of ['disable', 'enable']) await call('POST', `${key}/${action}`)
    await call('DELETE', one, undefined, reader)
    const path = `/projects/${projectId}/audit-events`
    const { body: { data } } = await call('GET', path)
    const seqs = async (query: string): Promise<number[]> => (await call('GET', `${path}?${query}`)).body.data.map(({ seq }: End) => seq)
    const where = (condition: (event: ChainedEvent) => boolean): number[] => data.filter(condition).map(({ seq }: End) => seq)
    t.same(await seqs('action=key.enable'), [7, 5])
    t.same(await seqs('action=key.'), [7, 6, 5, 4, 3, 2])
    t.same(await seqs('action=key'), [], 'no prefix without the dot')
    t.same(await seqs('action=permission.refused'), [8])
    t.same(await seqs(`keyId=${one.split('/').at(-1)}`), [8, 5, 4, 2])
    t.same(await seqs(`actorId=${data[0].actor.id}`), [8])
    t.same(await seqs(`actorId=${data[1].actor.id}&keyId=${two.split('/').at(-1)}&action=key.disable`), [6])
    const { at } = data[4]
    t.same(await seqs(`from=${at}`), where(event => event.at >= at))
    t.same(await seqs(`until=${at}`), where(event => event.at < at))
    t.same(await seqs(`from=${at}&until=${at}`), [])
    t.same(await seqs(`from=${new Date(Date.parse(at)).toISOString().replace('Z', '%2B00:00')}`), where(event => event.at >= at))
  })

  await t.test('what is no filter is refused with its name', async t => {
    for (const [query, status, pointer] of [
      ['limit=0', 422, '/limit'], ['limit=101', 422, '/limit'], ['limit=x', 400, '/limit'], ['action=', 422, '/action'], ['action=a%25', 422, '/action'], ['action=a%00', 422, '/action'], ['keyId=x', 422, '/keyId'], ['actorId=', 422, '/actorId'], ['actorId=a%00', 422, '/actorId'],
      ['from=yesterday', 422, '/from'], ['from=2026-11-20', 422, '/from'], ['until=2026-02-30T00:00:00Z', 422, '/until'], ['until=0000-01-01T00:00:00Z', 422, '/until'], ['from=2026-12-31T23:59:60Z', 422, '/from'], ['from=9999-12-31T23:59:59-10:00', 422, '/from'],
      ['cursor=x', 400, '/cursor'], ['sort=id', 400, '/sort'], ...['1', '0', 'x', '99999999999999999999'].map((id): [string, number, string] => [`cursor=${Buffer.from(JSON.stringify([id === '1' ? 'id' : '-id', id, id])).toString('base64url')}`, 400, '/cursor'])
    ] as Array<[string, number, string]>) {
      t.match(await call('GET', `/audit-events?${query}`), { status, body: { errors: [{ pointer }] } }, query)
    }
  })

  await t.test('who may read: with audit:read in a project its events, all events only who sees all projects', async t => {
    const projectId = await newProject()
    const path = `/projects/${projectId}/audit-events`
    const person = async (role: string | null, isOperator = false): Promise<string> => {
      const [user, id] = [generateId('usr'), randomUUID()]
      await sql`INSERT INTO users (id, email, name, created_by) VALUES (${user}, ${`${id}@example.org`}, ${role ?? 'operator'}, 'test')`
      if (role !== null) await sql`INSERT INTO members (project_id, user_id, role, added_by) VALUES (${projectId}, ${user}, ${role}, 'test')`
      if (isOperator) await sql`INSERT INTO operators (user_id, granted_by) VALUES (${user}, 'test')`
      return await database.transaction(async tx => await beginSession(tx, user))
    }
    const as = async (session: string, path: string) => (await app.app.inject({ url: `/v1${path}`, headers: { cookie: `keygate_session=${session}` } })).statusCode
    const sessions = { owner: await person('owner'), manager: await person('manager'), viewer: await person('viewer'), operator: await person(null, true), outsider: await person(null) }
    for (const [who, ofProject, ofAll] of [['owner', 200, 403], ['manager', 200, 403], ['viewer', 403, 403], ['operator', 200, 200], ['outsider', 404, 403]] as const) {
      t.equal(await as(sessions[who], path), ofProject, `${who}: project`)
      t.equal(await as(sessions[who], '/audit-events'), ofAll, `${who}: all`)
      if (ofAll === 403) t.match(await newest(), { chain: 'installation', action: 'permission.refused', actor_type: 'person', details: { permission: 'audit:read', method: 'GET', route: '/v1/audit-events' } })
    }
    for (const [token, ofProject, ofAll] of [[all, 200, 200], [auditor, 200, 200], [reader, 403, 403], [bound, 404, 403]] as const) {
      t.equal((await call('GET', path, undefined, token)).status, ofProject)
      t.equal((await call('GET', '/audit-events', undefined, token)).status, ofAll)
    }
    t.match(await newest(), { actor_name: 'bound', action: 'permission.refused', chain: 'installation' })
    t.match(await call('GET', `/projects/${randomUUID()}/audit-events`), { status: 404, body: { code: 'project_not_found' } })
    const chains = new Set((await call('GET', '/audit-events?limit=100')).body.data.map(({ chain }: ChainedEvent) => chain))
    t.ok(chains.has('installation') && chains.has(projectId), 'all chains')
  })

  await t.test('no other method exists', async t => {
    const projectId = await newProject()
    const before = await count()
    for (const path of ['/audit-events', '/audit-events/1', `/projects/${projectId}/audit-events`, `/projects/${projectId}/audit-events/1`]) {
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) t.ok([404, 405].includes((await call(method, path, {})).status), `${method} ${path}`)
    }
    t.equal(await count(), before)
    const { paths } = (await app.app.inject('/openapi.json')).json()
    for (const [path, methods] of Object.entries<object>(paths)) if (path.includes('audit')) t.same(Object.keys(methods), ['get'], path)
  })

  await t.test('both lists are read along an index, not sorted', async t => {
    const projectId = await newProject()
    await sql`INSERT INTO audit_events (project_id, actor_type, actor_id, actor_name, action, request_id, details)
      SELECT CASE WHEN i % 100 = 0 THEN ${projectId}::uuid ELSE gen_random_uuid() END, 'host', 'x', 'x', 'x', 'x', '{}' FROM generate_series(1, 20000) AS i`
    await sql`ANALYZE audit_events`
    const { data, nextCursor: cursor } = (await call('GET', `/projects/${projectId}/audit-events?limit=2`)).body
    t.match(data, [{ chain: null, seq: null, hash: null }, { chain: null }], 'what is from before there were chains is listed too')
    for (const [of, index, query] of [[projectId, 'audit_events_by_project', {}], [projectId, 'audit_events_by_project', { cursor }], [null, 'audit_events_pkey', {}], [null, 'audit_events_pkey', { cursor }]] as const) {
      const [row] = await database.run(async db => await db.execute<{ 'QUERY PLAN': unknown }>(raw`EXPLAIN (FORMAT JSON) ${eventsOf(of, { limit: 50, ...query })}`))
      const plan = JSON.stringify(row)
      t.match(plan, new RegExp(`"Node Type":"Index Scan"[^}]*"Scan Direction":"Backward"[^}]*"Index Name":"${index}"`))
      t.notMatch(plan, /"Sort"|Seq Scan/)
    }
  })

  await t.test('audit verify: 0 when all chains hold, 1 when one does not, with its place', async t => {
    const env = { DATABASE_URL: url, REDIS_URL: house.redis.url, KEYGATE_APIS: fileURLToPath(new URL('fixtures/apis.yaml', import.meta.url)), KEYGATE_PEPPER: 'a pepper for tests of 32 characters or more' }
    const verify = async (...args: string[]): Promise<Ended> => await callHere(env, args)
    const dir = mkdtempSync(join(tmpdir(), 'keygate-heads-'))
    t.teardown(() => { rmSync(dir, { recursive: true, force: true }) })
    const heads = join(dir, 'heads')
    const projectId = await newProject()
    const key = await newKey(projectId)
    const whole = await callProgram(t, env, [])
    t.equal(whole.code, 0, whole.err)
    t.match(whole.out, new RegExp(`^${projectId} +2 +${(await newest())['hash'] as string} +ok$`, 'm'), 'name, number of events, head')
    t.match(whole.out, /^installation +\d+ +[\w-]{43} +ok$/m)
    t.match(whole.out, /^# 20000 events are from before there were chains, the newest of 20[^]*^# (\d+) of \1 chains hold\n$/m)
    t.match(whole.err, /events/, 'progress')
    writeFileSync(heads, whole.out)
    await call('POST', `${key}/disable`)
    t.match(await verify('--heads', heads), { code: 0 })
    t.match(await verify('--project', projectId.toUpperCase()), { code: 0, out: new RegExp(`^${projectId} +3 `) })

    await sql`ALTER TABLE audit_events DISABLE TRIGGER ALL`
    await sql`UPDATE audit_events SET details = '{"name": "other"}' WHERE chain = ${projectId} AND seq = 2`
    t.match(await verify('--project', projectId), { code: 1, out: new RegExp(`^${projectId} +1 .* broken: event 2 is not what was written[^]*# 0 of 1 chains hold`) })
    t.match(await callProgram(t, env, []), { code: 1, out: /^installation .* ok$/m })
    await sql`DELETE FROM audit_events WHERE chain = ${projectId}`
    await sql`ALTER TABLE audit_chains DISABLE TRIGGER ALL`
    await sql`DELETE FROM audit_chains WHERE chain = ${projectId}`
    t.match(await verify(), { code: 0 }, 'a chain that is gone as a whole is not missed')
    t.match(await verify('--heads', heads), { code: 1, out: new RegExp(`^${projectId} +0 .* broken: `, 'm') }, 'but by whoever kept its head')
    t.match(await verify('--project', projectId), { code: 1, out: '', err: /There is no chain of audit events of the project/ })
    t.match(await verify('--project', 'x'), { code: 2, out: '', err: /wants the id of a project/ })
    t.match(await verify('--heads', join(dir, 'none')), { code: 2, err: /cannot be read/ })
    writeFileSync(heads, 'nothing\n')
    t.match(await verify('--heads', heads), { code: 2, err: /there is no head in/ })
  })
})

/** A database with the schema, without the service; and a superuser's connection to it. */
async function openEmpty (t: Test, house: House): Promise<{ database: Database, sql: Sql }> {
  const url = await house.database()
  await migrate(url)
  const database = openDatabase(url, { max: 20, timeoutMs: 20_000 })
  t.teardown(async () => { await database.close() })
  return { database, sql: superuser(t, url) }
}

function superuser (t: Test, url: string): Sql {
  const sql = postgres(url.replace('keygate@', 'postgres@'), { max: 1, onnotice: () => {} })
  t.teardown(async () => { await sql.end({ timeout: 1 }) })
  return sql
}

/** A route with ids of the right shape in its path, which nothing has but what is given. */
function addressOf (route: string, known: Record<string, string>): { method: 'GET', url: string } {
  const [method = '', path = ''] = route.split(' ')
  const unknown: Record<string, string> = { projectId: randomUUID(), keyId: `key_${'0'.repeat(22)}`, userId: `usr_${'0'.repeat(22)}`, tokenId: `tok_${'0'.repeat(22)}` }
  return { method: method as 'GET', url: path.replaceAll(/:(\w+)/g, (_all, name: string) => known[name] ?? unknown[name] ?? 'x') }
}

interface Ended { code: number | null, out: string, err: string }

/** `audit verify` as a process of its own. */
async function callProgram (t: Test, env: Record<string, string>, args: string[]): Promise<Ended> {
  const child = fork(fileURLToPath(new URL('../dist/cli.js', import.meta.url)), ['audit', 'verify', ...args], { execArgv: [], env: { ...process.env, NODE_OPTIONS: '', ...env }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
  t.teardown(() => { child.kill('SIGKILL') })
  const [[code], out, err] = await Promise.all([once(child, 'exit'), text(child.stdout as Readable), text(child.stderr as Readable)])
  return { code, out, err }
}

/** The same in this process, which needs no compiling. */
async function callHere (env: Record<string, string>, args: string[]): Promise<Ended> {
  const [out, err] = [new PassThrough(), new PassThrough()]
  const code = await runCommandLine([auditVerify], ['audit', 'verify', ...args], { env, out, err })
  out.end()
  err.end()
  return { code, out: await text(out), err: await text(err) }
}
