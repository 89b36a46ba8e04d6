import { ProblemError } from '@keygate/service-kit'
import { sql } from 'drizzle-orm'
import { recordAlone, type ChangeContext } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { queueFor, type Queue } from '../db/queues.ts'
import { members, operators, sessions } from '../db/schema.ts'
import { forbidden, keyNotFound, projectNotFound, unauthenticated } from '../errors.ts'
import { isOver, type SessionLimits } from '../people/sessions.ts'
import { findLineage, holdServiceToken, type Lineage } from '../service-tokens/repository.ts'
import type { Caller } from './caller.ts'
import { grantedBy } from './grants.ts'
import { judge } from './judge.ts'
import type { MemberRole, Permission } from './permissions.ts'

/** The right that a request came in with: whose it is, which one, and what the path names, in lower case. */
export interface Basis {
  caller: Caller
  permission: Permission
  projectId: string | null
  keyId: string | null
  sessionLimits: SessionLimits
}

/**
 * Does something in a transaction in which the right that it rests on is judged again, and stays until the transaction ends. Between
 * the request's coming in and this moment a slow body may have passed, and the right with it.
 *
 * A refusal is written down afterwards, alone: with the transaction it would be undone. That of `work` too, when it is a 403.
 *
 * @throws {ProblemError} what authentication would say at this moment: 401, 403, 404.
 */
export async function whileStill<T> (database: Database, context: ChangeContext, work: (tx: Executor) => Promise<T>, precautions?: Precautions): Promise<T> {
  const { basis } = context
  return basis === undefined ? await database.transaction(work) : await whileStillAs(database, { ...context, basis }, work, precautions)
}

/** Who asks for a change that rests on a right, always. */
export interface RightfulContext extends ChangeContext { basis: Basis }

export interface Precautions {
  /** Whom this takes rights away from, and what else must keep still meanwhile. Asked before the right is judged: nothing is locked yet. */
  queues?: (tx: Executor) => Promise<Queue[]>
  /** Done before the right is judged, and after the queues. */
  first?: (tx: Executor) => Promise<void>
  /** What the audit trail says of a refusal beside its permission and code. */
  details?: Record<string, unknown>
}

/** As `whileStill`; `work` is told who the caller is at this moment, with the rights in the basis's project, or, where it names none, with all. */
export async function whileStillAs<T> (database: Database, context: RightfulContext, work: (tx: Executor, caller: Caller) => Promise<T>, { queues, first, details = {} }: Precautions = {}): Promise<T> {
  const { caller: asking, permission, projectId, keyId } = context.basis
  let refusal: ProblemError | undefined
  try {
    return await database.transaction(async tx => {
      const lineage = asking.kind === 'token' ? await findLineage(tx, asking.id) : undefined
      const wanted = await queues?.(tx) ?? []
      await queueFor(tx, [...wanted, ...shared(context.basis, lineage)])
      await first?.(tx)
      const caller = await judged(tx, context.basis, { lineage, projects: wanted.filter(({ of }) => of === 'project').map(({ id }) => id) })
      if (caller instanceof ProblemError) throw (refusal = caller)
      return await work(tx, caller)
    })
  } catch (error) {
    if (error instanceof ProblemError && (error === refusal || error.problem.status === 403)) {
      await recordAlone(database, context, { action: 'permission.refused', projectId, keyId, details: { permission, ...details, code: error.problem.code } })
    }
    throw error
  }
}

/** What a change of this caller shares with others, so that who takes the right away, or deletes the project, waits for it but not for those behind. */
function shared ({ caller, projectId }: Basis, lineage: Lineage | undefined): Queue[] {
  const share = (of: Queue['of'], id: string): Queue => ({ of, id, alone: false })
  return [
    ...projectId === null ? [] : [share('project', projectId)],
    ...lineage === undefined ? [share('person', caller.id)] : lineage.tokens.map(id => share('token', id)),
    ...typeof lineage?.makerId === 'string' ? [share('person', lineage.makerId)] : []
  ]
}

/** What a right rests on beside the basis: where a token comes from, and the projects in which a caller without one in its path acts. */
interface Grounds { lineage: Lineage | undefined, projects: string[] }

/**
 * The order of locks: first all queues (`db/queues.ts`), then the rows of whatever the right rests on, then the project's, then its
 * key's, last the chain of audit events. Who takes rights away is alone with the person or token that has them, and who deletes a
 * project with that, so what they lock afterwards nobody holds for long, and nobody waits in a circle. The rows are locked all the
 * same: they are what the database itself keeps from changing. Should there be a circle that nobody thought of, PostgreSQL breaks it,
 * and `database.transaction` does what lost once more.
 */
async function judged (tx: Executor, basis: Basis, grounds: Grounds): Promise<Caller | ProblemError> {
  const { permission, projectId, keyId } = basis
  const caller = await held(tx, basis, grounds)
  if (caller === undefined) return unauthenticated()
  const judgement = judge(caller, permission, projectId)
  if (judgement === 'forbidden') return forbidden(permission, grantedBy(permission))
  if (judgement === 'hidden') return keyId === null ? projectNotFound() : keyNotFound()
  return caller
}

/**
 * The caller as it is now; undefined: it may call no more. Its rows stay so until the transaction ends: of memberships those in the
 * projects that this is about, so that nobody waits for what a member does elsewhere.
 */
async function held (tx: Executor, { caller, projectId, sessionLimits }: Basis, { lineage, projects }: Grounds): Promise<Caller | undefined> {
  if (caller.kind === 'token') {
    const token = lineage === undefined ? undefined : await holdServiceToken(tx, caller.id, lineage)
    return token === undefined ? undefined : { ...caller, projectId: token.projectId, permissions: new Set(token.permissions) }
  }
  const concerned = `{${[...projects, ...projectId === null ? [] : [projectId]].join(',')}}`
  // A session is only kept from ending: its use may be noted meanwhile. In lists, so that every row that is locked is read.
  const [row] = await tx.execute<{ isOpen: boolean, memberships: { projectId: string, role: MemberRole }[], isOperator: boolean }>(sql`
    WITH session AS (SELECT digest FROM ${sessions} WHERE digest = ${caller.session} AND NOT ${isOver(sessionLimits)} FOR KEY SHARE),
      concerned AS (SELECT project_id, role FROM ${members} WHERE user_id = ${caller.id} AND project_id = ANY(${concerned}::uuid[]) FOR SHARE),
      membership AS (SELECT project_id, role FROM concerned UNION ALL
        SELECT project_id, role FROM ${members} WHERE user_id = ${caller.id} AND ${projectId}::uuid IS NULL AND project_id <> ALL(${concerned}::uuid[])),
      operator AS (SELECT user_id FROM ${operators} WHERE user_id = ${caller.id} FOR SHARE)
    SELECT (SELECT count(*) FROM session) > 0 AS "isOpen",
      (SELECT coalesce(json_agg(json_build_object('projectId', project_id, 'role', role)), '[]') FROM membership) AS memberships,
      (SELECT count(*) FROM operator) > 0 AS "isOperator"`)
  if (row === undefined) throw new Error('a look-up of rights gave no row')
  const { isOpen, memberships, isOperator } = row
  return isOpen ? { ...caller, isOperator, roles: new Map(memberships.map(({ projectId, role }) => [projectId, role])) } : undefined
}
