import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Caller } from '../access/caller.ts'
import type { Database } from '../db/database.ts'
import { projectNotFound } from '../errors.ts'
import type { Effect } from '../outbox/make-change.ts'
import { callerOf, contextOf } from '../plugins/authentication.ts'
import { IfMatchHeaders, etagOf, ifMatch, requireIfMatch } from '../preconditions.ts'
import { ProjectParams, noContent } from '../schemas.ts'
import type { ProjectCommands } from './commands.ts'
import { findProject, listProjects, type ProjectRow } from './queries.ts'
import { CreateProject, EditProject, ListProjects, ProjectList, type Project } from './schemas.ts'

export interface ProjectRoutesOptions { database: Database, commands: ProjectCommands }

const tags = ['projects']
const project = { $ref: 'Project#' }
const item = '/projects/:projectId'

export const projectRoutes: FastifyPluginAsyncTypebox<ProjectRoutesOptions> = async (app, { database, commands }) => {
  app.post('/projects', {
    config: { permission: 'projects:create', problems: [409, 422] },
    schema: { tags, operationId: 'createProject', summary: 'Create a project', body: CreateProject, response: { 201: project } }
  }, async (request, reply) => {
    const { row, effect } = await commands.create(contextOf(request), callerOf(request), request.body)
    return await reply.code(201).headers({ etag: etagOf(row), location: `/v1/projects/${row.id}` }).send(viewProject(row, effect))
  })

  app.get('/projects', {
    config: { permission: 'projects:read', problems: [422] },
    schema: { tags, operationId: 'listProjects', summary: 'Projects, youngest first, a page at a time', querystring: ListProjects, response: { 200: ProjectList } }
  }, async request => {
    const only = visibleTo(callerOf(request))
    const { rows, nextCursor } = await database.run(async db => await listProjects(db, only, request.query))
    return { data: rows.map(row => viewProject(row)), nextCursor }
  })

  app.get(item, {
    config: { permission: 'projects:read', problems: [404] },
    schema: { tags, operationId: 'getProject', summary: 'One project', params: ProjectParams, response: { 200: project } }
  }, async (request, reply) => {
    const row = await database.run(async db => await findProject(db, request.params.projectId))
    if (row === undefined) throw projectNotFound()
    return await reply.header('etag', etagOf(row)).send(viewProject(row))
  })

  app.patch(item, {
    config: { permission: 'projects:update', problems: [404, 412, 422, 428] },
    schema: { tags, operationId: 'editProject', summary: 'Change name or policies (JSON merge patch, If-Match)', params: ProjectParams, headers: IfMatchHeaders, body: EditProject, response: { 200: project } }
  }, async (request, reply) => {
    const { row, effect } = await commands.edit(contextOf(request), request.params.projectId, requireIfMatch(request), request.body)
    return await reply.header('etag', etagOf(row)).send(viewProject(row, effect))
  })

  app.delete(item, {
    config: { permission: 'projects:delete', bodyIsOptional: true, problems: [404, 412] },
    schema: { tags, operationId: 'deleteProject', summary: 'Delete a project and all its keys', params: ProjectParams, headers: IfMatchHeaders, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.remove(contextOf(request), request.params.projectId, ifMatch(request))
    return await reply.code(204).send()
  })
}

/** A person's own projects, an operator's and a free token's all. */
function visibleTo (caller: Caller): string[] | null {
  if (caller.kind === 'token') return caller.projectId === null ? null : [caller.projectId]
  return caller.isOperator ? null : [...caller.roles.keys()]
}

/** A project as answers show it; `effect` of the change that is being answered, else what is noted on the row. */
function viewProject (row: ProjectRow, effect: Effect = row): Project {
  const iso = (time: string) => new Date(time).toISOString()
  return {
    ...row,
    effective: effect.effective,
    effectiveAt: effect.effectiveAt === null ? null : iso(effect.effectiveAt),
    createdAt: iso(row.createdAt)
  }
}
