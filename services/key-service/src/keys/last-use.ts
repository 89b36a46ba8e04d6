import { sql } from 'drizzle-orm'
import type { FastifyBaseLogger } from 'fastify'
import type { Database } from '../db/database.ts'
import { createDeferredWrites } from '../db/deferred-writes.ts'

export interface LastUseParts {
  database: Database
  log: FastifyBaseLogger
  /** How long a use may wait to be written, so that one statement serves many, in milliseconds. */
  intervalMs: number
}

/** The key is named too: its secret may be erased before its last use is told. */
export interface UsedSecret { projectId: string, keyId: string, secretId: string }

export interface LastUse {
  /** Something was admitted with this secret, at a moment in Unix milliseconds. Returns at once. */
  note: (used: UsedSecret, atMs: number) => void
  /** Writes all that was noted, now. Never rejects. */
  flush: () => Promise<void>
  /** The last flush; nothing is noted after it. */
  close: () => Promise<void>
}

type Noted = Omit<UsedSecret, 'secretId'> & { atMs: number }

/** When a key and its secrets last admitted a request, in steps of at least a minute, off the way of what counts usage. */
export function createLastUse ({ database, log, intervalMs }: LastUseParts): LastUse {
  const { note, flush, close } = createDeferredWrites<Noted>({
    intervalMs,
    merge: (before, after) => before.atMs > after.atMs ? before : after, // batches of several gateways come in any order
    write: async noted => {
      try {
        await database.run(async db => { await db.execute(write(noted)) })
      } catch (error) {
        const { message, code } = error as Error & { code?: unknown }
        log.warn({ reason: message, code, secrets: noted.size }, 'the last use of some keys was not written; their next use writes it')
      }
    }
  })
  return { note: ({ projectId, keyId, secretId }, atMs) => { note(secretId, { projectId, keyId, atMs }) }, flush, close }
}

/**
 * Never backwards, and not beyond this clock by more than a minute: one that ran ahead for a while must not hold the time up afterwards. Rows
 * that somebody else is changing are left out, not waited for: no change waits for this, and none gets in a deadlock with it.
 */
function write (noted: Map<string, Noted>) {
  const uses = [...noted].map(([id, { projectId, keyId, atMs }]) => ({ id, project_id: projectId, key_id: keyId, at: new Date(atMs).toISOString() }))
  return sql`
    WITH came AS (
      SELECT id, project_id, key_id, least(at, now() + interval '1 minute') AS at
      FROM jsonb_to_recordset(${JSON.stringify(uses)}::jsonb) AS noted(id text, project_id uuid, key_id text, at timestamptz)
    ), due_secrets AS (
      SELECT s.id, u.at FROM came u JOIN secrets s ON s.id = u.id AND s.project_id = u.project_id AND s.key_id = u.key_id WHERE ${isDue('s')} FOR UPDATE OF s SKIP LOCKED
    ), written AS (
      UPDATE secrets SET last_used_at = due.at FROM due_secrets due WHERE secrets.id = due.id
    ), uses AS (
      SELECT project_id, key_id, max(at) AS at FROM came GROUP BY project_id, key_id
    ), due_keys AS (
      SELECT k.project_id, k.id, u.at FROM keys k JOIN uses u ON u.project_id = k.project_id AND u.key_id = k.id
      WHERE k.status <> 'deleted' AND (${isDue('k')} OR ${isAfterRevocation}) FOR UPDATE OF k SKIP LOCKED
    )
    UPDATE keys SET last_used_at = due.at FROM due_keys due WHERE keys.project_id = due.project_id AND keys.id = due.id`
}

/** At most once a minute: a use costs a row, and nobody needs it to the second. */
function isDue (row: 's' | 'k') {
  const before = sql`${sql.identifier(row)}.last_used_at`
  return sql`(${before} IS NULL OR ${before} <= u.at - interval '1 minute')`
}

/** That must never be, so the first such use is written whenever it was: it is what gives the lie to a revocation (`since-revoked.ts`). */
const isAfterRevocation = sql`(k.status = 'revoked' AND u.at > k.effective_at AND k.last_used_at <= k.effective_at)`
