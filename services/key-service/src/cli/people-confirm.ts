import { recordAudit } from '../audit/audit-log.ts'
import { findAccount, hasPassword } from '../people/accounts.ts'
import { canonicalEmail } from '../people/email.ts'
import { holdAccount, vouch } from '../people/vouching.ts'
import { UsageError, type Command } from './command.ts'
import { requiredText } from './values.ts'

/** Whose an account is that an owner of a project has invited, only whoever knows the person can say. */
export const peopleConfirm: Command = {
  name: 'people confirm',
  summary: 'Says that an account that was invited belongs to whoever has its address, so that others may give it rights. Ask the person first whether the password is theirs; whoever made the invitation may have used it.',
  options: { email: { type: 'string', placeholder: '<address>', summary: 'whose account; required' } },
  run: async ({ database, context, print }, { options }) => {
    const email = canonicalEmail(requiredText(options, 'email', peopleConfirm))
    const isNew = await database.transaction(async tx => {
      const account = await findAccount(tx, email)
      if (account === undefined) throw new UsageError(`There is no account of ${email}: "people add" makes it.`)
      const vouchedBy = await holdAccount(tx, account.id)
      if (vouchedBy === null) return false
      // Else the invitation that is out would open what is built on the confirmation.
      if (!await hasPassword(tx, account.id)) throw new UsageError(`Nobody has set the password of ${email} yet: "people link" makes a link that is for you to pass on, and confirms the account.`)
      await vouch(tx, account.id, null)
      await recordAudit(tx, context, { action: 'person.confirm', projectId: null, keyId: null, details: { userId: account.id, email, vouchedBy } })
      return true
    })
    print(isNew ? `Confirmed the account of ${email}: rights may be given to it everywhere.` : `The account of ${email} is confirmed already.`)
    return 0
  }
}
