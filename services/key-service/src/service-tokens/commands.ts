import { sql } from 'drizzle-orm'
import type { Caller } from '../access/caller.ts'
import { sees } from '../access/judge.ts'
import { ofInstallation, type Permission } from '../access/permissions.ts'
import { grantable } from '../access/rights.ts'
import { whileStillAs, type RightfulContext } from '../access/still.ts'
import { recordAlone, recordAudit } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { cannotGrant, conflict, projectNotFound, tokenNotFound, unacceptable } from '../errors.ts'
import { parseExpiry } from '../keys/expiry.ts'
import { holdProject } from '../keys/repository.ts'
import { parseName } from '../text.ts'
import { holdVisibleToken } from './queries.ts'
import { endTokens, insertServiceToken, originOf, queuesToEnd } from './repository.ts'
import type { CreateServiceToken, ServiceToken } from './schemas.ts'

/** What whoever makes a token may give to it, for the project that it is for. */
interface Maker { makerId: string | null, parentId: string | null, permissions: ReadonlySet<Permission>, expiresAt: Date | null }

export interface MadeServiceToken { row: ServiceToken, token: string }

/** Making and ending service tokens over the API. */
export function createServiceTokenCommands (database: Database) {
  return {
    /** No path names the project here, the body does: it is what the right is judged in. */
    async create (context: RightfulContext, body: CreateServiceToken): Promise<MadeServiceToken> {
      const projectId = body.projectId?.toLowerCase() ?? null
      if (projectId !== null && !sees(context.basis.caller, projectId)) {
        const refusal = projectNotFound()
        await recordAlone(database, context, { action: 'permission.refused', projectId: null, keyId: null, details: { permission: context.basis.permission, projectId, permissions: body.permissions, code: refusal.problem.code } })
        throw refusal
      }
      return await whileStillAs(database, { ...context, basis: { ...context.basis, projectId } }, async (tx, caller) => {
        if (projectId !== null && await holdProject(tx, projectId) === undefined) throw projectNotFound()
        const maker = await makerOf(tx, caller, projectId)
        requireGrantable(maker, body.permissions as Permission[], projectId)
        const { name, expiresAt } = acceptToken(body, { now: await clockOf(tx), latest: maker.expiresAt })
        const { id, token } = await insertServiceToken(tx, { name, permissions: body.permissions as Permission[], projectId, expiresAt, makerId: maker.makerId, parentId: maker.parentId, createdBy: context.actor.name })
        await recordAudit(tx, context, { action: 'token.create', projectId, keyId: null, details: { tokenId: id, name, permissions: body.permissions, expiresAt: expiresAt?.toISOString() ?? null } })
        const row = await holdVisibleToken(tx, caller, id)
        if (row === undefined) throw tokenNotFound()
        return { row, token }
      }, { details: { permissions: body.permissions } })
    },

    async remove (context: RightfulContext, tokenId: string): Promise<void> {
      await whileStillAs(database, context, async (tx, caller) => {
        const found = await holdVisibleToken(tx, caller, tokenId)
        if (found === undefined) throw tokenNotFound()
        if (found.fromFile) throw conflict('token_from_file', `The token "${found.name}" stands in KEYGATE_SERVICE_TOKENS_FILE. Remove it there and start key-service again.`)
        const ended = await endTokens(tx, [tokenId])
        await recordAudit(tx, context, { action: 'token.delete', projectId: found.projectId, keyId: null, details: { tokenId, name: found.name, permissions: found.permissions, endedTokens: ended.filter(id => id !== tokenId) } })
      }, { queues: async tx => await queuesToEnd(tx, tokenId) })
    }
  }
}

export type ServiceTokenCommands = ReturnType<typeof createServiceTokenCommands>

/**
 * A token that a token makes rests on the same person's rights, and ends with it at the latest.
 *
 * @param caller as it is now, and stays until the transaction ends.
 */
async function makerOf (tx: Executor, caller: Caller, projectId: string | null): Promise<Maker> {
  if (caller.kind === 'person') return { makerId: caller.id, parentId: null, permissions: grantable(caller, projectId), expiresAt: null }
  const isBeyond = caller.projectId !== null && caller.projectId !== projectId
  return { ...await originOf(tx, caller.id), parentId: caller.id, permissions: isBeyond ? new Set() : caller.permissions }
}

function requireGrantable (maker: Maker, permissions: Permission[], projectId: string | null): void {
  if (!maker.permissions.has('tokens:write')) throw unacceptable([{ pointer: '/projectId', message: 'must name a project of yours: a token for all projects is for operators to make' }])
  for (const [index, permission] of permissions.entries()) {
    const pointer = `/permissions/${index}`
    if (permission === 'keys:verify') throw cannotGrant(pointer, 'is keys:verify, which is granted on the host alone: key-service\'s command "tokens create"')
    if (!maker.permissions.has(permission)) throw cannotGrant(pointer, `is ${permission}, which you may not do ${projectId === null ? 'in all projects' : 'in this project'} yourself`)
    if (projectId !== null && ofInstallation.has(permission)) throw unacceptable([{ pointer, message: `must not be ${permission}: it concerns no single project, and this token would be bound to one` }])
  }
}

/**
 * What stands in a request for a token apart from its permissions.
 *
 * @param latest when the maker's own token ends; null: never, or a person makes it.
 * @throws {ProblemError} 422 with all faults at once.
 */
export function acceptToken ({ name, expiresAt }: Pick<CreateServiceToken, 'name' | 'expiresAt'>, { now, latest }: { now: number, latest: Date | null }): { name: string, expiresAt: Date | null } {
  const parsed = parseName(name)
  const expiry = typeof expiresAt === 'string' ? parseExpiry(expiresAt, now) : { at: null }
  const isTooLate = latest !== null && 'at' in expiry && (expiry.at === null || expiry.at > latest)
  if (!('fault' in parsed) && !('fault' in expiry) && !isTooLate) return { name: parsed.name, expiresAt: expiry.at }
  throw unacceptable([
    ...'fault' in parsed ? [{ pointer: '/name', message: parsed.fault }] : [],
    ...'fault' in expiry ? [{ pointer: '/expiresAt', message: expiry.fault }] : [],
    ...isTooLate ? [{ pointer: '/expiresAt', message: `must be at or before ${latest.toISOString()}, when the token that makes this one ends` }] : []
  ])
}

/** The database's clock, in Unix milliseconds. */
export async function clockOf (tx: Executor): Promise<number> {
  const [row] = await tx.execute<{ now: number }>(sql`SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::float8 AS now`)
  if (row === undefined) throw new Error('the clock gave no row')
  return row.now
}
