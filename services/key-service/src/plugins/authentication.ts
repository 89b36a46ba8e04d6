import fp from 'fastify-plugin'
import type { FastifyRequest } from 'fastify'
import type { ChangeContext } from '../audit/audit-log.ts'
import type { Database } from '../db/database.ts'
import { forbidden, keyNotFound, projectNotFound, unauthenticated } from '../errors.ts'
import type { Permission } from '../access/permissions.ts'
import { findServiceToken, type ServiceToken } from '../service-tokens/repository.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What a caller must be permitted to use the route. */
    permission?: Permission
  }
  interface FastifyRequest { caller: ServiceToken | null }
}

// RFC 6750 section 2.1: the scheme in any case, one or more spaces, b64token. Our tokens need no more than these characters.
const bearer = /^bearer +(kgs_[\w-]{20,200})$/i
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
const keyIdShape = /^key_[0-9A-Za-z]{22}$/

/**
 * Who calls, and may they? For every route of the scope that registers it, before a body is read.
 *
 * A route that declares no permission does not boot, so none can be left open by oversight. API keys never match: only service
 * tokens are looked up here.
 */
export const authentication = fp<{ database: Database }>(async (app, { database }) => {
  app.decorateRequest('caller', null)

  app.addHook('onRoute', route => {
    if (route.config?.permission === undefined) throw new Error(`${String(route.method)} ${route.url} declares no permission`)
  })

  app.addHook('onRequest', async request => {
    const token = bearer.exec(request.headers.authorization ?? '')?.[1]
    const caller = token === undefined ? undefined : await database.run(async db => await findServiceToken(db, token))
    if (caller === undefined) throw unauthenticated()
    request.caller = caller
    const { permission } = request.routeOptions.config
    if (permission === undefined || !caller.permissions.includes(permission)) throw forbidden(permission ?? 'of this route')
    checkAddress(request.params as { projectId?: string, keyId?: string }, caller)
  })
}, { name: 'authentication' })

/** An id that cannot exist, and a project that this caller cannot see, are answered like one that does not exist. */
function checkAddress ({ projectId, keyId }: { projectId?: string, keyId?: string }, caller: ServiceToken): void {
  if (projectId === undefined) return
  const visible = uuid.test(projectId) && (caller.projectId === null || caller.projectId === projectId.toLowerCase())
  if (keyId !== undefined && !(visible && keyIdShape.test(keyId))) throw keyNotFound()
  if (!visible) throw projectNotFound()
}

/** The caller of a request that has passed authentication. */
export function callerOf (request: FastifyRequest): ServiceToken {
  if (request.caller === null) throw unauthenticated()
  return request.caller
}

/** Who changes what in which request, for the audit trail. */
export function contextOf (request: FastifyRequest): ChangeContext {
  const { id, name } = callerOf(request)
  return { actor: { type: 'token', id, name }, requestId: request.id }
}
