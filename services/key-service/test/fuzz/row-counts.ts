import type { Sql } from '../helper.ts'

export type RowCounts = Record<string, number>

/** Of every table of the service, from one snapshot. */
export async function countRows (sql: Sql): Promise<RowCounts> {
  const tables = await sql<Array<{ name: string }>>`SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename`
  const counts = tables.map(({ name }) => sql`SELECT ${name} AS name, count(*)::int AS rows FROM ${sql(name)}`)
  const [first, ...others] = counts
  if (first === undefined) throw new Error('the database has no tables')
  const rows = await sql<Array<{ name: string, rows: number }>>`${first}${others.map(next => sql` UNION ALL ${next}`)}`
  return Object.fromEntries(rows.map(({ name, rows }) => [name, rows]))
}

/** The tables that differ. */
export function changedTables (before: RowCounts, after: RowCounts): string[] {
  return Object.keys({ ...before, ...after }).filter(name => before[name] !== after[name])
}
