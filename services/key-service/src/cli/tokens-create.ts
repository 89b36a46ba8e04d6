import { permissions, type Permission } from '../access/permissions.ts'
import { recordAudit } from '../audit/audit-log.ts'
import { holdProject } from '../keys/repository.ts'
import { acceptToken, clockOf } from '../service-tokens/commands.ts'
import { insertServiceToken } from '../service-tokens/repository.ts'
import { UsageError, type Command } from './command.ts'
import { hint } from './help.ts'
import { optionalText, projectIdOf, requiredText } from './values.ts'

/** The one way to a token that may do more than people may give: `keys:verify`, and what no single person may do. */
export const tokensCreate: Command = {
  name: 'tokens create',
  summary: 'Makes a service token and prints it, once. It rests on nobody\'s rights: it works until it expires or is deleted.',
  options: {
    name: { type: 'string', placeholder: '<name>', summary: 'how it is called in lists and in the audit trail; required' },
    permissions: { type: 'string', placeholder: '<a,b>', summary: `what it may do, separated by commas; required: ${permissions.join(', ')}` },
    project: { type: 'string', placeholder: '<id>', summary: 'the one project that it sees; otherwise all' },
    expires: { type: 'string', placeholder: '<time>', summary: 'when it ends: a date-time with its offset, or a date, which means its end in UTC' }
  },
  run: async ({ database, context, print }, { options }) => {
    const granted = permissionsOf(requiredText(options, 'permissions', tokensCreate))
    const name = requiredText(options, 'name', tokensCreate)
    const expires = optionalText(options, 'expires') ?? null
    const projectId = projectIdOf(options, tokensCreate)
    const token = await database.transaction(async tx => {
      if (projectId !== null && await holdProject(tx, projectId) === undefined) throw new UsageError(`There is no project ${projectId}.`)
      const accepted = acceptToken({ name, expiresAt: expires }, { now: await clockOf(tx), latest: null })
      const made = await insertServiceToken(tx, { ...accepted, permissions: granted, projectId, makerId: null, parentId: null, createdBy: context.actor.name })
      await recordAudit(tx, context, { action: 'token.create', projectId, keyId: null, details: { tokenId: made.id, name: accepted.name, permissions: granted, expiresAt: accepted.expiresAt?.toISOString() ?? null } })
      return made.token
    })
    print(token)
    return 0
  }
}

function permissionsOf (text: string): Permission[] {
  const named = [...new Set(text.split(',').map(part => part.trim()).filter(part => part !== ''))]
  const unknown = named.filter(name => !permissions.includes(name as Permission))
  if (unknown.length > 0 || named.length === 0) throw new UsageError(`--permissions ${unknown.length > 0 ? `has ${unknown.join(', ')}` : 'is empty'}; there is ${permissions.join(', ')}.\n${hint(tokensCreate)}`)
  return named as Permission[]
}
