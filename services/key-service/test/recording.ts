import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { scansOf, type PlanNode, type Scan } from '../bench/plans.ts'
import { clientOptions, type Database } from '../src/db/database.ts'
import type { Sql } from './helper.ts'

/** `isPrepared`: the server may come to use one plan for all values. */
export interface Statement { query: string, params: unknown[], isPrepared: boolean }

/** A database that remembers what it was asked. */
export function recordingDatabase (url: string): Database & { statements: Statement[] } {
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

/** How PostgreSQL reads the tables for statements: for their own values, and for any. */
export async function scansFor (admin: Sql, statements: Statement[]): Promise<Scan[]> {
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
