import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../db/database.ts'
import { projectNotFound } from '../errors.ts'
import { rightfulContextOf } from '../plugins/authentication.ts'
import { hasProject } from '../projects/queries.ts'
import { NoSettings, ProjectParams, noContent } from '../schemas.ts'
import { listMembers } from './member-queries.ts'
import type { MemberCommands } from './members.ts'
import { AddMember, EditMember, Invitation, InvitedMember, MemberList, MemberParams, Page } from './schemas.ts'

export interface MemberRoutesOptions { database: Database, commands: MemberCommands }

const tags = ['members']
const collection = '/projects/:projectId/members'
const item = `${collection}/:userId`

export const memberRoutes: FastifyPluginAsyncTypebox<MemberRoutesOptions> = async (app, { database, commands }) => {
  app.get(collection, {
    config: { permission: 'projects:read', problems: [404, 422] },
    schema: { tags, operationId: 'listMembers', summary: 'Who belongs to the project, a page at a time', params: ProjectParams, querystring: Page, response: { 200: MemberList } }
  }, async request => {
    const { projectId } = request.params
    return await database.run(async db => {
      const page = await listMembers(db, projectId, request.query)
      if (page.data.length === 0 && !await hasProject(db, projectId)) throw projectNotFound()
      return page
    })
  })

  app.post(collection, {
    config: { permission: 'members:write', recentPassword: true, problems: [404, 409, 422] },
    schema: { tags, operationId: 'addMember', summary: 'Add a person; for an e-mail address that is new here the answer carries an invitation, this once', params: ProjectParams, body: AddMember, response: { 201: InvitedMember } }
  }, async (request, reply) => {
    const member = await commands.add(rightfulContextOf(request), request.params.projectId, request.body)
    return await reply.code(201).header('cache-control', 'no-store').send(member)
  })

  app.patch(item, {
    config: { permission: 'members:write', recentPassword: true, problems: [404, 409, 422] },
    schema: { tags, operationId: 'editMember', summary: 'Change a member\'s role', params: MemberParams, body: EditMember, response: { 200: { $ref: 'Member#' } } }
  }, async request => await commands.edit(rightfulContextOf(request), request.params.projectId, request.params.userId, request.body.role))

  app.delete(item, {
    config: { permission: 'members:write', bodyIsOptional: true, problems: [404, 409] },
    schema: { tags, operationId: 'removeMember', summary: 'Take a person out of the project', params: MemberParams, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.remove(rightfulContextOf(request), request.params.projectId, request.params.userId)
    return await reply.code(204).send()
  })

  app.post(`${item}/invitation`, {
    config: { permission: 'members:write', recentPassword: true, bodyIsOptional: true, problems: [404, 409] },
    schema: { tags, operationId: 'inviteMember', summary: 'Make a new invitation for somebody who never had a password; the earlier one ends', params: MemberParams, body: NoSettings, response: { 200: Invitation } }
  }, async (request, reply) => {
    const invitation = await commands.invite(rightfulContextOf(request), request.params.projectId, request.params.userId)
    return await reply.header('cache-control', 'no-store').send(invitation)
  })
}
