import { sql } from 'drizzle-orm'
import type { Database, Executor } from '../db/database.ts'
import { beginning, type End } from './chain.ts'
import { compareWithHead, follow, type Break, type StoredEvent } from './check.ts'
import { eventRow, isoTime } from './queries.ts'

/** `end` is as far as the chain holds; `broken` undefined: to its head. */
export interface ChainReport { chain: string, end: End, broken: Break | undefined }

export interface VerifyOptions {
  /** A head of this chain that was kept elsewhere: the chain must still go through it. */
  kept?: End | undefined
  /** Told how many events the last page had. */
  onRead?: (events: number) => void
}

const pageSize = 1000

/**
 * Recomputes a chain from its first event on and stops at the first break. Events may be added meanwhile: a page comes with the head
 * of its own moment, and the last page's decides.
 */
export async function verifyChain (database: Database, chain: string, { kept, onRead = () => {} }: VerifyOptions = {}): Promise<ChainReport> {
  let end = beginning
  for (let isFirst = true; ; isFirst = false) {
    const { head, unnumbered, events } = await database.run(async db => await readPage(db, chain, isFirst ? null : end.seq))
    for (const event of events) {
      const next = follow(end, event)
      if ('fault' in next) return { chain, end, broken: next }
      if (next.seq === kept?.seq && next.hash !== kept.hash) return { chain, end, broken: { fault: 'not-as-kept', seq: next.seq } }
      end = next
    }
    onRead(events.length)
    if (events.length === pageSize) continue
    return { chain, end, broken: unnumbered > 0 ? { fault: 'unnumbered', seq: null, count: unnumbered } : compareWithHead(end, head) ?? compareWithKept(end, kept) }
  }
}

function compareWithKept (end: End, kept: End | undefined): Break | undefined {
  return kept === undefined || kept.seq <= end.seq ? undefined : { fault: 'missing', seq: end.seq + 1, last: kept.seq, says: 'kept' }
}

/** One statement, so that events and head are of one moment. */
async function readPage (db: Executor, chain: string, after: number | null): Promise<{ head: End | null, unnumbered: number, events: StoredEvent[] }> {
  const [page] = await db.execute<{ head: End | null, unnumbered: string, events: StoredEvent[] }>(sql`
    SELECT
      (SELECT json_build_object('seq', seq, 'hash', hash) FROM audit_chains WHERE chain = ${chain}) AS head,
      (SELECT count(*) FROM audit_events WHERE chain = ${chain} AND seq IS NULL) AS unnumbered,
      (SELECT coalesce(json_agg(event ORDER BY seq), '[]') FROM (
        SELECT ${eventRow} AS event, seq FROM audit_events WHERE chain = ${chain} AND ${after === null ? sql`seq IS NOT NULL` : sql`seq > ${after}`}
        ORDER BY seq LIMIT ${pageSize}) page) AS events`)
  if (page === undefined) throw new Error('a page of audit events could not be read')
  return { ...page, unnumbered: Number(page.unnumbered) }
}

/** All chains with what their heads say, also those of which only the head or only events are left. */
export async function listChains (db: Executor): Promise<Array<{ chain: string, seq: number }>> {
  const rows = await db.execute<{ chain: string, seq: string }>(sql`
    SELECT chain, coalesce(seq, 0) AS seq FROM audit_chains FULL JOIN (SELECT DISTINCT chain FROM audit_events WHERE chain IS NOT NULL) events USING (chain)
    ORDER BY chain`)
  return rows.map(({ chain, seq }) => ({ chain, seq: Number(seq) }))
}

/** Events from before there were chains: nothing can be said about them, but how many they are and of when the newest is. */
export async function countUnchained (db: Executor): Promise<{ count: number, newest: string | null }> {
  const [row] = await db.execute<{ count: string, newest: string | null }>(sql`
    SELECT count(*) AS count, ${isoTime(sql`max(at)`)} AS newest FROM audit_events WHERE chain IS NULL`)
  return { count: Number(row?.count ?? 0), newest: row?.newest ?? null }
}
