import type { PolicyBody } from '@keygate/contracts'
import type { FieldError } from '@keygate/service-kit'
import type { ChangeContext } from '../audit/audit-log.ts'
import type { Executor } from '../db/database.ts'
import { projects } from '../db/schema.ts'
import { projectNotFound, unacceptable } from '../errors.ts'
import type { Effect, MakeChange } from '../outbox/make-change.ts'
import type { RaisedVersion } from '../outbox/outbox.ts'
import { acceptPolicies } from '../policies/accept-policies.ts'
import { replacePolicies } from '../policies/repository.ts'
import { parseName } from '../text.ts'
import { findProject, type ProjectRow } from './queries.ts'
import { eraseKeys, raiseProjectVersion, setDeleted, setName } from './repository.ts'
import type { CreateProject, EditProject } from './schemas.ts'

export interface ChangedProject { row: ProjectRow, effect: Effect }

interface ProjectSettings { name?: string, policies?: PolicyBody[] | null }

/** Everything that changes a project. Its version is field `*`: raising it makes every record of its keys stale. */
export function createProjectCommands (makeChange: MakeChange) {
  return {
    async create (context: ChangeContext, body: CreateProject): Promise<ChangedProject> {
      const { name = '', policies = null } = accept(body)
      const { value: row, effect } = await makeChange(context, async tx => {
        const [created] = await tx.insert(projects).values({ name, createdBy: context.actor.name }).returning({ projectId: projects.id, version: projects.version })
        if (created === undefined) throw new Error('the insert returned no row')
        const { projectId, version } = created
        if (policies !== null) await replacePolicies(tx, { projectId, keyId: '*' }, policies)
        return await finish(tx, 'create', { projectId, version }, { name, policies })
      })
      return { row, effect }
    },

    async edit (context: ChangeContext, projectId: string, body: EditProject): Promise<ChangedProject> {
      const { value: row, effect } = await makeChange(context, async tx => {
        const raised = await raiseProjectVersion(tx, projectId)
        if (raised === undefined) throw projectNotFound()
        const settings = accept(body)
        if (settings.name !== undefined) await setName(tx, raised.projectId, settings.name)
        if (settings.policies !== undefined) await replacePolicies(tx, { projectId: raised.projectId, keyId: '*' }, settings.policies)
        return await finish(tx, 'edit', raised, { ...settings })
      })
      return { row, effect }
    },

    /** The project and all its keys become tombstones in one transaction; bringing a project back would not bring back its keys. */
    async remove (context: ChangeContext, projectId: string): Promise<void> {
      await makeChange(context, async tx => {
        const raised = await raiseProjectVersion(tx, projectId)
        if (raised === undefined) throw projectNotFound()
        const keys = await eraseKeys(tx, raised.projectId)
        await setDeleted(tx, raised.projectId)
        return {
          value: undefined,
          audit: { action: 'project.delete', projectId: raised.projectId, keyId: null, details: { keys: keys.length } },
          raised: [own(raised), ...keys]
        }
      })
    }
  }
}

export type ProjectCommands = ReturnType<typeof createProjectCommands>

type Raised = Pick<RaisedVersion, 'projectId' | 'version'>

const own = ({ projectId, version }: Raised): RaisedVersion => ({ projectId, keyId: '*', version })

async function finish (tx: Executor, action: string, raised: Raised, details: Record<string, unknown>) {
  const row = await findProject(tx, raised.projectId)
  if (row === undefined) throw projectNotFound()
  return { value: row, audit: { action: `project.${action}`, projectId: raised.projectId, keyId: null, details }, raised: [own(raised)] }
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
