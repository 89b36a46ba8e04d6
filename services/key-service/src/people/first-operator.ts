import { StartError } from '@keygate/service-kit'
import { eq, inArray, sql } from 'drizzle-orm'
import { recordAudit, type ChangeContext } from '../audit/audit-log.ts'
import type { Executor } from '../db/database.ts'
import { oneTimeLinks, operators, passwords } from '../db/schema.ts'
import { findOrCreateAccount } from './accounts.ts'
import { canonicalEmail } from './email.ts'
import { lifetimes, makeLink, type OneTimeLink } from './one-time-links.ts'
import { addOperator } from './operators.ts'
import { vouchOnHost } from './vouching.ts'

const context: ChangeContext = { actor: { type: 'host', id: 'start', name: 'the start of key-service' }, requestId: 'start' }

/**
 * Until an operator has ever set a password, nobody can sign in to let others in: whoever sees this process's output gets a link
 * to. Every start makes a new one and ends the last, so that only the newest output opens anything.
 *
 * To be called under the lock of the migrations: of several that start at once, the last one's link works.
 *
 * @throws {StartError} when somebody who is not confirmed may have the account's password.
 */
export async function prepareFirstOperator (tx: Executor, { email, publicUrl }: { email: string, publicUrl: string }): Promise<OneTimeLink | undefined> {
  const settled = await tx.select({ one: sql`1` }).from(operators).innerJoin(passwords, eq(passwords.userId, operators.userId)).limit(1)
  if (settled.length > 0) return undefined
  const account = await findOrCreateAccount(tx, { email: canonicalEmail(email), name: 'Operator', createdBy: context.actor.name, vouchedBy: null })
  if (!await vouchOnHost(tx, account.id)) {
    throw new StartError(`KEYGATE_OPERATOR_EMAIL is ${account.email}, whose password was set by somebody else's invitation. Make sure whose account it is and run "people confirm --email ${account.email}", or name another address.`)
  }
  if (await addOperator(tx, account.id, context.actor.name)) {
    await recordAudit(tx, context, { action: 'operator.add', projectId: null, keyId: null, details: { userId: account.id, email: account.email } })
  }
  // Those of an address that KEYGATE_OPERATOR_EMAIL had before, too.
  await tx.delete(oneTimeLinks).where(inArray(oneTimeLinks.userId, tx.select({ userId: operators.userId }).from(operators)))
  const link = await makeLink(tx, account.id, { publicUrl, lifetimeMs: lifetimes.host })
  await recordAudit(tx, context, { action: 'person.link', projectId: null, keyId: null, details: { userId: account.id, email: account.email } })
  return link
}

/** What a start prints on standard output, which no log collects as a line of JSON: the link must not be found by a search in the logs. */
export function firstOperatorText (email: string, { url, expiresAt }: OneTimeLink): string {
  return `\nNobody has signed in as operator yet. Set the password of ${email} here, once, until ${expiresAt}:\n\n  ${url}\n\nThe next start makes another link, and this one ends.\n\n`
}
