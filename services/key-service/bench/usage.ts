import { parseArgs } from 'node:util'
import { startHouse, type House, type ReadLines } from './house.ts'
import { measure, type Operation } from './measure.ts'
import { plansIn, scansOf, type Scan } from './plans.ts'
import { table } from './table.ts'
import { usageExports, usageQuestions, type Question, type Subject } from './usage-questions.ts'
import { measureWrites, type Load, type Written } from './writes.ts'

/**
 * Usage: npm run bench:usage -w services/key-service -- [--keys 10000] [--days 365] [--seconds 60] [--only writes]. Ends with 1 when a question
 * takes too long, or when writes grow with requests.
 */
const { values } = parseArgs({ options: { keys: { type: 'string', default: '10000' }, days: { type: 'string', default: '365' }, seconds: { type: 'string', default: '60' }, only: { type: 'string' } } })
const [keys, days, seconds] = [Number(values.keys), Number(values.days), Number(values.seconds)]

/** Nobody should notice that a question was asked; of what adds up all keys some may. Milliseconds. */
const [longest, longestOfAllKeys] = [200, 1000]
/** Until an export begins to come, however long it is. Milliseconds. */
const longestStart = 1000
/** Rows of a partition that may be read as a whole: that is as quick as an index. */
const small = 20_000
/** What that is called, instead of "Seq Scan". */
const ofFewRows = 'few rows'
/** Of exports, lines that are waited for. */
const exported = 100_000
/** The same requests of more keys, and more requests of the same keys. */
const loads: Load[] = [
  { keys: 100, requestsPerSecond: 500, together: 1 },
  { keys: 100, requestsPerSecond: 5000, together: 1 },
  { keys: 100, requestsPerSecond: 50_000, together: 1 },
  { keys: 1000, requestsPerSecond: 5000, together: 1 },
  { keys: 1000, requestsPerSecond: 50_000, together: 1 },
  { keys: 1000, requestsPerSecond: 50_000, together: 5 },
  { keys: 1000, requestsPerSecond: 50_000, together: 50 }
]
/** How much more may be written for a hundred times the requests. */
const mostGrowth = 1.2

const begun = performance.now()
const say = (line: string): void => { console.log(line) }
const progress = (phase: string): void => { console.error(`[${((performance.now() - begun) / 1000).toFixed(0)} s] ${phase}`) }

const house = await startHouse()
const { admin } = house
try {
  const [{ version } = { version: '' }] = await admin<Array<{ version: string }>>`SELECT current_setting('server_version') AS version`
  say(`PostgreSQL ${version}, Node ${process.versions.node}`)
  const faults: string[] = []
  if (values.only !== 'writes') faults.push(...await askAll())
  if (values.only !== 'questions') faults.push(...await writeAll())
  for (const fault of faults) say(fault)
  process.exitCode = faults.length > 0 ? 1 : 0
} finally {
  await house.stop()
}

async function askAll (): Promise<string[]> {
  progress(`seeding ${days} days of ${keys} keys`)
  const projectId = await house.seedUsage(keys, days)
  progress('vacuum, as it comes by itself after a while')
  await admin`VACUUM ANALYZE`
  await saySizes()
  const subject = await subjectOf(projectId)
  const questions = usageQuestions(house, subject)
  const figures = await measure(questions, (round, of) => { progress(`asking, round ${round} of ${of}`) }, { warmUp: 2, rounds: 5, callsPerRound: 3 })
  progress('exports')
  const exports = await measureExports(house, subject)
  progress('plans')
  const plans = await plansOf(questions)
  say('\none call at a time over HTTP; milliseconds; what of the partitioned tables is read, and by which index')
  say(table(['', 'median', 'p95', 'partitions', 'indexes'], questions.map(({ name }) => {
    const { median, p95 } = figures.get(name) ?? { median: NaN, p95: NaN }
    const scans = plans.get(name) ?? []
    return [name, median.toFixed(1), p95.toFixed(1), summary(scans.filter(({ node }) => node !== 'Bitmap Index Scan').map(scan => scan.table)), summary(scans.map(({ node, index }) => index ?? (node === 'Seq Scan' ? 'NONE' : node === ofFewRows ? node : '')))]
  })))
  say(`\nexports, as far as ${exported} lines`)
  say(table(['', 'first ms', 'lines', 's', 'lines/s', 'X-Total-Rows'], exports.map(({ name, lines, s, firstMs, total }) => [
    name, firstMs.toFixed(0), String(lines), s.toFixed(2), Math.round(lines / s).toString(), String(total ?? '')
  ])))
  const mostOf = ({ ofAllKeys }: Question): number => ofAllKeys === true ? longestOfAllKeys : longest
  return [
    ...questions.filter(question => !((figures.get(question.name)?.median ?? NaN) <= mostOf(question))).map(question => `Longer than ${mostOf(question)} ms: ${question.name}`),
    ...questions.filter(({ name, ofAllKeys }) => ofAllKeys !== true && plans.get(name)?.some(({ node }) => node === 'Seq Scan')).map(({ name }) => `Reads a partition as a whole: ${name}`),
    ...exports.filter(({ firstMs }) => firstMs > longestStart).map(({ name }) => `Begins later than after ${longestStart} ms: ${name}`)
  ]
}

async function writeAll (): Promise<string[]> {
  await admin`ALTER SYSTEM SET autovacuum = off`
  await admin`SELECT pg_reload_conf()`
  const found: Array<{ load: Load, written: Written }> = []
  for (const load of loads) {
    progress(`storing ${seconds} s of ${load.requestsPerSecond} requests/s by ${load.keys} keys`)
    found.push({ load, written: await measureWrites(house, load, seconds) })
  }
  say(`\nstoring ${seconds} s of one gateway's batches, five a second; each per second of the gateway's time`)
  say(table(['', 'rows', 'of updates, in place', 'transactions', 'WAL KiB', 'batches KiB', 'storing ms'], found.map(({ load, written }) => [
    `${load.keys} keys, ${load.requestsPerSecond} requests/s${load.together === 1 ? '' : `, ${load.together} batches at once`}`, written.rows.toFixed(0), `${(100 * written.updatedInPlace).toFixed(0)} %`, written.transactions.toFixed(1),
    (written.walBytes / 1024).toFixed(0), (written.batchBytes / 1024).toFixed(0), written.storeMs.toFixed(0)
  ])))
  const [least, , most] = found
  const growth = (most?.written.rows ?? NaN) / (least?.written.rows ?? NaN)
  return growth <= mostGrowth ? [] : [`A hundred times the requests of the same keys write ${growth.toFixed(1)} times the rows`]
}

async function subjectOf (projectId: string): Promise<Subject> {
  const rows = await admin<Array<{ key: string }>>`
    SELECT key_id AS key FROM usage_hours WHERE project_id = ${projectId} AND key_id <> '*' GROUP BY key_id ORDER BY count(*) DESC, key_id`
  return { projectId, hotKey: rows[0]?.key ?? '', quietKey: rows[Math.floor(rows.length / 2)]?.key ?? '' }
}

async function saySizes (): Promise<void> {
  const rows = await admin<Array<Record<'name' | 'partitions' | 'rows' | 'mb' | 'index_mb', string | number>>>`
    SELECT p.relname AS name, count(*) AS partitions, sum(greatest(c.reltuples, 0))::bigint AS rows, (sum(pg_table_size(c.oid)) / 1e6)::int AS mb, (sum(pg_indexes_size(c.oid)) / 1e6)::int AS index_mb
    FROM pg_class p JOIN pg_inherits i ON i.inhparent = p.oid JOIN pg_class c ON c.oid = i.inhrelid WHERE p.relkind = 'p' GROUP BY 1
    UNION ALL SELECT relname, 1, reltuples::bigint, (pg_table_size(oid) / 1e6)::int, (pg_indexes_size(oid) / 1e6)::int FROM pg_class WHERE relname = 'usage_callers' ORDER BY 1`
  say(table(['', 'partitions', 'rows', 'MB', 'MB of indexes'], rows.map(row => [row.name, row.partitions, row.rows, row.mb, row.index_mb].map(String))))
}

async function measureExports ({ readLines }: House, subject: Subject): Promise<Array<ReadLines & { name: string, s: number }>> {
  const found: Array<ReadLines & { name: string, s: number }> = []
  for (const { name, path } of usageExports(subject)) {
    const begun = performance.now()
    const read = await readLines(path, exported)
    found.push({ name, ...read, s: (performance.now() - begun) / 1000 })
  }
  return found
}

function isOfUsage ({ table }: Scan): boolean {
  return /^(usage_(minutes|hours|days|callers)|request_log)/.test(table)
}

async function plansOf (questions: Operation[]): Promise<Map<string, Scan[]>> {
  const few = new Set((await admin<Array<{ name: string }>>`SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND reltuples <= ${small}`).map(({ name }) => name))
  await house.explainAll()
  const plans = new Map<string, Scan[]>()
  for (const { name, call } of questions) {
    const log = await house.logOf(async () => await call(0))
    plans.set(name, plansIn(log).flatMap(plan => scansOf(plan)).filter(isOfUsage).map(scan => scan.node === 'Seq Scan' && few.has(scan.table) ? { ...scan, node: ofFewRows } : scan))
  }
  return plans
}

/** Partitions of one table as their number: `usage_hours 2`. */
function summary (names: string[]): string {
  const families = new Map<string, Set<string>>()
  for (const name of names.filter(name => name !== '')) {
    const family = name.replace(/_\d{4,8}(?=_|$)/, '')
    families.set(family, (families.get(family) ?? new Set()).add(name))
  }
  return [...families].map(([family, members]) => `${family} ${members.size}`).join(', ')
}
