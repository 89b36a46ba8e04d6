import { generateId } from '@keygate/api-key'
import { ProblemError, type FieldError } from '@keygate/service-kit'
import type { ChangeContext } from '../audit/audit-log.ts'
import type { Executor } from '../db/database.ts'
import { conflict, projectNotFound, roleNotFound, unacceptable } from '../errors.ts'
import type { KnownScopes } from '../keys/known-scopes.ts'
import type { Effect, MakeChange } from '../outbox/make-change.ts'
import { checkVersion, type IfMatch } from '../preconditions.ts'
import { raiseProjectVersion } from '../projects/repository.ts'
import { faultOfText, parseName } from '../text.ts'
import { countKeys, countLogged, findRole, type RoleRow } from './queries.ts'
import { countRoles, deleteRole, findScopes, insertRole, isNameTaken, raiseRoleVersion, updateRole, type RoleAddress, type RoleSettings } from './repository.ts'
import { maxRoles, type CreateRole, type EditRole } from './schemas.ts'

export interface RoleTarget extends RoleAddress { ifMatch: IfMatch | undefined }
export interface ChangedRole { row: RoleRow, effect: Effect }

type Details = Record<string, unknown>

/**
 * Everything that changes a role. Each is a change of its project: the version that it raises makes the records of all the project's
 * keys stale, and its row, which is held first, puts the changes of a project's roles into an order.
 */
export function createRoleCommands ({ makeChange, knownScopes }: { makeChange: MakeChange, knownScopes: KnownScopes }) {
  async function change<T> (context: ChangeContext, projectId: string, action: string, work: (tx: Executor, projectId: string) => Promise<{ value: T, details: Details }>): Promise<{ value: T, effect: Effect }> {
    return await makeChange(context, async tx => {
      const project = await raiseProjectVersion(tx, projectId)
      if (project === undefined) throw projectNotFound()
      const { value, details } = await work(tx, project.projectId)
      return {
        value,
        audit: { action: `role.${action}`, projectId: project.projectId, keyId: null, details },
        raised: [{ projectId: project.projectId, keyId: '*', version: project.version }]
      }
    })
  }

  async function finish (tx: Executor, role: RoleAddress, details: Details): Promise<{ value: RoleRow, details: Details }> {
    const row = await findRole(tx, role)
    if (row === undefined) throw roleNotFound()
    return { value: row, details: { roleId: role.roleId, ...details } }
  }

  return {
    async create (context: ChangeContext, projectId: string, body: CreateRole): Promise<ChangedRole> {
      const settings = { name: body.name, description: null, scopes: [], ...accept(body, knownScopes) }
      const { value: row, effect } = await change(context, projectId, 'create', async (tx, projectId) => {
        const role = { projectId, roleId: generateId('role') }
        if (await countRoles(tx, projectId) >= maxRoles) throw tooManyRoles()
        if (await isNameTaken(tx, role, settings.name)) throw nameTaken()
        await insertRole(tx, role, context.actor.name, settings)
        return await finish(tx, role, settings)
      })
      return { row, effect }
    },

    async edit (context: ChangeContext, target: RoleTarget, body: EditRole): Promise<ChangedRole> {
      const settings = accept(body, knownScopes)
      const { value: row, effect } = await change(context, target.projectId, 'edit', async (tx, projectId) => {
        const role = { projectId, roleId: target.roleId }
        await raise(tx, role, target.ifMatch)
        if (settings.name !== undefined && await isNameTaken(tx, role, settings.name)) throw nameTaken()
        if (settings.scopes !== undefined) await requireUnlogged(tx, role, settings.scopes, knownScopes)
        await updateRole(tx, role, settings)
        return await finish(tx, role, { ...settings })
      })
      return { row, effect }
    },

    async remove (context: ChangeContext, target: RoleTarget): Promise<void> {
      await change(context, target.projectId, 'delete', async (tx, projectId) => {
        const role = { projectId, roleId: target.roleId }
        const { name } = await raise(tx, role, target.ifMatch)
        const keys = await countKeys(tx, role)
        if (keys > 0) throw roleInUse(keys)
        await deleteRole(tx, role)
        return { value: undefined, details: { roleId: role.roleId, name } }
      })
    }
  }
}

export type RoleCommands = ReturnType<typeof createRoleCommands>

async function raise (tx: Executor, role: RoleAddress, wanted: IfMatch | undefined): Promise<{ name: string }> {
  const raised = await raiseRoleVersion(tx, role)
  if (raised === undefined) throw roleNotFound()
  checkVersion(wanted, raised.version - 1)
  return raised
}

/** What keys may call by this role is not taken away while they log it: the same rule as for a key's own scopes. */
async function requireUnlogged (tx: Executor, role: RoleAddress, scopes: string[], { covered }: KnownScopes): Promise<void> {
  const taken = (await findScopes(tx, role)).filter(scope => !scopes.includes(scope))
  const logged = await countLogged(tx, role, taken, covered)
  if (logged.length === 0) return
  throw unacceptable(logged.map(({ scope, keys }) => ({ pointer: '/scopes', message: `takes away ${JSON.stringify(scope)}, which is logged for keys of this role (${keys}); end that first` })))
}

function accept ({ name, description, scopes }: EditRole, knownScopes: KnownScopes): Partial<RoleSettings> {
  const faults: FieldError[] = []
  const settings: Partial<RoleSettings> = {}
  if (name !== undefined) {
    const parsed = parseName(name)
    if ('fault' in parsed) faults.push({ pointer: '/name', message: parsed.fault })
    else settings.name = parsed.name
  }
  if (description !== undefined) {
    const fault = description === null ? undefined : faultOfText(description)
    if (fault !== undefined) faults.push({ pointer: '/description', message: fault })
    settings.description = description
  }
  if (scopes !== undefined) {
    settings.scopes = [...new Set(scopes)].sort()
    scopes.forEach((scope, index) => {
      if (!knownScopes.all.has(scope)) faults.push({ pointer: `/scopes/${index}`, message: 'is not a scope of the catalogue' })
    })
  }
  if (faults.length > 0) throw unacceptable(faults)
  return settings
}

function nameTaken (): ProblemError {
  return conflict('role_name_taken', 'Another role of this project has this name. Choose another one.', [{ pointer: '/name', message: 'is the name of another role of this project' }])
}

function roleInUse (keys: number): ProblemError {
  return conflict('role_in_use', `${keys === 1 ? '1 key is' : `${keys} keys are`} bound to this role. Give ${keys === 1 ? 'it' : 'them'} another role, or none, first.`)
}

function tooManyRoles (): ProblemError {
  return new ProblemError({ status: 422, code: 'too_many_roles', detail: `A project has at most ${maxRoles} roles. Delete one that no key is bound to.` })
}
