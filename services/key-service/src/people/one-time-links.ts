import { randomBytes } from 'node:crypto'
import { digestSecret } from '@keygate/api-key'
import { and, eq, gt, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { oneTimeLinks } from '../db/schema.ts'

/** Shown once, to whoever made it. */
export interface OneTimeLink { url: string, expiresAt: string }

const dayMs = 24 * 3_600_000

/** How long a link works that somebody on the host has made, and one that is sent on to a person, in milliseconds. */
export const lifetimes = { host: dayMs, invitation: 7 * dayMs }

/**
 * A link with which its bearer sets the account's password, once. Those that were made before end.
 *
 * What opens the account stands behind the #, which browsers send neither to a server nor as a Referer: no log holds it.
 *
 * @param publicUrl where people reach this service.
 */
export async function makeLink (tx: Executor, userId: string, { publicUrl, lifetimeMs }: { publicUrl: string, lifetimeMs: number }): Promise<OneTimeLink> {
  await endLinks(tx, userId)
  const token = randomBytes(32).toString('base64url')
  const [made] = await tx.insert(oneTimeLinks)
    .values({ digest: digestSecret(token), userId, expiresAt: sql`now() + ${lifetimeMs}::float8 * interval '1 millisecond'` })
    .returning({ expiresAt: oneTimeLinks.expiresAt })
  if (made === undefined) throw new Error('the insert returned no row')
  return { url: `${publicUrl}/set-password#token=${token}`, expiresAt: made.expiresAt.toISOString() }
}

const isLive = (token: string) => and(eq(oneTimeLinks.digest, digestSecret(token)), gt(oneTimeLinks.expiresAt, sql`now()`))

/** Whose password the link sets, as long as it works. */
export async function findLink (db: Executor, token: string): Promise<string | undefined> {
  const [found] = await db.select({ userId: oneTimeLinks.userId }).from(oneTimeLinks).where(isLive(token))
  return found?.userId
}

/** Uses it up: of two who come at once, one gets the account. */
export async function takeLink (tx: Executor, token: string): Promise<string | undefined> {
  const [taken] = await tx.delete(oneTimeLinks).where(isLive(token)).returning({ userId: oneTimeLinks.userId })
  return taken?.userId
}

export async function endLinks (tx: Executor, userId: string): Promise<void> {
  await tx.delete(oneTimeLinks).where(eq(oneTimeLinks.userId, userId))
}
