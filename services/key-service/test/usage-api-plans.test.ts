import postgres from 'postgres'
import t, { type Test } from 'tap'
import { describeScan, type Scan } from '../bench/plans.ts'
import type { Executor } from '../src/db/database.ts'
import { makePartitions, partitionOf } from '../src/usage/partitions.ts'
import { countPoints, listPoints, listTopKeys, readPoints, type Selection } from '../src/usage/queries.ts'
import { configFor, startApp, startHouse } from './helper.ts'
import { recordingDatabase, scansFor } from './recording.ts'

const [hourMs, dayMs] = [3_600_000, 86_400_000]
const monday = Date.parse('2026-11-02T00:00:00Z')
const iso = (ms: number): string => new Date(ms).toISOString()
/** A range inside of the second of four weeks; the days are of two years. */
const range = { from: iso(monday + 8 * dayMs), until: iso(monday + 11 * dayMs) }
const week = 'usage_hours_20261109'

async function start (t: Test) {
  const house = await startHouse(t)
  const url = await house.database()
  const { call, parts } = await startApp(t, configFor(t, url, house.redis.url))
  const projects: string[] = []
  for (let i = 0; i < 6; i++) projects.push((await call('POST', '/projects', { name: 'Project' })).body.id)
  const admin = postgres(url, { max: 1, onnotice: () => {} })
  t.teardown(async () => { await admin.end({ timeout: 1 }) })
  await parts.database.transaction(async tx => {
    await makePartitions(tx, [0, 7, 14, 21].map(days => partitionOf('usage_hours', new Date(monday + days * dayMs))))
    await makePartitions(tx, [partitionOf('usage_days', new Date('2025-01-01T00:00:00Z')), partitionOf('usage_days', new Date('2026-01-01T00:00:00Z'))])
  })
  const keyOf = (n: string) => `'key_' || lpad(${n}::text, 22, '0')`
  for (const projectId of projects) {
    await admin`INSERT INTO keys (project_id, id, name, status, created_by, allowed_for_all) SELECT ${projectId}, 'key_' || substr(md5(${projectId} || n), 1, 22), 'Key', 'active', 'test', false FROM generate_series(1, 500) n`
    // As much in the rows of the project as in those of its keys: 40 keys an hour, and two operations.
    await admin.unsafe(`
      INSERT INTO usage_hours SELECT $1, k, $2::timestamptz + h * interval '1 hour', 'forms', o, 'submissions', 1, 0, 0, 0, 0
      FROM generate_series(0, 28 * 24 - 1) h, unnest(ARRAY['a', 'b']) o, LATERAL (SELECT '*' AS k UNION ALL SELECT ${keyOf('n')} FROM generate_series(1, 10) n) k`, [projectId, iso(monday)])
    await admin.unsafe(`
      INSERT INTO usage_days SELECT $1, k, $2::timestamptz + d * interval '1 day', 'forms', o, 'submissions', 1, 0, 0, 0, 0
      FROM generate_series(0, 729) d, unnest(ARRAY['a', 'b']) o, LATERAL (SELECT '*' AS k UNION ALL SELECT ${keyOf('n')} FROM generate_series(1, 10) n) k`, [projectId, '2025-01-01T00:00:00Z'])
    await admin`INSERT INTO usage_lines (boot_id, project_id, hour, admitted, finished) SELECT 'boot ' || b, ${projectId}, ${iso(monday)}::timestamptz + h * interval '1 hour', 2, 1 FROM generate_series(0, 671) h, generate_series(1, 3) b`
  }
  await admin`ANALYZE`

  const database = recordingDatabase(url)
  t.teardown(async () => { await database.close() })
  /** The scans of all that is asked meanwhile. */
  async function scansDuring (work: (db: Executor) => Promise<unknown>): Promise<Scan[]> {
    await database.search(work)
    return await scansFor(admin, database.statements.splice(0))
  }
  return { projectId: projects[2] as string, keyId: `key_${'7'.padStart(22, '0')}`, scansDuring }
}

const { projectId, keyId, scansDuring } = await start(t)

/** Only these partitions, each by an index: that of its primary key, or for all keys at a time the one of (project, time). */
function judge (t: Test, scans: Scan[], partitions: string[]): void {
  const ofSums = scans.filter(({ table }) => /^usage_(minutes|hours|days)/.test(table))
  t.same([...new Set(ofSums.map(({ table }) => table))].sort(), partitions, 'the others are not looked at')
  t.ok(partitions.every(name => ofSums.some(({ table, index }) => table === name && index !== undefined)), ofSums.map(describeScan).join(', '))
  t.same(ofSums.filter(({ node }) => node === 'Seq Scan').map(describeScan), [])
  t.same(scans.filter(({ node, table }) => node === 'Seq Scan' && table === 'usage_lines').map(describeScan), [])
}

const ofHours: Selection = { projectId, interval: 'hour', groupBy: 'none', ...range }
const group: Record<Selection['groupBy'], string[]> = { none: [], scope: ['submissions'], operation: ['forms', 'a'], key: [keyId] }

for (const groupBy of ['none', 'scope', 'operation', 'key'] as const) {
  await t.test(`a project by ${groupBy}`, async t => {
    judge(t, await scansDuring(async db => await listPoints(async work => await work(db), { ...ofHours, groupBy }, { limit: 50 })), [week])
    judge(t, await scansDuring(async db => await readPoints(db, { ...ofHours, groupBy, scope: 'submissions', until: iso(monday + 20 * dayMs) }, { at: iso(monday + 10 * dayMs), group: group[groupBy] }, 50)), [week, 'usage_hours_20261116'])
    judge(t, await scansDuring(async db => await readPoints(db, { ...ofHours, groupBy, interval: 'day', from: '2026-01-01T00:00:00Z' }, undefined, 50)), ['usage_days_2026'])
    judge(t, await scansDuring(async db => await countPoints(async work => await work(db), { ...ofHours, groupBy })), [week])
  })
}

await t.test('a later page looks at no partition that is over', async t => {
  const after = { at: iso(monday + 15 * dayMs), group: [] }
  judge(t, await scansDuring(async db => await readPoints(db, { ...ofHours, from: iso(monday), until: iso(monday + 28 * dayMs) }, after, 50)), ['usage_hours_20261116', 'usage_hours_20261123'])
})

for (const groupBy of ['none', 'scope', 'operation'] as const) {
  await t.test(`a key by ${groupBy}`, async t => {
    judge(t, await scansDuring(async db => await listPoints(async work => await work(db), { ...ofHours, keyId, groupBy }, { limit: 50 })), [week])
  })
}

await t.test('top keys', async t => {
  judge(t, await scansDuring(async db => await listTopKeys(async work => await work(db), projectId, { interval: 'hour', by: 'admitted', limit: 10 }, { from: range.from, until: iso(Date.parse(range.from) + 24 * hourMs) })), [week])
  judge(t, await scansDuring(async db => await listTopKeys(async work => await work(db), projectId, { interval: 'day', by: 'limited', limit: 10 }, range)), ['usage_days_2026'])
})
