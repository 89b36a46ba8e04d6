import { ConfigError } from '@keygate/service-kit'
import { sql, type SQL } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { findUnfit } from './keys-fit.ts'
import { isNeeded, isNeededReplay } from './needed.ts'
import type { Peppers } from './peppers.ts'
import type { Vault } from './vault.ts'

/** An id that stands in the database, and in how many rows. */
interface Missing { id: string, rows: number }

/**
 * Every pepper and encryption key that something stored needs must be configured, with the value that it had. Said at start, because later it would look like
 * secrets that nobody knows, or that cannot be shown, one by one. Run it in a transaction: a start that is refused leaves nothing behind.
 *
 * @throws {ConfigError} with each missing id, how many secrets need it, and what to do.
 */
export async function checkKeysPresent (tx: Executor, vault: Vault | undefined, peppers: Peppers): Promise<void> {
  const [ofPeppers, ofSecrets, ofReplays] = [
    await findMissing(tx, sql`pepper_id`, peppers.ids),
    await findMissing(tx, sql`encryption_key_id`, vault?.ids ?? []),
    await findMissingForReplays(tx, vault?.ids ?? [])
  ]
  const faults = [...ofPeppers.map(pepperFault), ...add(ofSecrets, ofReplays).map(missing => encryptionKeyFault(missing, vault?.currentId))]
  faults.push(...await findUnfit(tx, vault, peppers))
  if (faults.length > 0) throw new ConfigError(faults)
}

/**
 * Peppers that stand in the database and that this process does not know: another replica has been given a new one. As long as there
 * are any, a secret that is not found may still be one.
 */
export async function findUnknownPeppers (db: Executor, peppers: Peppers): Promise<string[]> {
  return (await findIds(db, sql`pepper_id`)).filter(id => !peppers.ids.includes(id))
}

/** Counts only those that are missing. */
async function findMissing (db: Executor, column: SQL, known: readonly string[]): Promise<Missing[]> {
  const missing: Missing[] = []
  for (const id of (await findIds(db, column)).filter(id => !known.includes(id))) {
    const [counted] = await db.execute<{ rows: string }>(sql`SELECT count(*) AS rows FROM secrets WHERE ${column} = ${id} AND ${isNeeded}`)
    missing.push({ id, rows: Number(counted?.rows ?? 0) })
  }
  return missing
}

async function findMissingForReplays (db: Executor, known: readonly string[]): Promise<Missing[]> {
  const found = await db.execute<{ id: string, rows: string }>(sql`
    SELECT encryption_key_id AS id, count(*) AS rows FROM idempotency_keys
    WHERE encryption_key_id IS NOT NULL AND ${isNeededReplay} GROUP BY encryption_key_id ORDER BY id`)
  return found.filter(({ id }) => !known.includes(id)).map(({ id, rows }) => ({ id, rows: Number(rows) }))
}

/** Goes from one id to the next higher one in the index, however many rows each has. Ordered and limited: so the planner takes the index, whatever it thinks of the values. */
async function findIds (db: Executor, column: SQL): Promise<string[]> {
  const found = await db.execute<{ id: string }>(sql`
    WITH RECURSIVE ids AS (
      (SELECT ${column} AS id FROM secrets WHERE ${column} IS NOT NULL AND ${isNeeded} ORDER BY ${column} LIMIT 1)
      UNION ALL
      SELECT (SELECT ${column} FROM secrets WHERE ${column} > ids.id AND ${isNeeded} ORDER BY ${column} LIMIT 1) FROM ids WHERE ids.id IS NOT NULL
    )
    SELECT id FROM ids WHERE id IS NOT NULL`)
  return found.map(({ id }) => id)
}

function add (...lists: Missing[][]): Missing[] {
  const sums = new Map<string, number>()
  for (const { id, rows } of lists.flat()) sums.set(id, (sums.get(id) ?? 0) + rows)
  return [...sums].map(([id, rows]) => ({ id, rows }))
}

function pepperFault ({ id, rows }: Missing): string {
  return `KEYGATE_PREVIOUS_PEPPERS lacks the pepper "${id}", without which ${secretsOf(rows)} cannot be verified: add ${id}:<the pepper>. If it is lost: node dist/cli.js secrets rewrap saves those that are not sealed`
}

function encryptionKeyFault ({ id, rows }: Missing, currentId: string | undefined): string {
  const where = currentId === undefined
    ? `KEYGATE_ENCRYPTION_KEY is missing, and ${secretsOf(rows)} can be shown only with the key "${id}": set it, and KEYGATE_ENCRYPTION_KEY_ID to ${id}`
    : `KEYGATE_PREVIOUS_ENCRYPTION_KEYS lacks the key "${id}", without which ${secretsOf(rows)} cannot be shown: add ${id}:<the key as base64>`
  return `${where}. If it is lost: node dist/cli.js encryption-key forget ${id}; those secrets are then never shown again, and go on working`
}

function secretsOf (rows: number): string {
  return rows === 1 ? '1 secret' : `${rows} secrets`
}
