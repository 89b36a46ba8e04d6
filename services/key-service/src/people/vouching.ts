import { eq } from 'drizzle-orm'
import type { Caller } from '../access/caller.ts'
import type { Executor } from '../db/database.ts'
import { serviceTokens, users } from '../db/schema.ts'
import { conflict } from '../errors.ts'
import { hasPassword } from './accounts.ts'

/** Who gives a right; `id` is what vouches. A service token speaks for the person it rests on; one that rests on nobody is the host's. */
export interface Giver { id: string, isPerson: boolean }

export async function giverOf (tx: Executor, caller: Caller): Promise<Giver> {
  if (caller.kind === 'person') return { id: caller.id, isPerson: true }
  const [token] = await tx.select({ makerId: serviceTokens.makerId }).from(serviceTokens).where(eq(serviceTokens.id, caller.id))
  const makerId = token?.makerId ?? null
  return { id: makerId ?? caller.id, isPerson: makerId !== null }
}

/**
 * Locks the account's row until the transaction ends: who gives it a right and who makes a link to it come one after the other. To
 * be called before anything is asked about the account; after the locks of the project and of the giver's rights.
 *
 * @returns who vouches for it; null: the host.
 */
export async function holdAccount (tx: Executor, userId: string): Promise<string | null> {
  const [held] = await tx.select({ vouchedBy: users.vouchedBy }).from(users).where(eq(users.id, userId)).for('update')
  if (held === undefined) throw new Error('the account is not there')
  return held.vouchedBy
}

/**
 * Whoever made the invitation of an account had the link to it. So nobody may build on the account but who made it, unless the host
 * knows the person.
 *
 * @param vouchedBy from `holdAccount`.
 * @throws {ProblemError} 409, the same whoever vouches and whatever else there is to know of the account.
 */
export function requireVouched (vouchedBy: string | null, giverId: string | null): void {
  if (vouchedBy === null || vouchedBy === giverId) return
  throw conflict('account_not_vouched', 'Whether this account belongs to whoever has the address is not known here: somebody else invited it. Whoever runs this installation confirms it first: key-service\'s command "people confirm --email".')
}

/**
 * What reaches beyond the giver's own projects: being operator, owning a project that the giver has no way into. There a person's own
 * invitation does not count, or the giver would become that owner or operator.
 *
 * @throws {ProblemError} 409
 */
export function requireVouchedForOthers (vouchedBy: string | null, giver: Giver): void {
  requireVouched(vouchedBy, giver.isPerson ? null : giver.id)
}

export async function vouch (tx: Executor, userId: string, vouchedBy: string | null): Promise<void> {
  await tx.update(users).set({ vouchedBy }).where(eq(users.id, userId))
}

/**
 * The host makes a new link, or is about to: for an account that nobody has signed in to it vouches from now on.
 *
 * @returns false: somebody else's invitation has been used, so the host has to confirm first whose the account is.
 */
export async function vouchOnHost (tx: Executor, userId: string): Promise<boolean> {
  if (await holdAccount(tx, userId) === null) return true
  if (await hasPassword(tx, userId)) return false
  await vouch(tx, userId, null)
  return true
}
