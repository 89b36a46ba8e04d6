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

export interface LastUse {
  /** A verification has found this secret. Returns at once. */
  note: (secretId: string) => void
  /** Writes all that was noted, now. Never rejects. */
  flush: () => Promise<void>
  /** The last flush; nothing is noted after it. */
  close: () => Promise<void>
}

/**
 * When a key and its secrets were last used, in steps of at least a minute, off the request's path.
 *
 * What is seen here are look-ups, not requests: a gateway asks for a record in use again once a minute (`recordTtl`), so a key that is
 * used shows it within about a minute. Exact counts come with the records of usage.
 */
export function createLastUse ({ database, log, intervalMs }: LastUseParts): LastUse {
  const { note, flush, close } = createDeferredWrites<true>({
    intervalMs,
    write: async noted => {
      const ids = [...noted.keys()]
      try {
        await database.run(async db => { await db.execute(write(ids)) })
      } catch (error) {
        const { message, code } = error as Error & { code?: unknown }
        log.warn({ reason: message, code, secrets: ids.length }, 'the last use of some keys was not written; their next look-up writes it')
      }
    }
  })
  return { note: secretId => { note(secretId, true) }, flush, close }
}

/**
 * Rows that somebody else is changing are left out, not waited for: no change waits for this, and none gets in a deadlock with it.
 * Neither is a use what no gateway admits: a key that is not active or has expired, a grace that is over.
 */
function write (secretIds: string[]) {
  const isDue = (column: 's' | 'k') => sql`(${sql.identifier(column)}.last_used_at IS NULL OR ${sql.identifier(column)}.last_used_at < now() - interval '1 minute')`
  return sql`
    WITH used AS (
      SELECT s.id, s.project_id, s.key_id FROM secrets s
      JOIN keys k ON k.project_id = s.project_id AND k.id = s.key_id
      WHERE s.id IN (SELECT jsonb_array_elements_text(${JSON.stringify(secretIds)}::jsonb)) AND ${isDue('s')}
        AND k.status = 'active' AND (k.expires_at IS NULL OR k.expires_at > now()) AND (s.not_after IS NULL OR s.not_after > now())
      FOR UPDATE OF s SKIP LOCKED
    ), written AS (
      UPDATE secrets SET last_used_at = now() FROM used WHERE secrets.id = used.id
    ), due AS (
      SELECT k.project_id, k.id FROM keys k
      WHERE (k.project_id, k.id) IN (SELECT project_id, key_id FROM used) AND ${isDue('k')} FOR UPDATE SKIP LOCKED
    )
    UPDATE keys SET last_used_at = now() FROM due WHERE keys.project_id = due.project_id AND keys.id = due.id`
}
