import { digestSecret } from '@keygate/api-key'
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import t, { type Test } from 'tap'
import { describeScan, scansOf, type PlanNode, type Scan } from '../bench/plans.ts'
import { buildApp } from '../src/app.ts'
import { clientOptions, type Database } from '../src/db/database.ts'
import { keySorts } from '../src/keys/schemas.ts'
import { openParts } from '../src/parts.ts'
import { seedKeys } from '../src/seed/seed-keys.ts'
import { createPeppers } from '../src/vault/peppers.ts'
import { configFor, startHouse, tokens, type Sql } from './helper.ts'

const context = { actor: { type: 'host', id: 'command-line', name: 'command-line' }, requestId: 'indexes' } as const

/** Reading a table of fewer rows as a whole is the quickest way. */
const smallTable = 1000

/** `isPrepared`: the server may come to use one plan for all values. */
interface Statement { query: string, params: unknown[], isPrepared: boolean }

/** A database that remembers what it was asked. */
function recordingDatabase (url: string): Database & { statements: Statement[] } {
  const statements: Statement[] = []
  const client = postgres(url, clientOptions)
  const open = (isPrepared: boolean) => drizzle(client, { logger: { logQuery: (query, params) => { statements.push({ query, params, isPrepared }) } } })
  const [db, unprepared] = [open(true), open(false)]
  return {
    statements,
    run: async work => await work(db),
    search: async work => await work(unprepared),
    transaction: async work => await db.transaction(work),
    close: async () => { await client.end({ timeout: 1 }) }
  }
}

async function scansFor (admin: Sql, statements: Statement[]): Promise<Scan[]> {
  const scans: Scan[] = []
  const explain = async (options: string, query: string, params: unknown[]): Promise<void> => {
    // The statement is the service's own text, as it was sent.
    const [row] = await admin.unsafe<Array<{ 'QUERY PLAN': Array<{ Plan: PlanNode }> }>>(`EXPLAIN (${options}FORMAT JSON) ${query}`, params as string[])
    for (const { Plan: plan } of row?.['QUERY PLAN'] ?? []) scans.push(...scansOf(plan))
  }
  for (const { query, params, isPrepared } of statements) {
    await explain('', query, params)
    if (isPrepared && params.length > 0) await explain('GENERIC_PLAN, ', query, [])
  }
  return scans
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
  for (let i = 0; i < 5; i++) await seedKeys(seed, { keys: 400, projectId: undefined, seed: 2 + i, batch: 400 })
  await admin`INSERT INTO roles (project_id, id, name, created_by) SELECT ${projectId}, 'role_' || n, 'Role ' || n, 'test' FROM generate_series(1, 40) n`
  await admin`UPDATE keys SET role_id = 'role_' || (1 + abs(hashtext(id)) % 40) WHERE project_id = ${projectId} AND abs(hashtext(id)) % 4 = 0`
  await admin`
    INSERT INTO audit_events (at, project_id, key_id, actor_type, actor_id, actor_name, action, request_id, details)
    SELECT k.created_at, k.project_id, k.id, 'token', 'tok_' || abs(hashtext(k.id)) % 50, 'somebody', 'key.edit', 'test', '{}' FROM keys k`
  await admin`
    INSERT INTO outbox (project_id, key_id, version, xid, delivered_at)
    SELECT project_id, id, 2, (1 + abs(hashtext(id)) % 500)::text::xid8, now() FROM keys`
  await admin`ANALYZE`
  const rows = await admin<Array<{ name: string }>>`SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND reltuples > ${smallTable}`
  const large = new Set(rows.map(({ name }) => name))
  t.match([...large], ['keys', 'secrets', 'key_scopes', 'audit_events', 'outbox'].map(name => large.has(name) ? String : name))
  return { app, admin, database, large, projectId, secrets }
}

await t.test('every statement finds its rows by an index', async t => {
  const { app, admin, database, large, projectId, secrets } = await startFull(t)

  async function ask (method: 'GET' | 'POST', url: string, payload?: object): Promise<{ body: any, scans: Scan[] }> {
    database.statements.length = 0
    const answer = await app.inject({ method, url: `/v1${url}`, headers: { authorization: `Bearer ${tokens.all}` }, ...payload !== undefined && { payload } })
    t.ok(answer.statusCode < 300, `${method} ${url}: ${answer.statusCode} ${answer.statusCode < 300 ? '' : answer.body}`)
    return { body: answer.json(), scans: await scansFor(admin, database.statements.splice(0)) }
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
