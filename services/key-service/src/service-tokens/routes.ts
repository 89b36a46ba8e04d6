import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../db/database.ts'
import { callerOf, rightfulContextOf } from '../plugins/authentication.ts'
import { noContent } from '../schemas.ts'
import type { ServiceTokenCommands } from './commands.ts'
import { listServiceTokens } from './queries.ts'
import { CreateServiceToken, ListServiceTokens, ServiceTokenList, ServiceTokenParams, ServiceTokenWithToken } from './schemas.ts'

export interface ServiceTokenRoutesOptions { database: Database, commands: ServiceTokenCommands }

const tags = ['service-tokens']

export const serviceTokenRoutes: FastifyPluginAsyncTypebox<ServiceTokenRoutesOptions> = async (app, { database, commands }) => {
  app.post('/service-tokens', {
    config: { permission: 'tokens:write', recentPassword: true, problems: [404, 422] },
    schema: { tags, operationId: 'createServiceToken', summary: 'Make a service token; it is shown this once', body: CreateServiceToken, response: { 201: ServiceTokenWithToken } }
  }, async (request, reply) => {
    const { row, token } = await commands.create(rightfulContextOf(request), request.body)
    return await reply.code(201).header('cache-control', 'no-store').send({ ...row, token })
  })

  app.get('/service-tokens', {
    config: { permission: 'tokens:write', problems: [422] },
    schema: { tags, operationId: 'listServiceTokens', summary: 'Service tokens, youngest first, a page at a time', querystring: ListServiceTokens, response: { 200: ServiceTokenList } }
  }, async request => await database.run(async db => await listServiceTokens(db, callerOf(request), request.query)))

  app.delete('/service-tokens/:tokenId', {
    config: { permission: 'tokens:write', bodyIsOptional: true, problems: [404, 409] },
    schema: { tags, operationId: 'deleteServiceToken', summary: 'End a service token', params: ServiceTokenParams, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.remove(rightfulContextOf(request), request.params.tokenId)
    return await reply.code(204).send()
  })
}
