import { digestSecret } from '@keygate/api-key'
import postgres from 'postgres'
import t, { type Test } from 'tap'
import { describeScan, type Scan } from '../bench/plans.ts'
import { buildApp } from '../src/app.ts'
import type { Database } from '../src/db/database.ts'
import { attentions, keySorts } from '../src/keys/schemas.ts'
import { openParts } from '../src/parts.ts'
import { seedKeys } from '../src/seed/seed-keys.ts'
import { makePartitions, partitionOf, type Partitioned } from '../src/usage/partitions.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { configFor, startHouse, tokens, type Sql } from './helper.ts'
import { recordingDatabase, scansFor, type Statement } from './recording.ts'

const context = { actor: { type: 'host', id: 'command-line', name: 'command-line' }, requestId: 'indexes' } as const

/** Reading a table of fewer rows as a whole is the quickest way. */
const smallTable = 1000

/** Usage of the last ten hours in all three tables, some of it limited, the callers of a tenth of the keys, and rotations that run. */
async function addUsage (admin: Sql, database: Database): Promise<void> {
  const days = [0, 1].map(days => new Date(Date.now() - days * 86_400_000))
  const tables: Partitioned[] = ['usage_minutes', 'usage_hours', 'usage_days']
  const partitions = new Map(days.flatMap(day => tables.map(table => partitionOf(table, day))).map(partition => [partition.name, partition]))
  await database.transaction(async tx => { await makePartitions(tx, [...partitions.values()]) })
  for (const [table, step] of [['usage_minutes', 'minute'], ['usage_hours', 'hour'], ['usage_days', 'day']] as const) {
    await admin`
      INSERT INTO ${admin(table)} (project_id, key_id, at, api, operation, scope, admitted, limited, refused, upstream_errors, admitted_locally)
      SELECT k.project_id, k.id, date_trunc(${step}, now() - ago * interval '1 minute', 'UTC'), 'forms', 'GET /submissions', 'submissions', 10, (ago % 5 = 2)::int, 0, 0, 0
      FROM keys k CROSS JOIN generate_series(1, 3) n CROSS JOIN LATERAL (SELECT abs(hashtext(k.id || n)) % 600 AS ago) a ON CONFLICT DO NOTHING`
  }
  await admin`
    INSERT INTO usage_callers (project_id, key_id, address, client, secret_id, hour, count, last_seen)
    SELECT k.project_id, k.id, '192.0.2.' || n, 'curl', 'sec_x', date_trunc('hour', now(), 'UTC'), 1, now() FROM keys k CROSS JOIN generate_series(1, 3) n WHERE abs(hashtext(k.id)) % 10 = 0`
  await admin`
    INSERT INTO secrets (project_id, key_id, id, digest, pepper_id, hint, state, not_after, retired_at, last_used_at)
    SELECT project_id, id, 'sec_old_' || id, 'old ' || id, '1', 'kg_…', 'retiring', now() + interval '1 day', now(), now() - interval '1 hour' FROM keys WHERE abs(hashtext(id)) % 100 < 4`
}

/** The service over 20 000 keys, as many events and changes, and some of other projects beside them. */
async function startFull (t: Test) {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const database = recordingDatabase(config.databaseUrl)
  const { app } = await buildApp(config, async log => {
    const parts = await openParts(config, log)
    t.teardown(async () => { await parts.database.close() })
    return { ...parts, database }
  })
  t.teardown(async () => { await app.close() })
  await app.ready()
  const admin = postgres(config.databaseUrl, { max: 1, onnotice: () => {} })
  t.teardown(async () => { await admin.end({ timeout: 1 }) })

  const secrets: string[] = []
  const seed = { database, peppers: createPeppers(config.peppers), prefix: config.keyPrefix, scopes: ['submissions', 'files'], context }
  const { projectId } = await seedKeys(seed, { keys: 20_000, projectId: undefined, seed: 1, batch: 5000, onInserted: keys => { secrets.push(...keys.map(({ secret }) => secret)) } })
  let small = ''
  for (let i = 0; i < 5; i++) small = (await seedKeys(seed, { keys: 400, projectId: undefined, seed: 2 + i, batch: 400 })).projectId
  await admin`INSERT INTO roles (project_id, id, name, created_by) SELECT ${projectId}, 'role_' || n, 'Role ' || n, 'test' FROM generate_series(1, 40) n`
  await admin`UPDATE keys SET role_id = 'role_' || (1 + abs(hashtext(id)) % 40) WHERE project_id = ${projectId} AND abs(hashtext(id)) % 4 = 0`
  await admin`
    INSERT INTO audit_events (at, project_id, key_id, actor_type, actor_id, actor_name, action, request_id, details)
    SELECT k.created_at, k.project_id, k.id, 'token', 'tok_' || abs(hashtext(k.id)) % 50, 'somebody', 'key.edit', 'test', '{}' FROM keys k`
  await admin`
    INSERT INTO outbox (project_id, key_id, version, xid, delivered_at)
    SELECT project_id, id, 2, (1 + abs(hashtext(id)) % 500)::text::xid8, now() FROM keys`
  await addUsage(admin, database)
  await admin`ANALYZE`
  const rows = await admin<Array<{ name: string }>>`SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND reltuples > ${smallTable}`
  const large = new Set(rows.map(({ name }) => name))
  t.match([...large], ['keys', 'secrets', 'key_scopes', 'audit_events', 'outbox'].map(name => large.has(name) ? String : name))
  return { app, admin, database, large, projectId, small, secrets }
}

await t.test('every statement finds its rows by an index', async t => {
  const { app, admin, database, large, projectId, small, secrets } = await startFull(t)

  async function ask (method: 'GET' | 'POST', url: string, payload?: object): Promise<{ body: any, scans: Scan[], statements: Statement[] }> {
    database.statements.length = 0
    const answer = await app.inject({ method, url: `/v1${url}`, headers: { authorization: `Bearer ${tokens.all}` }, ...payload !== undefined && { payload } })
    t.ok(answer.statusCode < 300, `${method} ${url}: ${answer.statusCode} ${answer.statusCode < 300 ? '' : answer.body}`)
    const statements = database.statements.splice(0)
    return { body: answer.json(), scans: await scansFor(admin, statements), statements }
  }

  /** No large table is read as a whole, and the rows come by an index of this table. */
  function judge (t: Test, scans: Scan[], table: string): void {
    t.same(scans.filter(scan => scan.node === 'Seq Scan' && large.has(scan.table)).map(describeScan), [])
    t.ok(scans.some(scan => scan.table === table && scan.index !== undefined), scans.filter(scan => scan.table === table).map(describeScan).join(', '))
  }

  const path = `/projects/${projectId}/keys`
  const { body: { data: [{ id: keyId }] } } = await ask('GET', `${path}?limit=1`)

  for (const sort of keySorts) {
    await t.test(`list by ${sort}: its first three pages`, async t => {
      let cursor = ''
      for (let page = 0; page < 3; page++) {
        const { body, scans } = await ask('GET', `${path}?sort=${sort}${cursor}`)
        judge(t, scans, 'keys')
        cursor = `&cursor=${body.nextCursor}`
      }
    })
  }

  const filters = [
    'status=active', 'status=expired', 'status=disabled', 'status=revoked', 'scope=submissions', 'scope=files', 'scope=nothing', 'role=Role+7', 'role=nobody',
    'status=revoked&sort=name', 'search=export', 'search=export&sort=name', 'search=kelowna', 'search=00731', 'search=nothing+like+it', 'search=night+shift',
    'search=export&status=revoked', 'search=le', 'search=le&sort=name', 'search=zz', 'search=%25_', 'search=x'
  ]
  for (const filter of filters) {
    await t.test(`list with ${filter}`, async t => { judge(t, (await ask('GET', `${path}?${filter}`)).scans, 'keys') })
  }

  for (const attention of attentions) {
    for (const filter of ['', '&sort=name', '&sort=-lastUsedAt', '&search=export']) {
      await t.test(`list with attention=${attention}${filter}`, async t => { judge(t, (await ask('GET', `${path}?attention=${attention}${filter}`)).scans, 'keys') })
    }
  }

  await t.test('the counts of attention, in a project of a few keys among many', async t => {
    const { body, scans } = await ask('GET', `/projects/${small}/keys/attention`)
    judge(t, scans, 'keys')
    t.match(body.data.map(({ keys }: { keys: number }) => keys > 0), [true, Boolean, true, true], JSON.stringify(body.data))
  })

  await t.test('the counts of attention, in a project that has nearly all keys: what stands in other tables comes by its index', async t => {
    const { scans } = await ask('GET', `${path}/attention`)
    t.same(scans.filter(scan => scan.node === 'Seq Scan' && large.has(scan.table) && scan.table !== 'keys').map(describeScan), [])
    t.ok(scans.some(({ index }) => index === 'secrets_retiring'))
    t.ok(scans.some(({ index }) => index?.endsWith('_project_id_at_key_id_idx')), 'the minutes in which something was limited')
  })

  await t.test('requests of 24 hours: one statement for a page of 100 keys', async t => {
    const { body, scans, statements } = await ask('GET', `${path}?limit=100`)
    t.equal(body.data.length, 100)
    t.ok(body.data.some(({ requests24h }: { requests24h: number[] }) => requests24h.some(count => count > 0)))
    t.equal(statements.filter(({ query }) => query.includes('usage_hours')).length, 1)
    judge(t, scans, [...large].find(name => name.startsWith('usage_hours_')) ?? 'usage_hours')
  })

  await t.test('get of a revoked key, with what came since', async t => {
    const { body: { data: [revoked] } } = await ask('GET', `${path}?status=revoked&limit=1`)
    const { body, scans } = await ask('GET', `${path}/${revoked.id}`)
    t.match(body.sinceRevoked, { admitted: Number, refused: Number, callers: Number })
    judge(t, scans, 'keys')
  })

  await t.test('verify, known and unknown', async t => {
    for (const secret of [secrets[0] as string, 'kg_unknown']) {
      const { scans } = await ask('POST', '/verifications', { digest: digestSecret(secret) })
      judge(t, scans, 'secrets')
      judge(t, scans, 'keys')
    }
  })

  await t.test('get', async t => { judge(t, (await ask('GET', `${path}/${keyId}`)).scans, 'keys') })
  await t.test('create', async t => { judge(t, (await ask('POST', path, { name: 'One more', scopes: ['submissions'] })).scans, 'keys') })

  for (const query of ['', '?action=key.edit', '?action=project.seed', `?keyId=${keyId}`, '?actorId=tok_7', '?actorId=nobody']) {
    await t.test(`audit events of a project ${query}`, async t => { judge(t, (await ask('GET', `/projects/${projectId}/audit-events${query}`)).scans, 'audit_events') })
  }

  await t.test('changes since a recent cursor', async t => {
    const { body: { cursor } } = await ask('GET', '/changes')
    judge(t, (await ask('GET', `/changes?after=${cursor}`)).scans, 'outbox')
  })
})
