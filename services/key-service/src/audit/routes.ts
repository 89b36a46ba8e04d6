import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Caller } from '../access/caller.ts'
import type { Database } from '../db/database.ts'
import { forbidden, projectNotFound } from '../errors.ts'
import { callerOf, contextOf } from '../plugins/authentication.ts'
import { ProjectParams } from '../schemas.ts'
import { recordAlone } from './audit-log.ts'
import { listEvents, projectWasThere } from './queries.ts'
import { AuditEventList, ListAuditEvents } from './schemas.ts'

export interface AuditRoutesOptions { database: Database }

const tags = ['audit']
const permission = 'audit:read'

/** The audit trail for reading. Nothing here, and nothing in the API, changes an event. */
export const auditRoutes: FastifyPluginAsyncTypebox<AuditRoutesOptions> = async (app, { database }) => {
  app.get('/projects/:projectId/audit-events', {
    config: { permission, problems: [404, 422] },
    schema: { tags, operationId: 'listProjectAuditEvents', summary: 'What was done in a project, newest first, a page at a time', params: ProjectParams, querystring: ListAuditEvents, response: { 200: AuditEventList } }
  }, async request => {
    const { projectId } = request.params
    return await database.search(async db => {
      const page = await listEvents(db, projectId, request.query)
      if (page.data.length === 0 && !await projectWasThere(db, projectId)) throw projectNotFound()
      return page
    })
  })

  app.get('/audit-events', {
    config: { permission, problems: [422] },
    schema: { tags, operationId: 'listAuditEvents', summary: 'What was done in the whole installation, newest first, a page at a time; for operators, and for service tokens that are bound to no project', querystring: ListAuditEvents, response: { 200: AuditEventList } }
  }, async request => {
    if (!seesEverything(callerOf(request))) {
      const refusal = forbidden(permission, 'The events of all projects are for operators, and for service tokens that are bound to no project. Those of one project are at /v1/projects/{projectId}/audit-events.')
      await recordAlone(database, contextOf(request), { action: 'permission.refused', projectId: null, keyId: null, details: { permission, method: request.method, route: request.routeOptions.url ?? null, code: refusal.problem.code } })
      throw refusal
    }
    return await database.search(async db => await listEvents(db, null, request.query))
  })
}

/** `audit:read` in some project is not enough to read what was done in all. */
function seesEverything (caller: Caller): boolean {
  return caller.kind === 'token' ? caller.projectId === null : caller.isOperator
}
