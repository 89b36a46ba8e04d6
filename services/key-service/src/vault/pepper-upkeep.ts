import { sql } from 'drizzle-orm'
import type { FastifyBaseLogger } from 'fastify'
import type { Database } from '../db/database.ts'
import { createDeferredWrites } from '../db/deferred-writes.ts'
import type { Peppers } from './peppers.ts'

/** A secret that a verification found, and its SHA-256, which only a verification knows. */
export interface SecretInUse { secretId: string, digest: string }

export interface PepperUpkeepParts {
  database: Database
  peppers: Peppers
  log: FastifyBaseLogger
  /** How long what was noted may wait, so that one statement serves many, in milliseconds. */
  intervalMs: number
}

export interface PepperUpkeep {
  /** Call it for a secret that was found under another pepper than the current one. Returns at once. */
  note: (secret: SecretInUse) => void
  /** Moves all that was noted, now. Never rejects. */
  flush: () => Promise<void>
  /** The last flush; nothing is noted after it. */
  close: () => Promise<void>
}

/** Secrets per statement. */
const batchSize = 500

/**
 * Moves secrets from an old pepper to the current one as they are used, off the request's path. Those that are sealed have no other
 * way: what is digested is known only while somebody presents it.
 */
export function createPepperUpkeep ({ database, peppers, log, intervalMs }: PepperUpkeepParts): PepperUpkeep {
  async function moveBatch (secrets: SecretInUse[]): Promise<void> {
    try {
      await database.run(async db => { await db.execute(moveToCurrent(peppers, secrets)) })
    } catch (error) {
      // Not the error itself: PostgreSQL's details may quote a digest.
      const { message, code } = error as Error & { code?: unknown }
      log.warn({ reason: message, code, secrets: secrets.length }, 'secrets stay under an old pepper until they are used again')
    }
  }

  const { note, flush, close } = createDeferredWrites<string>({
    intervalMs,
    write: async noted => {
      const secrets = [...noted].map(([secretId, digest]) => ({ secretId, digest }))
      for (let start = 0; start < secrets.length; start += batchSize) await moveBatch(secrets.slice(start, start + batchSize))
    }
  })
  return { note: ({ secretId, digest }) => { note(secretId, digest) }, flush, close }
}

/** Only where the old digest still stands: a secret that was replaced or moved in the meantime is left alone. */
function moveToCurrent (peppers: Peppers, secrets: SecretInUse[]) {
  const moves = secrets.flatMap(({ secretId, digest }) => {
    const [current, ...previous] = peppers.all(digest)
    return previous.map(old => ({ secretId, old: old.digest, oldPepper: old.pepperId, new: current?.digest }))
  })
  return sql`
    UPDATE secrets SET digest = m."new", pepper_id = ${peppers.currentId}
    FROM jsonb_to_recordset(${JSON.stringify(moves)}::jsonb) AS m("secretId" text, "old" text, "oldPepper" text, "new" text)
    WHERE secrets.id = m."secretId" AND secrets.digest = m."old" AND secrets.pepper_id = m."oldPepper"`
}
