import { eq, ne } from 'drizzle-orm'
import { whileStillAs, type RightfulContext } from '../access/still.ts'
import { recordAudit } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { operators, passwords } from '../db/schema.ts'
import { conflict, operatorNotFound, unacceptable } from '../errors.ts'
import { endUnfoundedTokens } from '../service-tokens/repository.ts'
import { findAccount, hasPassword } from './accounts.ts'
import { findOperator } from './member-queries.ts'
import type { Operator } from './schemas.ts'
import { giverOf, holdAccount, requireVouchedForOthers } from './vouching.ts'

/**
 * Who runs the installation. Operators make operators out of accounts that there are and never accounts, nor links to them: else
 * they could make themselves a person who may do what they may not. For the same reason the host must vouch for the account.
 */
export function createOperatorCommands (database: Database) {
  return {
    async add (context: RightfulContext, email: string): Promise<Operator> {
      return await whileStillAs(database, context, async (tx, caller) => {
        const account = await findAccount(tx, email)
        if (account === undefined) throw unacceptable([{ pointer: '/email', message: 'is not of a person who has an account here: an owner invites them, or key-service\'s command "people add" makes it' }])
        const vouchedBy = await holdAccount(tx, account.id)
        if (!await addOperator(tx, account.id, context.actor.name)) throw conflict('operator_exists', 'This person is an operator already.')
        requireVouchedForOthers(vouchedBy, await giverOf(tx, caller))
        await recordAudit(tx, context, { action: 'operator.add', projectId: null, keyId: null, details: { userId: account.id, email: account.email } })
        return await operatorOf(tx, account.id)
      })
    },

    async remove (context: RightfulContext, userId: string): Promise<void> {
      await whileStillAs(database, context, async tx => {
        const removed = await tx.delete(operators).where(eq(operators.userId, userId)).returning({ userId: operators.userId })
        if (removed.length === 0) throw operatorNotFound()
        if (!await isAnotherThere(tx, userId)) throw conflict('last_operator', 'This is the last operator who can sign in. Make another person who has a password one first.')
        await recordAudit(tx, context, { action: 'operator.remove', projectId: null, keyId: null, details: { userId, endedTokens: await endUnfoundedTokens(tx, userId) } })
      }, {
        // One removal after the other, or two could take the last operators but none away.
        queues: async () => [{ of: 'members', id: 'operators', alone: true }, { of: 'person', id: userId, alone: true }]
      })
    }
  }
}

export type OperatorCommands = ReturnType<typeof createOperatorCommands>

/** @returns false for somebody who is one already. */
export async function addOperator (tx: Executor, userId: string, grantedBy: string): Promise<boolean> {
  const added = await tx.insert(operators).values({ userId, grantedBy }).onConflictDoNothing().returning({ userId: operators.userId })
  return added.length > 0
}

/** Whether the installation can do without this operator: one who can sign in must be left, if this one can. */
async function isAnotherThere (tx: Executor, userId: string): Promise<boolean> {
  const others = await tx.select({ digest: passwords.hash }).from(operators).leftJoin(passwords, eq(passwords.userId, operators.userId)).where(ne(operators.userId, userId))
  return (await hasPassword(tx, userId) ? others.filter(({ digest }) => digest !== null) : others).length > 0
}

async function operatorOf (tx: Executor, userId: string): Promise<Operator> {
  const found = await findOperator(tx, userId)
  if (found === undefined) throw operatorNotFound()
  return found
}
