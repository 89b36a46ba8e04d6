import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../db/database.ts'
import { boundTokenMakesNoProject, projectNotFound } from '../errors.ts'
import type { Effect } from '../outbox/make-change.ts'
import { callerOf, contextOf } from '../plugins/authentication.ts'
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
    config: { permission: 'projects:create', problems: [422] },
    schema: { tags, operationId: 'createProject', summary: 'Create a project', body: CreateProject, response: { 201: project } }
  }, async (request, reply) => {
    if (callerOf(request).projectId !== null) throw boundTokenMakesNoProject()
    const { row, effect } = await commands.create(contextOf(request), request.body)
    return await reply.code(201).header('location', `/v1/projects/${row.id}`).send(viewProject(row, effect))
  })

  app.get('/projects', {
    config: { permission: 'projects:read', problems: [422] },
    schema: { tags, operationId: 'listProjects', summary: 'Projects, youngest first, a page at a time', querystring: ListProjects, response: { 200: ProjectList } }
  }, async request => {
    const only = callerOf(request).projectId
    const { rows, nextCursor } = await database.run(async db => await listProjects(db, only, request.query))
    return { data: rows.map(row => viewProject(row)), nextCursor }
  })

  app.get(item, {
    config: { permission: 'projects:read', problems: [404] },
    schema: { tags, operationId: 'getProject', summary: 'One project', params: ProjectParams, response: { 200: project } }
  }, async request => {
    const row = await database.run(async db => await findProject(db, request.params.projectId))
    if (row === undefined) throw projectNotFound()
    return viewProject(row)
  })

  app.patch(item, {
    config: { permission: 'projects:update', problems: [404, 422] },
    schema: { tags, operationId: 'editProject', summary: 'Change name or policies (JSON merge patch)', params: ProjectParams, body: EditProject, response: { 200: project } }
  }, async request => {
    const { row, effect } = await commands.edit(contextOf(request), request.params.projectId, request.body)
    return viewProject(row, effect)
  })

  app.delete(item, {
    config: { permission: 'projects:delete', bodyIsOptional: true, problems: [404] },
    schema: { tags, operationId: 'deleteProject', summary: 'Delete a project and all its keys', params: ProjectParams, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.remove(contextOf(request), request.params.projectId)
    return await reply.code(204).send()
  })
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
