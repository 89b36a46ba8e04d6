import { memberRoles, type MemberRole } from '../access/permissions.ts'
import { recordAudit } from '../audit/audit-log.ts'
import { acceptPerson } from '../people/accept-person.ts'
import { findOrCreateAccount, hasPassword } from '../people/accounts.ts'
import { holdMembership } from '../people/member-queries.ts'
import { addMember } from '../people/members.ts'
import { lifetimes, makeLink } from '../people/one-time-links.ts'
import { addOperator } from '../people/operators.ts'
import { publicUrlOf } from '../people/public-url.ts'
import { vouchOnHost } from '../people/vouching.ts'
import { UsageError, type Command } from './command.ts'
import { hint } from './help.ts'
import { optionalText, projectIdOf, requiredText } from './values.ts'

/** How the first owner of a project, or another operator, comes to be. */
export const peopleAdd: Command = {
  name: 'people add',
  summary: 'Makes an account, or gives rights to the one that there is. Prints a link with which the person sets the password, if there is none yet.',
  options: {
    email: { type: 'string', placeholder: '<address>', summary: 'whose account; required' },
    name: { type: 'string', placeholder: '<name>', summary: 'how the person is called; otherwise as the address begins' },
    operator: { type: 'boolean', summary: 'the person runs this installation' },
    project: { type: 'string', placeholder: '<id>', summary: 'the person becomes a member of this project' },
    role: { type: 'string', placeholder: `<${memberRoles.join('|')}>`, summary: 'as what; required with --project' }
  },
  run: async ({ config, database, context, print }, { options }) => {
    const { email, name } = acceptPerson({ email: requiredText(options, 'email', peopleAdd), name: optionalText(options, 'name') })
    const projectId = projectIdOf(options, peopleAdd)
    const role = roleOf(optionalText(options, 'role'), projectId !== null)
    const done = await database.transaction(async tx => {
      if (projectId !== null && !await holdMembership(tx, projectId)) throw new UsageError(`There is no project ${projectId}.`)
      const account = await findOrCreateAccount(tx, { email, name, createdBy: context.actor.name, vouchedBy: null })
      if (!await vouchOnHost(tx, account.id) && (projectId !== null || options['operator'] === true)) throw new UsageError(`An owner of a project invited ${email}, and whoever had the invitation set the password. Ask the person whether it is theirs, then: "people confirm".`)
      if (role !== undefined && projectId !== null) await addMember(tx, { projectId, userId: account.id, role, addedBy: context.actor.name })
      const isOperator = options['operator'] === true && await addOperator(tx, account.id, context.actor.name)
      const link = await hasPassword(tx, account.id) ? undefined : await makeLink(tx, account.id, { publicUrl: publicUrlOf(config), lifetimeMs: lifetimes.host })
      await recordAudit(tx, context, { action: 'person.add', projectId, keyId: null, details: { userId: account.id, email, isNew: account.isNew, isOperator, role: role ?? null } })
      return { account, link }
    })
    print(`${done.account.isNew ? 'Made' : 'Found'} the account ${done.account.id} of ${email}.`)
    if (done.link !== undefined) print(`The password is set here, once, until ${done.link.expiresAt}:\n${done.link.url}`)
    return 0
  }
}

function roleOf (role: string | undefined, hasProject: boolean): MemberRole | undefined {
  if ((role !== undefined) !== hasProject) throw new UsageError(`--project and --role belong together.\n${hint(peopleAdd)}`)
  if (role === undefined || memberRoles.includes(role as MemberRole)) return role as MemberRole | undefined
  throw new UsageError(`--role must be one of ${memberRoles.join(', ')}.\n${hint(peopleAdd)}`)
}
