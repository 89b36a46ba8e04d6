import type { ProblemError } from '@keygate/service-kit'
import fp from 'fastify-plugin'
import type { FastifyRequest } from 'fastify'
import type { Caller, PersonCaller } from '../access/caller.ts'
import { grantedBy } from '../access/grants.ts'
import { judge } from '../access/judge.ts'
import type { Permission } from '../access/permissions.ts'
import type { Basis, RightfulContext } from '../access/still.ts'
import { recordAlone, type ChangeContext } from '../audit/audit-log.ts'
import type { Database } from '../db/database.ts'
import { confirmationRequired, crossSite, forbidden, keyNotFound, onlyForPeople, projectNotFound, unauthenticated } from '../errors.ts'
import { sessionCookieOf } from '../people/session-cookie.ts'
import { findCaller, type SessionLimits } from '../people/sessions.ts'
import { findServiceToken } from '../service-tokens/repository.ts'
import type { IsSameSite } from './cross-site.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What a caller must be permitted to use the route. */
    permission?: Permission
    /** Beside the permission, of what shows a secret again or gives rights: more than an open session, somebody else may sit there. */
    recentPassword?: boolean
    /** Instead of a permission, for what everybody may do who is known (look at themselves), or every person who is (sign out). */
    access?: 'signed-in' | 'person' | 'open'
  }
  interface FastifyRequest { caller: Caller | null, basis: Basis | null }
}

export interface AuthenticationOptions { database: Database, sessionLimits: SessionLimits, isSameSite: IsSameSite }

// RFC 6750 section 2.1: the scheme in any case, one or more spaces, b64token. Our tokens need no more than these characters.
const bearer = /^bearer +(kgs_[\w-]{20,200})$/i
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
const keyIdShape = /^key_[0-9A-Za-z]{22}$/

/** What a request is about, ids in lower case; null: none. */
interface Address { projectId: string | null, keyId: string | null }
const nowhere: Address = { projectId: null, keyId: null }

/** How long a confirmation of the password is good for what wants a recent one, in milliseconds. */
const confirmationMs = 10 * 60_000

/**
 * Who calls, and may they? For every route of the scope that registers it, before a body is read.
 *
 * A route that declares neither a permission nor `access` does not boot, so none can be left open by oversight. API keys never
 * match: only service tokens and sessions are looked up here.
 */
export const authentication = fp<AuthenticationOptions>(async (app, { database, sessionLimits, isSameSite }) => {
  app.decorateRequest('caller', null)
  app.decorateRequest('basis', null)

  app.addHook('onRoute', route => {
    const { permission, access } = route.config ?? {}
    if (permission === undefined && access !== 'signed-in' && access !== 'person') throw new Error(`${String(route.method)} ${route.url} declares no permission`)
  })

  app.addHook('onRequest', async request => {
    const caller = await identify(request)
    if (caller === undefined) {
      await app.countRefused(request)
      throw unauthenticated()
    }
    request.caller = caller
    const { permission, access, recentPassword = false } = request.routeOptions.config
    if (access === 'person' && caller.kind !== 'person') return await refuse(request, onlyForPeople())
    if (permission === undefined) return
    const { projectId, keyId } = request.params as { projectId?: string, keyId?: string }
    // What cannot exist, and what this caller may not know of, are answered like what does not exist.
    const notFound = keyId === undefined ? projectNotFound : keyNotFound
    if (projectId !== undefined && !uuid.test(projectId)) throw notFound()
    const address = { projectId: projectId?.toLowerCase() ?? null, keyId: keyId ?? null }
    const judgement = judge(caller, permission, address.projectId)
    if (judgement === 'hidden') return await refuse(request, notFound(), nowhere, address)
    if (keyId !== undefined && !keyIdShape.test(keyId)) throw notFound()
    request.basis = { caller, permission, ...address, sessionLimits }
    if (judgement === 'forbidden') return await refuse(request, forbidden(permission, grantedBy(permission)), address)
    if (recentPassword && wantsConfirmation(caller)) return await refuse(request, confirmationRequired(), address)
  })

  /**
   * Refuses somebody who is known, and writes that down, once.
   *
   * @param address whose audit trail tells it.
   * @param hidden what was asked for, if that is not what the caller may see: another project's trail says nothing of those who know its id.
   */
  async function refuse (request: FastifyRequest, refusal: ProblemError, address: Address = nowhere, hidden?: Address): Promise<never> {
    await app.countRefused(request)
    const { config: { permission }, url = null } = request.routeOptions
    await recordAlone(database, contextOf(request), { action: 'permission.refused', ...address, details: { permission, ...hidden, method: request.method, route: url, code: refusal.problem.code } })
    throw refusal
  }

  /** An Authorization header is what the sender chose to say; a cookie comes by itself, so it counts only without one, and from our own pages. */
  async function identify (request: FastifyRequest): Promise<Caller | undefined> {
    const { authorization } = request.headers
    if (authorization !== undefined) {
      const token = bearer.exec(authorization)?.[1]
      return token === undefined ? undefined : await database.run(async db => await findServiceToken(db, token))
    }
    const session = sessionCookieOf(request)
    if (session === undefined) return undefined
    if (isSameSite(request)) return await database.run(async db => await findCaller(db, session, sessionLimits))
    const person = await database.run(async db => await findCaller(db, session, sessionLimits, 'looked-at'))
    if (person === undefined) {
      await app.countRefused(request)
      throw crossSite()
    }
    request.caller = person
    return await refuse(request, crossSite())
  }
}, { name: 'authentication' })

/** The caller of a request that has passed authentication. */
export function callerOf (request: FastifyRequest): Caller {
  if (request.caller === null) throw unauthenticated()
  return request.caller
}

/** @throws {ProblemError} 403 for a service token. */
export function personOf (request: FastifyRequest): PersonCaller {
  const caller = callerOf(request)
  if (caller.kind !== 'person') throw onlyForPeople()
  return caller
}

/** Who changes what in which request and by which right, for the audit trail and for `access/still.ts`. */
export function contextOf (request: FastifyRequest): ChangeContext {
  const { kind, id, name } = callerOf(request)
  return { actor: { type: kind, id, name }, requestId: request.id, ...request.basis !== null && { basis: request.basis } }
}

/** The same where it rests on a right, always: of a route with a permission. */
export function rightfulContextOf (request: FastifyRequest): RightfulContext {
  if (request.basis === null) throw new Error(`${request.method} ${request.url} rests on no permission`)
  return { ...contextOf(request), basis: request.basis }
}

/** The one project that the caller is confined to; null: none. For look-ups that no path confines. */
export function boundProjectOf (caller: Caller): string | null {
  return caller.kind === 'token' ? caller.projectId : null
}

/** Of a person who has not given the password in the last ten minutes. Service tokens have none to give. */
export function wantsConfirmation (caller: Caller): boolean {
  return caller.kind === 'person' && caller.nowMs - caller.authenticatedMs > confirmationMs
}
