import { and, eq, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { keyChecks } from '../db/schema.ts'
import type { KeyCheck } from './check-values.ts'
import { askCiphertexts, askDigests, type Evidence } from './evidence.ts'
import { isPepperNeeded } from './needed.ts'
import type { Peppers } from './peppers.ts'
import type { Vault } from './vault.ts'

type Address = Pick<KeyCheck, 'kind' | 'id'>

const addressOf = ({ kind, id }: Address) => and(eq(keyChecks.kind, kind), eq(keyChecks.id, id))

/** A value under an id of the settings, and what stored data say of it. */
interface Candidate { check: KeyCheck, isCurrent: boolean, ask: () => Promise<Evidence> }

/**
 * Another value under an old id: the likely slip when a pepper or a key is replaced, and no id is missing then.
 *
 * A value that is the recorded one is right. Of any other, and when none is recorded, stored data decide: a value that some of them were
 * made with is right, whatever is recorded, and takes that place. Where there are none to ask, because all are sealed, the recorded
 * value binds as long as something stored needs the id, and without one the first value that comes is recorded.
 *
 * Nothing is locked but rows of `key_checks`. What another process is storing at this moment is not seen, and need not be: once it
 * stands there it decides. Run it in a transaction and undo that when the start is refused: then nothing is remembered of settings that
 * nobody runs with.
 *
 * @returns a fault per id whose value is another one.
 */
export async function findUnfit (tx: Executor, vault: Vault | undefined, peppers: Peppers): Promise<string[]> {
  const candidates: Candidate[] = peppers.checks.map(check => ({ check, isCurrent: check.id === peppers.currentId, ask: async () => await askDigests(tx, vault, peppers, check.id) }))
  if (vault !== undefined) candidates.push(...vault.checks.map(check => ({ check, isCurrent: check.id === vault.currentId, ask: async () => await askCiphertexts(tx, vault, check.id) })))
  const faults: string[] = []
  for (const candidate of candidates) {
    const fault = await findFault(tx, candidate)
    if (fault !== undefined) faults.push(fault)
  }
  return faults
}

export async function dropCheck (tx: Executor, address: Address): Promise<void> {
  await tx.delete(keyChecks).where(addressOf(address))
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

async function findFault (tx: Executor, { check, isCurrent, ask }: Candidate): Promise<string | undefined> {
  const recorded = await record(tx, check)
  if (recorded === 'this') return undefined
  const { asked, fitting } = await ask()
  if (asked > 0 && fitting === 0) return check.kind === 'pepper' ? unfitPepper(check.id, isCurrent, asked) : unfitKey(check.id, isCurrent, asked)
  if (recorded === 'now') return undefined
  // Of an encryption key that something needs there is always a ciphertext to ask.
  if (asked === 0 && check.kind === 'pepper' && await isPepperNeeded(tx, check.id)) return notTheRecordedPepper(check.id, isCurrent)
  await tx.update(keyChecks).set({ value: check.value }).where(addressOf(check))
  return undefined
}

/** Of several that record an id at once the first one's value stands, and each of them is told it; its row is locked until the transaction ends. */
async function record (tx: Executor, check: KeyCheck): Promise<'now' | 'this' | 'another'> {
  const inserted = await tx.insert(keyChecks).values(check).onConflictDoNothing().returning({ id: keyChecks.id })
  if (inserted.length > 0) return 'now'
  const [stored] = await tx.select({ value: keyChecks.value }).from(keyChecks).where(addressOf(check)).for('update')
  return stored?.value === check.value ? 'this' : 'another'
}

function unfitKey (id: string, isCurrent: boolean, asked: number): string {
  const what = `decrypts nothing of what is stored under its id (tried: ${asked})`
  return isCurrent
    ? `KEYGATE_ENCRYPTION_KEY with the id "${id}" ${what}: if it is new, give it a new id in KEYGATE_ENCRYPTION_KEY_ID and put the old one into KEYGATE_PREVIOUS_ENCRYPTION_KEYS. If the old one is lost, give the new one a new id, then: node dist/cli.js encryption-key forget ${id}`
    : `KEYGATE_PREVIOUS_ENCRYPTION_KEYS has under the id "${id}" a key that ${what}: put the old one back. If it is lost: node dist/cli.js encryption-key forget ${id}`
}

function unfitPepper (id: string, isCurrent: boolean, asked: number): string {
  const what = `is not the one that stored secrets have under its id (tried: ${asked})`
  return isCurrent
    ? `KEYGATE_PEPPER with the id "${id}" ${what}: if it is new, give it a new id in KEYGATE_PEPPER_ID and put the old one into KEYGATE_PREVIOUS_PEPPERS. If the old one is lost, give the new one a new id, then: node dist/cli.js secrets rewrap, which saves those that are not sealed`
    : `KEYGATE_PREVIOUS_PEPPERS has under the id "${id}" a pepper that ${what}: put the old one back. If it is lost, take the entry out, then: node dist/cli.js secrets rewrap, which saves those that are not sealed`
}

/** All are sealed, so nobody knows which of the two values is right. */
function notTheRecordedPepper (id: string, isCurrent: boolean): string {
  const way = `"node dist/cli.js secrets rewrap" without the pepper "${id}" forgets what is recorded`
  return isCurrent
    ? `KEYGATE_PEPPER is not the one that is recorded for the id "${id}", which stored secrets have: if it is new, give it a new id in KEYGATE_PEPPER_ID and put the old one into KEYGATE_PREVIOUS_PEPPERS. If it is the right one, ${way}`
    : `KEYGATE_PREVIOUS_PEPPERS has under the id "${id}", which stored secrets have, another pepper than the one that is recorded: put that one back. If this is the right one, ${way}`
}
