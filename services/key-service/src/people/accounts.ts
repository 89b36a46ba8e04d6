import { generateId } from '@keygate/api-key'
import { and, eq, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { identities, members, operators, passwords, users } from '../db/schema.ts'
import { parseEmail } from './email.ts'

export interface Account { id: string, email: string, name: string }

const columns = { id: users.id, email: users.email, name: users.name }

/** @param email as it was typed. */
export async function findAccount (db: Executor, email: string): Promise<Account | undefined> {
  const parsed = parseEmail(email)
  if ('fault' in parsed) return undefined
  const [found] = await db.select(columns).from(users).where(eq(users.email, parsed.email))
  return found
}

/**
 * An account that can sign in once it has a password; of two that are made at once for one address, one is `found`.
 *
 * @param vouchedBy for a new one: who says that it is the person of this address; null: the host.
 */
export async function findOrCreateAccount (tx: Executor, { email, name, createdBy, vouchedBy }: Omit<Account, 'id'> & { createdBy: string, vouchedBy: string | null }): Promise<Account & { isNew: boolean }> {
  const [made] = await tx.insert(users).values({ id: generateId('usr'), email, name, createdBy, vouchedBy }).onConflictDoNothing().returning(columns)
  if (made === undefined) {
    const found = await findAccount(tx, email)
    if (found === undefined) throw new Error('the account was neither made nor found')
    return { ...found, isNew: false }
  }
  await tx.insert(identities).values({ provider: 'local', subject: email, userId: made.id })
  return { ...made, isNew: true }
}

/** Who signs in with this address, as it was typed, and a password, and the password's digest; null: none was ever set. */
export async function findCredentials (db: Executor, email: string): Promise<Account & { digest: string | null } | undefined> {
  const parsed = parseEmail(email)
  if ('fault' in parsed) return undefined
  const [found] = await db.select({ ...columns, digest: passwords.hash }).from(identities)
    .innerJoin(users, eq(users.id, identities.userId))
    .leftJoin(passwords, eq(passwords.userId, identities.userId))
    .where(and(eq(identities.provider, 'local'), eq(identities.subject, parsed.email)))
  return found
}

export async function hasPassword (db: Executor, userId: string): Promise<boolean> {
  return (await db.select({ one: sql`1` }).from(passwords).where(eq(passwords.userId, userId))).length > 0
}

export async function putPassword (tx: Executor, userId: string, digest: string): Promise<void> {
  await tx.insert(passwords).values({ userId, hash: digest }).onConflictDoUpdate({ target: passwords.userId, set: { hash: digest, setAt: sql`now()` } })
}

/** Whether this is the password still; it stays so until this transaction ends. */
export async function holdDigest (tx: Executor, userId: string, digest: string): Promise<boolean> {
  return (await tx.select({ one: sql`1` }).from(passwords).where(and(eq(passwords.userId, userId), eq(passwords.hash, digest))).for('share')).length > 0
}

/** Puts another digest in the place of exactly this one; false: it is no longer there, the password was changed meanwhile. */
export async function replaceDigest (tx: Executor, userId: string, { from, to }: { from: string, to: string }): Promise<boolean> {
  const replaced = await tx.update(passwords).set({ hash: to }).where(and(eq(passwords.userId, userId), eq(passwords.hash, from))).returning({ userId: passwords.userId })
  return replaced.length > 0
}

/** Whether the account has any right but in that one project. */
export async function hasRightsElsewhere (db: Executor, userId: string, projectId: string): Promise<boolean> {
  const found = await db.execute(sql`
    SELECT 1 FROM ${members} WHERE user_id = ${userId} AND project_id <> ${projectId}
    UNION ALL SELECT 1 FROM ${operators} WHERE user_id = ${userId} LIMIT 1`)
  return found.length > 0
}
