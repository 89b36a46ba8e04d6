import { sql, type SQL } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'

/** Tables that are cut by time, so that old rows leave as whole tables and not one by one. */
export const partitioned = {
  usage_minutes: 'day',
  usage_hours: 'week',
  usage_days: 'year',
  request_log: 'day'
} as const

export type Partitioned = keyof typeof partitioned
export interface Partition { table: Partitioned, name: string, from: Date, until: Date }

/** Any number, the same in every process: partitions are made and dropped one at a time. */
const advisoryLock = 5394284
/** How long the drop of a partition lets everybody else wait. */
const longestWaitMs = 500
const dayMs = 86_400_000
/** 1970-01-05, a Monday. */
const firstMonday = 4 * dayMs

/** The partition that a moment belongs to. Weeks begin on Monday, all of it in UTC. */
export function partitionOf (table: Partitioned, at: Date): Partition {
  const [from, until] = boundsOf(partitioned[table], at)
  const name = partitioned[table] === 'year' ? String(from.getUTCFullYear()) : from.toISOString().slice(0, 10).replaceAll('-', '')
  return { table, name: `${table}_${name}`, from, until }
}

function boundsOf (unit: (typeof partitioned)[Partitioned], at: Date): [Date, Date] {
  const ms = at.getTime()
  switch (unit) {
    case 'day': return ranged(ms - mod(ms, dayMs), dayMs)
    case 'week': return ranged(ms - mod(ms - firstMonday, 7 * dayMs), 7 * dayMs)
    case 'year': return [new Date(Date.UTC(at.getUTCFullYear(), 0, 1)), new Date(Date.UTC(at.getUTCFullYear() + 1, 0, 1))]
  }
}

function ranged (from: number, length: number): [Date, Date] { return [new Date(from), new Date(from + length)] }
function mod (a: number, b: number): number { return ((a % b) + b) % b }

/**
 * Makes those that are missing, in a transaction of its own. Each is made beside its table and then attached, which nobody who reads or writes
 * waits for, nor is waited for (a backup that reads for hours); `CREATE TABLE ... PARTITION OF` would lock the whole table.
 */
export async function makePartitions (tx: Executor, partitions: Partition[]): Promise<void> {
  await tx.execute(sql`SELECT pg_advisory_xact_lock(${advisoryLock})`)
  for (const { table, name, from, until } of partitions) {
    const found = await tx.execute(sql`SELECT 1 WHERE to_regclass(${name}) IS NOT NULL`)
    if (found.length > 0) continue
    await tx.execute(sql`CREATE TABLE ${sql.identifier(name)} (LIKE ${sql.identifier(table)} INCLUDING DEFAULTS) WITH (fillfactor = 70)`)
    await tx.execute(sql`ALTER TABLE ${sql.identifier(table)} ATTACH PARTITION ${sql.identifier(name)} FOR VALUES FROM (${literal(from)}) TO (${literal(until)})`)
  }
}

/** A partition that there is: its size with its indexes, and its rows as PostgreSQL has estimated them last; null: never. */
export interface FoundPartition extends Partition { bytes: number, rows: number | null }

/** Those that there are, oldest first. */
export async function listPartitions (db: Executor, table: Partitioned): Promise<FoundPartition[]> {
  const found = await db.execute<{ name: string, from: string | null, until: string | null, bytes: string, rows: number | null }>(sql`
    SELECT c.relname AS name, pg_total_relation_size(c.oid) AS bytes, nullif(c.reltuples, -1) AS rows,
      extract(epoch FROM (regexp_match(pg_get_expr(c.relpartbound, c.oid), $$FROM [(]'([^']+)'[)]$$))[1]::timestamptz) * 1000 AS from,
      extract(epoch FROM (regexp_match(pg_get_expr(c.relpartbound, c.oid), $$TO [(]'([^']+)'[)]$$))[1]::timestamptz) * 1000 AS until
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = ${table}::regclass ORDER BY 4`)
  // One whose bounds say something else is not of our making, and nobody may drop it by its age.
  return found.filter(({ from, until }) => from !== null && until !== null).map(({ name, from, until, bytes, rows }) => ({ table, name, from: new Date(Number(from)), until: new Date(Number(until)), bytes: Number(bytes), rows: rows === null ? null : Number(rows) }))
}

/**
 * Drops a partition with all its rows. That locks the whole table, and while it waits for somebody who reads for long (a backup), everybody
 * else waits behind it: so it does not wait for long.
 *
 * @throws 55P03 (`lock_timeout`) then.
 */
export async function dropPartition (tx: Executor, { name }: Pick<Partition, 'name'>): Promise<void> {
  await tx.execute(sql`SELECT pg_advisory_xact_lock(${advisoryLock})`)
  await tx.execute(sql`SELECT set_config('lock_timeout', ${String(longestWaitMs)}, true)`)
  await tx.execute(sql`DROP TABLE IF EXISTS ${sql.identifier(name)}`)
}

/** Bounds take no parameters. */
function literal (at: Date): SQL {
  // eslint-disable-next-line no-restricted-properties, no-restricted-syntax -- a date of our own making
  return sql.raw(`'${at.toISOString()}'`)
}
