import { ProblemError } from '@keygate/service-kit'
import { sql } from 'drizzle-orm'
import { recordAlone, type ChangeContext } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { members, operators, sessions } from '../db/schema.ts'
import { forbidden, keyNotFound, projectNotFound, unauthenticated } from '../errors.ts'
import { isOver, type SessionLimits } from '../people/sessions.ts'
import { holdServiceToken } from '../service-tokens/repository.ts'
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
  /** Done before the right is judged. What takes rights away locks here what keeps two of its kind apart: each holds a right that the other may be about to end. */
  first?: (tx: Executor) => Promise<void>
  /** What the audit trail says of a refusal beside its permission and code. */
  details?: Record<string, unknown>
}

/** As `whileStill`; `work` is told who the caller is at this moment, with the rights in the basis's project, or, where it names none, with all. */
export async function whileStillAs<T> (database: Database, context: RightfulContext, work: (tx: Executor, caller: Caller) => Promise<T>, { first, details = {} }: Precautions = {}): Promise<T> {
  const { permission, projectId, keyId } = context.basis
  let refusal: ProblemError | undefined
  try {
    return await database.transaction(async tx => {
      await first?.(tx)
      const caller = await judged(tx, context.basis)
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

/**
 * The order of locks: whatever a right rests on, then the project, then its key, last the chain of audit events. Who takes rights
 * away holds neither project nor key meanwhile (`people/member-queries.ts` holds the membership of a project by a lock that is only
 * for that), so nobody waits in a circle. A project's deletion takes rights away too, and holds them all before the project. Should
 * there be a circle that nobody thought of, PostgreSQL breaks it, and `database.transaction` does what lost once more.
 */
async function judged (tx: Executor, basis: Basis): Promise<Caller | ProblemError> {
  const { permission, projectId, keyId } = basis
  const caller = await held(tx, basis)
  if (caller === undefined) return unauthenticated()
  const judgement = judge(caller, permission, projectId)
  if (judgement === 'forbidden') return forbidden(permission, grantedBy(permission))
  if (judgement === 'hidden') return keyId === null ? projectNotFound() : keyNotFound()
  return caller
}

/** The caller as it is now, in what concerns this project; undefined: it may call no more. Its rows stay so until the transaction ends. */
async function held (tx: Executor, { caller, projectId, sessionLimits }: Basis): Promise<Caller | undefined> {
  if (caller.kind === 'token') {
    const token = await holdServiceToken(tx, caller.id)
    return token === undefined ? undefined : { ...caller, projectId: token.projectId, permissions: new Set(token.permissions) }
  }
  // A session is only kept from ending: its use may be noted meanwhile. In lists, so that every row that is locked is read.
  const [row] = await tx.execute<{ isOpen: boolean, memberships: { projectId: string, role: MemberRole }[], isOperator: boolean }>(sql`
    WITH session AS (SELECT digest FROM ${sessions} WHERE digest = ${caller.session} AND NOT ${isOver(sessionLimits)} FOR KEY SHARE),
      membership AS (SELECT project_id, role FROM ${members} WHERE user_id = ${caller.id} AND (${projectId}::uuid IS NULL OR project_id = ${projectId}::uuid) FOR SHARE),
      operator AS (SELECT user_id FROM ${operators} WHERE user_id = ${caller.id} FOR SHARE)
    SELECT (SELECT count(*) FROM session) > 0 AS "isOpen",
      (SELECT coalesce(json_agg(json_build_object('projectId', project_id, 'role', role)), '[]') FROM membership) AS memberships,
      (SELECT count(*) FROM operator) > 0 AS "isOperator"`)
  if (row === undefined) throw new Error('a look-up of rights gave no row')
  const { isOpen, memberships, isOperator } = row
  return isOpen ? { ...caller, isOperator, roles: new Map(memberships.map(({ projectId, role }) => [projectId, role])) } : undefined
}
