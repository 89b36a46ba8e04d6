import type { PolicyBody } from '@keygate/contracts'
import type { FieldError } from '@keygate/service-kit'
import type { Caller } from '../access/caller.ts'
import { grantedBy } from '../access/grants.ts'
import { rightsOf } from '../access/rights.ts'
import type { ChangeContext } from '../audit/audit-log.ts'
import type { Executor } from '../db/database.ts'
import { projects } from '../db/schema.ts'
import { forbidden, projectNotFound, unacceptable } from '../errors.ts'
import type { Effect, MakeChange } from '../outbox/make-change.ts'
import type { RaisedVersion } from '../outbox/outbox.ts'
import { findAccount, type Account } from '../people/accounts.ts'
import { addMember } from '../people/members.ts'
import { giverOf, holdAccount, requireVouchedForOthers } from '../people/vouching.ts'
import { acceptPolicies } from '../policies/accept-policies.ts'
import { replacePolicies } from '../policies/repository.ts'
import { checkVersion, type IfMatch } from '../preconditions.ts'
import { parseName } from '../text.ts'
import { findProject, type ProjectRow } from './queries.ts'
import type { Erasure } from './erasure.ts'
import { batchSizes, countKeys, eraseBatch, raiseForDeletion, raiseProjectVersion, setDeleted, setName, type RaisedProject } from './repository.ts'
import type { CreateProject, EditProject } from './schemas.ts'

export interface ChangedProject { row: ProjectRow, effect: Effect }

interface ProjectSettings { name?: string, policies?: PolicyBody[] | null }

/** Everything that changes a project. Its version is field `*`: raising it makes every record of its keys stale. */
export function createProjectCommands (makeChange: MakeChange, erasure: Pick<Erasure, 'wake'>) {
  return {
    async create (context: ChangeContext, caller: Caller, body: CreateProject): Promise<ChangedProject> {
      const { owner: email, ...settings } = body
      const { name = '', policies = null } = accept(settings)
      const { value: row, effect } = await makeChange(context, async tx => {
        const owner = await acceptOwner(tx, caller, email)
        const [created] = await tx.insert(projects).values({ name, createdBy: context.actor.name }).returning({ projectId: projects.id, version: projects.version })
        if (created === undefined) throw new Error('the insert returned no row')
        const { projectId, version } = created
        if (policies !== null) await replacePolicies(tx, { projectId, keyId: '*' }, policies)
        if (owner !== undefined) await addMember(tx, { projectId, userId: owner.id, role: 'owner', addedBy: context.actor.name })
        return await finish(tx, 'create', { projectId, version }, { name, policies, owner: owner?.id ?? null })
      })
      return { row, effect }
    },

    async edit (context: ChangeContext, projectId: string, wanted: IfMatch, body: EditProject): Promise<ChangedProject> {
      const { value: row, effect } = await makeChange(context, async tx => {
        const raised = await raiseProjectVersion(tx, projectId)
        if (raised === undefined) throw projectNotFound()
        checkVersion(wanted, raised.version - 1)
        const settings = accept(body)
        if (settings.name !== undefined) await setName(tx, raised.projectId, settings.name)
        if (settings.policies !== undefined) await replacePolicies(tx, { projectId: raised.projectId, keyId: '*' }, settings.policies)
        return await finish(tx, 'edit', raised, { ...settings })
      })
      return { row, effect }
    },

    /**
     * The project becomes a tombstone, and with it all its keys are gone; bringing a project back would not bring back its keys. Of a large
     * project only some are erased in this transaction, which would last too long otherwise: the rest afterwards (`erasure.ts`).
     */
    async remove (context: ChangeContext, projectId: string, wanted: IfMatch | undefined): Promise<void> {
      await makeChange(context, async tx => {
        const raised = await raiseForDeletion(tx, projectId)
        if (raised === undefined) throw projectNotFound()
        checkVersion(wanted, raised.version - 1)
        const keys = await countKeys(tx, raised.projectId)
        await setDeleted(tx, raised.projectId)
        await eraseBatch(tx, raised.projectId, { size: batchSizes.atOnce, locked: 'wait' })
        return {
          value: undefined,
          audit: { action: 'project.delete', projectId: raised.projectId, keyId: null, details: { keys } },
          raised: [own(raised)]
        }
      }, { queues: async () => [{ of: 'project', id: projectId.toLowerCase(), alone: true }] })
      erasure.wake()
    }
  }
}

export type ProjectCommands = ReturnType<typeof createProjectCommands>

const own = ({ projectId, version }: RaisedProject): RaisedVersion => ({ projectId, keyId: '*', version })

async function finish (tx: Executor, action: string, raised: RaisedProject, details: Record<string, unknown>) {
  const row = await findProject(tx, raised.projectId)
  if (row === undefined) throw projectNotFound()
  return { value: row, audit: { action: `project.${action}`, projectId: raised.projectId, keyId: null, details }, raised: [own(raised)] }
}

/**
 * Whose the project will be. A person names somebody else whom the host knows, and no operator: who makes projects has no way into them. A service token
 * may name an owner if it may write members, and otherwise makes a project that only service tokens see.
 */
async function acceptOwner (tx: Executor, caller: Caller, email: string | undefined): Promise<Account | undefined> {
  if (email === undefined) {
    if (caller.kind === 'token') return undefined
    throw unacceptable([{ pointer: '/owner', message: 'is required: the e-mail address of the person whose project it will be' }])
  }
  if (caller.kind === 'token' && !caller.permissions.has('members:write')) throw forbidden('members:write', grantedBy('members:write'))
  const account = await findAccount(tx, email)
  const vouchedBy = account === undefined ? null : await holdAccount(tx, account.id)
  const fault = account === undefined
    ? 'is not of a person who has an account here: key-service\'s command "people add" makes it'
    : account.id === caller.id
      ? 'must be somebody else: who makes projects does not own them'
      : (await rightsOf(tx, account.id)).isOperator ? 'is an operator\'s: operators own no projects that are made here' : undefined
  if (fault !== undefined) throw unacceptable([{ pointer: '/owner', message: fault }])
  requireVouchedForOthers(vouchedBy, await giverOf(tx, caller))
  return account
}

function accept ({ name, policies }: EditProject): ProjectSettings {
  const faults: FieldError[] = []
  const settings: ProjectSettings = {}
  if (name !== undefined) {
    const parsed = parseName(name)
    if ('fault' in parsed) faults.push({ pointer: '/name', message: parsed.fault })
    else settings.name = parsed.name
  }
  if (policies === null) settings.policies = null
  else if (policies !== undefined) {
    const accepted = acceptPolicies(policies)
    faults.push(...accepted.faults)
    settings.policies = accepted.policies
  }
  if (faults.length > 0) throw unacceptable(faults)
  return settings
}
