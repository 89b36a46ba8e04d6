import { startHouse } from './house.ts'
import { measure, type Figures, type Operation } from './measure.ts'
import { operationsOn } from './operations.ts'
import { describeScan, plansIn, scansOf, type Scan } from './plans.ts'
import { table } from './table.ts'

/** Usage: npm run bench -w services/key-service. Ends with 1 when an operation is more than twice as slow, or reads a whole table. */
const [few, many] = [1000, 100_000]
const most = 2
/** Projects beside the measured one, so that an index on the project alone would not do. */
const others = { projects: 20, keys: 500 }
/** A table of fewer rows may be read as a whole: that is the quickest way. */
const smallTable = 1000

const begun = performance.now()
const say = (line: string): void => { console.log(line) }
const progress = (phase: string): void => { console.error(`[${((performance.now() - begun) / 1000).toFixed(0)} s] ${phase}`) }

const house = await startHouse()
const { admin } = house
try {
  const { id: projectId } = await house.call<{ id: string }>('POST', '/v1/projects', { name: 'Measured' }, 201)
  const digests: string[] = []
  const small = await measureAt(few)
  progress(`seeding ${others.projects} other projects`)
  for (let i = 0; i < others.projects; i++) await house.seed(others.keys)
  const large = await measureAt(many)
  const [{ version } = { version: '' }] = await admin<Array<{ version: string }>>`SELECT current_setting('server_version') AS version`
  say(`PostgreSQL ${version}, Node ${process.versions.node}; one call at a time over HTTP; milliseconds`)
  const slower = compare(small.figures, large.figures)

  progress('plans')
  const whole = await explain(large.operations)
  for (const name of slower) say(`More than ${most} x as slow at ${many} keys: ${name}`)
  for (const name of whole) say(`Reads a whole table: ${name}`)
  process.exitCode = slower.length + whole.length > 0 ? 1 : 0

  async function measureAt (wanted: number): Promise<{ figures: Map<string, Figures>, operations: Operation[] }> {
    progress(`seeding up to ${wanted} keys`)
    digests.push(...await house.seed(wanted - await keysOf(projectId), projectId))
    await admin`ANALYZE`
    progress(`the way to the middle of ${wanted} keys`)
    const operations = await operationsOn(house, { projectId, keys: wanted, digests })
    const figures = await measure(operations, (round, of) => { progress(`measuring at ${wanted} keys, round ${round} of ${of}`) })
    return { figures, operations }
  }
} finally {
  await house.stop()
}

async function keysOf (projectId: string): Promise<number> {
  const [row] = await admin<Array<{ count: string }>>`SELECT count(*) FROM keys WHERE project_id = ${projectId}`
  return Number(row?.count)
}

/** Prints both and returns what became too slow. */
function compare (small: Map<string, Figures>, large: Map<string, Figures>): string[] {
  const rows = [...small].map(([name, at]) => {
    const then = large.get(name) as Figures
    return { name, at, then, ratio: then.median / at.median }
  })
  say(table(['', `median at ${few}`, 'p95', `median at ${many}`, 'p95', 'ratio of medians'],
    rows.map(({ name, at, then, ratio }) => [name, ...[at.median, at.p95, then.median, then.p95, ratio].map(n => n.toFixed(2))])))
  return rows.filter(({ ratio }) => ratio > most).map(({ name }) => name)
}

/** Prints how PostgreSQL finds the rows of each operation and returns those for which it reads a large table as a whole. */
async function explain (operations: Operation[]): Promise<string[]> {
  const rows = await admin<Array<{ name: string }>>`SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND reltuples > ${smallTable}`
  const large = new Set(rows.map(({ name }) => name))
  await house.explainAll()
  const found: Array<{ name: string, scans: Scan[] }> = []
  for (const { name, call } of operations) {
    const log = await house.logOf(async () => await call(0))
    found.push({ name, scans: plansIn(log).flatMap(plan => scansOf(plan)).filter(scan => large.has(scan.table)) })
  }
  say(`\nscans of tables with more than ${smallTable} rows`)
  for (const { name, scans } of found) say(`- ${name}: ${[...new Set(scans.map(describeScan))].join(', ')}`)
  return found.filter(({ scans }) => scans.some(({ node }) => node === 'Seq Scan')).map(({ name }) => name)
}
