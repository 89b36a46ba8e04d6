import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../db/database.ts'
import { keyNotFound, projectNotFound } from '../errors.ts'
import { contextOf } from '../plugins/authentication.ts'
import { hasProject } from '../projects/queries.ts'
import { KeyParams, NoSettings, ProjectParams, noContent } from '../schemas.ts'
import type { KeyCommands } from './commands.ts'
import { findKey, listKeys } from './queries.ts'
import { CreateKey, EditKey, KeyList, ListKeys, RevokeKey, RotateKey } from './schemas.ts'
import { viewKey, type Endpoint } from './view.ts'

export interface KeyRoutesOptions { database: Database, commands: KeyCommands, endpoints: Endpoint[] }

const tags = ['keys']
const key = { $ref: 'Key#' }
const keyWithSecret = { $ref: 'KeyWithSecret#' }
const collection = '/projects/:projectId/keys'
const item = `${collection}/:keyId`

/** Keys over HTTP: what stands in the request, which command it is, how the answer looks. */
export const keyRoutes: FastifyPluginAsyncTypebox<KeyRoutesOptions> = async (app, { database, commands, endpoints }) => {
  app.post(collection, {
    config: { permission: 'keys:create', problems: [404, 422] },
    schema: { tags, operationId: 'createKey', summary: 'Issue a key; its secret is shown this once', params: ProjectParams, body: CreateKey, response: { 201: keyWithSecret } }
  }, async (request, reply) => {
    const { row, effect, secret } = await commands.create(contextOf(request), request.params.projectId, request.body)
    return await reply.code(201).headers({ 'cache-control': 'no-store', location: `/v1/projects/${row.projectId}/keys/${row.id}` }).send({ ...viewKey(row, endpoints, effect), secret })
  })

  app.get(collection, {
    config: { permission: 'keys:read', problems: [404, 422] },
    schema: { tags, operationId: 'listKeys', summary: 'Keys of a project, a page at a time', params: ProjectParams, querystring: ListKeys, response: { 200: KeyList } }
  }, async request => {
    const { projectId } = request.params
    return await database.run(async db => {
      const { rows, nextCursor } = await listKeys(db, projectId, request.query)
      if (rows.length === 0 && !await hasProject(db, projectId)) throw projectNotFound()
      return { data: rows.map(row => viewKey(row, endpoints)), nextCursor }
    })
  })

  app.get(item, {
    config: { permission: 'keys:read', problems: [404] },
    schema: { tags, operationId: 'getKey', summary: 'One key', params: KeyParams, response: { 200: key } }
  }, async request => {
    const row = await database.run(async db => await findKey(db, request.params))
    if (row === undefined) throw keyNotFound()
    return viewKey(row, endpoints)
  })

  app.patch(item, {
    config: { permission: 'keys:update', problems: [404, 409, 422] },
    schema: { tags, operationId: 'editKey', summary: 'Change settings (JSON merge patch); the secret stays', params: KeyParams, body: EditKey, response: { 200: key } }
  }, async request => {
    const { row, effect } = await commands.edit(contextOf(request), request.params, request.body)
    return viewKey(row, endpoints, effect)
  })

  app.delete(item, {
    config: { permission: 'keys:revoke', bodyIsOptional: true, problems: [404] },
    schema: { tags, operationId: 'deleteKey', summary: 'Delete a key and erase its secrets', params: KeyParams, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.remove(contextOf(request), request.params)
    return await reply.code(204).send()
  })

  for (const action of ['disable', 'enable'] as const) {
    app.post(`${item}/${action}`, {
      config: { permission: 'keys:update', bodyIsOptional: true, problems: [404, 409] },
      schema: { tags, operationId: `${action}Key`, summary: action === 'disable' ? 'Refuse the key until it is enabled' : 'Admit the key again', params: KeyParams, body: NoSettings, response: { 200: key } }
    }, async request => {
      const { row, effect } = await commands[action](contextOf(request), request.params)
      return viewKey(row, endpoints, effect)
    })
  }

  app.post(`${item}/rotate`, {
    config: { permission: 'keys:rotate', bodyIsOptional: true, problems: [404, 409, 422] },
    schema: { tags, operationId: 'rotateKey', summary: 'Give the key a new secret; without a grace the old one ends at once', params: KeyParams, body: RotateKey, response: { 200: keyWithSecret } }
  }, async (request, reply) => {
    const { row, effect, secret } = await commands.rotate(contextOf(request), request.params, request.body.gracePeriodSeconds)
    return await reply.header('cache-control', 'no-store').send({ ...viewKey(row, endpoints, effect), secret })
  })

  app.post(`${item}/rotate/finish`, {
    config: { permission: 'keys:rotate', bodyIsOptional: true, problems: [404, 409] },
    schema: { tags, operationId: 'finishRotation', summary: 'End the old secret\'s grace now', params: KeyParams, body: NoSettings, response: { 200: key } }
  }, async request => {
    const { row, effect } = await commands.finishRotation(contextOf(request), request.params)
    return viewKey(row, endpoints, effect)
  })

  app.post(`${item}/revoke`, {
    config: { permission: 'keys:revoke', bodyIsOptional: true, problems: [404, 409, 422] },
    schema: { tags, operationId: 'revokeKey', summary: 'End the key for good; it stays in lists', params: KeyParams, body: RevokeKey, response: { 200: key } }
  }, async request => {
    const { row, effect } = await commands.revoke(contextOf(request), request.params, request.body.reason)
    return viewKey(row, endpoints, effect)
  })
}
