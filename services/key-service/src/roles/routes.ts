import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../db/database.ts'
import { projectNotFound, roleNotFound } from '../errors.ts'
import { contextOf } from '../plugins/authentication.ts'
import { IfMatchHeaders, etagOf, ifMatch, requireIfMatch } from '../preconditions.ts'
import { hasProject } from '../projects/queries.ts'
import { ProjectParams, noContent } from '../schemas.ts'
import type { RoleCommands } from './commands.ts'
import { findRole, listRoles, viewRole } from './queries.ts'
import type { RoleAddress } from './repository.ts'
import { CreateRole, EditRole, RoleList, RoleParams } from './schemas.ts'

export interface RoleRoutesOptions { database: Database, commands: RoleCommands }

const tags = ['roles']
const role = { $ref: 'Role#' }
const collection = '/projects/:projectId/roles'
const item = `${collection}/:roleId`
const idShape = /^role_[0-9A-Za-z]{22}$/

/** Named sets of scopes that keys can be bound to. */
export const roleRoutes: FastifyPluginAsyncTypebox<RoleRoutesOptions> = async (app, { database, commands }) => {
  app.post(collection, {
    config: { permission: 'roles:write', problems: [404, 409, 422] },
    schema: { tags, operationId: 'createRole', summary: 'Create a role', params: ProjectParams, body: CreateRole, response: { 201: role } }
  }, async (request, reply) => {
    const { row, effect } = await commands.create(contextOf(request), request.params.projectId, request.body)
    return await reply.code(201).headers({ etag: etagOf(row), location: `/v1/projects/${row.projectId}/roles/${row.id}` }).send(viewRole(row, effect))
  })

  app.get(collection, {
    config: { permission: 'keys:read', problems: [404] },
    schema: { tags, operationId: 'listRoles', summary: 'All roles of a project, by name', params: ProjectParams, response: { 200: RoleList } }
  }, async request => {
    const { projectId } = request.params
    return await database.run(async db => {
      const rows = await listRoles(db, projectId)
      if (rows.length === 0 && !await hasProject(db, projectId)) throw projectNotFound()
      return { data: rows.map(row => viewRole(row)), nextCursor: null }
    })
  })

  app.get(item, {
    config: { permission: 'keys:read', problems: [404] },
    schema: { tags, operationId: 'getRole', summary: 'One role', params: RoleParams, response: { 200: role } }
  }, async (request, reply) => {
    const row = await database.run(async db => await findRole(db, addressOf(request.params)))
    if (row === undefined) throw roleNotFound()
    return await reply.header('etag', etagOf(row)).send(viewRole(row))
  })

  app.patch(item, {
    config: { permission: 'roles:write', problems: [404, 409, 412, 422, 428] },
    schema: { tags, operationId: 'editRole', summary: 'Change a role (JSON merge patch); every key that is bound to it is judged by it at once', params: RoleParams, headers: IfMatchHeaders, body: EditRole, response: { 200: role } }
  }, async (request, reply) => {
    const { row, effect } = await commands.edit(contextOf(request), { ...addressOf(request.params), ifMatch: requireIfMatch(request) }, request.body)
    return await reply.header('etag', etagOf(row)).send(viewRole(row, effect))
  })

  app.delete(item, {
    config: { permission: 'roles:write', bodyIsOptional: true, problems: [404, 409, 412] },
    schema: { tags, operationId: 'deleteRole', summary: 'Delete a role that no key is bound to', params: RoleParams, headers: IfMatchHeaders, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.remove(contextOf(request), { ...addressOf(request.params), ifMatch: ifMatch(request) })
    return await reply.code(204).send()
  })
}

/** @throws {ProblemError} 404 for an id that cannot exist; some could not even be looked up. */
function addressOf ({ projectId, roleId }: RoleAddress): RoleAddress {
  if (!idShape.test(roleId)) throw roleNotFound()
  return { projectId, roleId }
}
