import { recordAudit } from '../audit/audit-log.ts'
import { findAccount } from '../people/accounts.ts'
import { canonicalEmail } from '../people/email.ts'
import { lifetimes, makeLink } from '../people/one-time-links.ts'
import { publicUrlOf } from '../people/public-url.ts'
import { endSessionsOf } from '../people/sessions.ts'
import { vouchOnHost } from '../people/vouching.ts'
import { UsageError, type Command } from './command.ts'
import { requiredText } from './values.ts'

/** For a forgotten password. Whoever asks for it has to be known to whoever runs this: nobody else checks who they are. */
export const peopleLink: Command = {
  name: 'people link',
  summary: 'Prints a link with which a person sets a new password, once. Ends the person\'s sessions and earlier links; the old password works until the new one is set.',
  options: { email: { type: 'string', placeholder: '<address>', summary: 'whose account; required' } },
  run: async ({ config, database, context, print }, { options }) => {
    const email = canonicalEmail(requiredText(options, 'email', peopleLink))
    const link = await database.transaction(async tx => {
      const account = await findAccount(tx, email)
      if (account === undefined) throw new UsageError(`There is no account of ${email}: "people add" makes it.`)
      await vouchOnHost(tx, account.id)
      await endSessionsOf(tx, account.id)
      const made = await makeLink(tx, account.id, { publicUrl: publicUrlOf(config), lifetimeMs: lifetimes.host })
      await recordAudit(tx, context, { action: 'person.link', projectId: null, keyId: null, details: { userId: account.id, email } })
      return made
    })
    print(`The password of ${email} is set here, once, until ${link.expiresAt}:\n${link.url}`)
    return 0
  }
}
