import { sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { keyChecks } from '../db/schema.ts'
import { secretsLive } from '../idempotency/repository.ts'
import type { KeyCheck } from './check-values.ts'
import type { Peppers } from './peppers.ts'
import type { Vault } from './vault.ts'

type Address = Pick<KeyCheck, 'kind' | 'id'>

/**
 * Another value under an old id: the likely slip when a pepper or a key is replaced, and no id is missing then. Each configured id is
 * compared with its check value in the database, which is put there when it has none.
 *
 * A check value binds only as long as something stored needs its id: after that the id may come again with another value, which takes its
 * place. Run it in a transaction and undo that when the start is refused: then nothing is remembered of settings that nobody runs with.
 *
 * @returns a fault per id whose value is another one.
 */
export async function findUnfit (tx: Executor, vault: Vault | undefined, peppers: Peppers): Promise<string[]> {
  const faults: string[] = []
  for (const check of peppers.checks) if (!await fits(tx, check)) faults.push(anotherValue('KEYGATE_PEPPER', 'KEYGATE_PREVIOUS_PEPPERS', check.id, check.id === peppers.currentId))
  for (const check of vault?.checks ?? []) if (!await fits(tx, check)) faults.push(anotherValue('KEYGATE_ENCRYPTION_KEY', 'KEYGATE_PREVIOUS_ENCRYPTION_KEYS', check.id, check.id === vault?.currentId))
  return faults
}

/** Forgets the check value of an id if nothing stored needs it. */
export async function dropUnusedCheck (tx: Executor, { kind, id }: Address): Promise<void> {
  await holdUses(tx)
  if (!await isUsed(tx, { kind, id })) await tx.execute(sql`DELETE FROM key_checks WHERE kind = ${kind} AND id = ${id}`)
}

/**
 * Forgets the check values of peppers that are not configured, whatever is stored under them: a start takes any other text under the id of one that is lost.
 *
 * @returns their ids.
 */
export async function dropLostPeppers (tx: Executor, peppers: Peppers): Promise<string[]> {
  const configured = sql.join(peppers.ids.map(id => sql`${id}`), sql`, `)
  const dropped = await tx.execute<{ id: string }>(sql`DELETE FROM key_checks WHERE kind = 'pepper' AND id NOT IN (${configured}) RETURNING id`)
  return dropped.map(({ id }) => id)
}

/** Of several that record an id at once the first one's value stands, and each of them is told it; its row is locked until the transaction ends. */
async function fits (tx: Executor, check: KeyCheck): Promise<boolean> {
  const [stored] = await tx.insert(keyChecks).values(check)
    .onConflictDoUpdate({ target: [keyChecks.kind, keyChecks.id], set: { id: check.id } }).returning({ value: keyChecks.value })
  return stored?.value === check.value || await replaceUnused(tx, check)
}

/** Looks before it holds anybody up: a service that cannot start is started again and again. */
async function replaceUnused (tx: Executor, check: KeyCheck): Promise<boolean> {
  if (await isUsed(tx, check)) return false
  await holdUses(tx)
  if (await isUsed(tx, check)) return false
  await tx.execute(sql`UPDATE key_checks SET value = ${check.value} WHERE kind = ${check.kind} AND id = ${check.id}`)
  return true
}

/** Waits for whoever is storing something, and lets nobody begin until the transaction ends: "nothing needs it" stays true so long. */
async function holdUses (tx: Executor): Promise<void> {
  await tx.execute(sql`LOCK TABLE secrets, idempotency_keys IN SHARE MODE`)
}

async function isUsed (tx: Executor, { kind, id }: Address): Promise<boolean> {
  const [row] = await tx.execute<{ used: boolean }>(kind === 'pepper'
    ? sql`SELECT EXISTS (SELECT 1 FROM secrets WHERE pepper_id = ${id}) AS used`
    : sql`SELECT EXISTS (SELECT 1 FROM secrets WHERE encryption_key_id = ${id})
        OR EXISTS (SELECT 1 FROM idempotency_keys WHERE encryption_key_id = ${id} AND created_at > now() - ${secretsLive}) AS used`)
  return row?.used === true
}

function anotherValue (variable: string, previousVariable: string, id: string, isCurrent: boolean): string {
  return isCurrent
    ? `${variable} is not the one that stored secrets have under the id "${id}": if it is new, give it a new id in ${variable}_ID and put the old one into ${previousVariable}`
    : `${previousVariable} has under the id "${id}" another value than stored secrets have: put the old one back`
}
