import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../db/database.ts'
import { rightfulContextOf } from '../plugins/authentication.ts'
import { noContent } from '../schemas.ts'
import { listOperators } from './member-queries.ts'
import type { OperatorCommands } from './operators.ts'
import { AddOperator, OperatorList, OperatorParams, Page } from './schemas.ts'

export interface OperatorRoutesOptions { database: Database, commands: OperatorCommands }

const tags = ['operators']

export const operatorRoutes: FastifyPluginAsyncTypebox<OperatorRoutesOptions> = async (app, { database, commands }) => {
  app.get('/operators', {
    config: { permission: 'operators:write', problems: [422] },
    schema: { tags, operationId: 'listOperators', summary: 'Who runs this installation, a page at a time', querystring: Page, response: { 200: OperatorList } }
  }, async request => await database.run(async db => await listOperators(db, request.query)))

  app.post('/operators', {
    config: { permission: 'operators:write', recentPassword: true, problems: [409, 422] },
    schema: { tags, operationId: 'addOperator', summary: 'Make a person who has an account an operator', body: AddOperator, response: { 201: { $ref: 'Operator#' } } }
  }, async (request, reply) => await reply.code(201).send(await commands.add(rightfulContextOf(request), request.body.email)))

  app.delete('/operators/:userId', {
    config: { permission: 'operators:write', bodyIsOptional: true, problems: [404, 409] },
    schema: { tags, operationId: 'removeOperator', summary: 'End a person\'s being an operator', params: OperatorParams, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.remove(rightfulContextOf(request), request.params.userId)
    return await reply.code(204).send()
  })
}
