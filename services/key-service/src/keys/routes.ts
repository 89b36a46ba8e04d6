import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import type { Database } from '../db/database.ts'
import { keyNotFound, projectNotFound } from '../errors.ts'
import { IdempotencyHeaders } from '../idempotency/ask.ts'
import { createIssuer } from '../idempotency/issue.ts'
import type { RunOnce } from '../idempotency/once.ts'
import { contextOf } from '../plugins/authentication.ts'
import { IfMatchHeaders, etagOf, ifMatch, requireIfMatch } from '../preconditions.ts'
import { hasProject } from '../projects/queries.ts'
import { KeyParams, NoSettings, ProjectParams, noContent } from '../schemas.ts'
import { countAttention } from './attention.ts'
import type { ChangedKey, KeyCommands, KeyTarget } from './commands.ts'
import { findKey, listKeys } from './queries.ts'
import { readRequests24h } from './requests24h.ts'
import type { RevealSecret } from './reveal.ts'
import { AttentionCounts, CreateKey, EditKey, ExtendRotation, KeyList, ListKeys, RevealKey, RevealedSecret, RevokeKey, RotateKey, type Key, type KeyWithUsage } from './schemas.ts'
import type { KeyAddress } from './secrets.ts'
import { readSinceRevoked } from './since-revoked.ts'
import { viewKey, type Endpoint } from './view.ts'

export interface KeyRoutesOptions {
  database: Database
  commands: KeyCommands
  reveal: RevealSecret
  endpoints: Endpoint[]
  runOnce: RunOnce
  /** The scopes that `allowedForAll` stands for. */
  coveredScopes: ReadonlySet<string>
}

const tags = ['keys']
const key = { $ref: 'Key#' }
const keyWithSecret = { $ref: 'KeyWithSecret#' }
const keyWithUsage = { $ref: 'KeyWithUsage#' }
const collection = '/projects/:projectId/keys'
const item = `${collection}/:keyId`
const RotateHeaders = Type.Object({ ...IfMatchHeaders.properties, ...IdempotencyHeaders.properties })

/** Keys over HTTP: what stands in the request, which command it is, how the answer looks. */
export const keyRoutes: FastifyPluginAsyncTypebox<KeyRoutesOptions> = async (app, { database, commands, reveal, endpoints, runOnce, coveredScopes }) => {
  const view = ({ row, effect }: ChangedKey): Key => viewKey(row, endpoints, effect)
  const issue = createIssuer(runOnce, view)

  app.post(collection, {
    config: { permission: 'keys:create', problems: [404, 409, 422] },
    schema: { tags, operationId: 'createKey', summary: 'Issue a key, or take one over; a new secret is shown here', params: ProjectParams, headers: IdempotencyHeaders, body: CreateKey, response: { 201: keyWithSecret } }
  }, async (request, reply) => {
    return await issue(request, reply, 201, async once => await commands.create(contextOf(request), request.params.projectId, request.body, once))
  })

  app.get(collection, {
    config: { permission: 'keys:read', problems: [404, 422] },
    schema: { tags, operationId: 'listKeys', summary: 'Keys of a project, a page at a time', params: ProjectParams, querystring: ListKeys, response: { 200: KeyList } }
  }, async request => {
    const { projectId } = request.params
    return await database.search(async db => {
      const { rows, nextCursor } = await listKeys(db, projectId, request.query, coveredScopes)
      if (rows.length === 0 && !await hasProject(db, projectId)) throw projectNotFound()
      const requests24h = await readRequests24h(db, projectId, rows.map(({ id }) => id))
      return { data: rows.map(row => ({ ...viewKey(row, endpoints), requests24h: requests24h.get(row.id) ?? [] })), nextCursor }
    })
  })

  app.get(`${collection}/attention`, {
    config: { permission: 'keys:read', problems: [404] },
    schema: { tags, operationId: 'countKeysToAttend', summary: 'How many keys somebody should look at, by the filter that lists them', params: ProjectParams, response: { 200: AttentionCounts } }
  }, async request => {
    const { projectId } = request.params
    return await database.search(async db => {
      if (!await hasProject(db, projectId)) throw projectNotFound()
      return await countAttention(db, projectId)
    })
  })

  app.get(item, {
    config: { permission: 'keys:read', problems: [404] },
    schema: { tags, operationId: 'getKey', summary: 'One key', params: KeyParams, response: { 200: keyWithUsage } }
  }, async (request, reply) => {
    const body = await database.run(async (db): Promise<KeyWithUsage> => {
      const row = await findKey(db, request.params)
      if (row === undefined) throw keyNotFound()
      const requests24h = await readRequests24h(db, row.projectId, [row.id])
      return { ...viewKey(row, endpoints), requests24h: requests24h.get(row.id) ?? [], sinceRevoked: await readSinceRevoked(db, row) }
    })
    return await reply.header('etag', etagOf(body)).send(body)
  })

  app.patch(item, {
    config: { permission: 'keys:update', problems: [404, 409, 412, 422, 428] },
    schema: { tags, operationId: 'editKey', summary: 'Change settings (JSON merge patch, If-Match); the secret stays', params: KeyParams, headers: IfMatchHeaders, body: EditKey, response: { 200: key } }
  }, async (request, reply) => {
    const changed = await commands.edit(contextOf(request), { ...request.params, ifMatch: requireIfMatch(request) }, request.body)
    return await reply.header('etag', etagOf(changed.row)).send(view(changed))
  })

  app.delete(item, {
    config: { permission: 'keys:revoke', bodyIsOptional: true, problems: [404, 412] },
    schema: { tags, operationId: 'deleteKey', summary: 'Delete a key and erase its secrets', params: KeyParams, headers: IfMatchHeaders, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.remove(contextOf(request), targetOf(request))
    return await reply.code(204).send()
  })

  for (const action of ['disable', 'enable'] as const) {
    app.post(`${item}/${action}`, {
      config: { permission: 'keys:update', bodyIsOptional: true, problems: [404, 409, 412] },
      schema: { tags, operationId: `${action}Key`, summary: action === 'disable' ? 'Refuse the key until it is enabled' : 'Admit the key again', params: KeyParams, headers: IfMatchHeaders, body: NoSettings, response: { 200: key } }
    }, async (request, reply) => {
      const changed = await commands[action](contextOf(request), targetOf(request))
      return await reply.header('etag', etagOf(changed.row)).send(view(changed))
    })
  }

  app.post(`${item}/rotate`, {
    config: { permission: 'keys:rotate', bodyIsOptional: true, problems: [404, 409, 412, 422] },
    schema: { tags, operationId: 'rotateKey', summary: 'Give the key a new secret; without a grace the old one ends at once', params: KeyParams, headers: RotateHeaders, body: RotateKey, response: { 200: keyWithSecret } }
  }, async (request, reply) => {
    return await issue(request, reply, 200, async once => await commands.rotate(contextOf(request), targetOf(request), request.body.gracePeriodSeconds, once))
  })

  app.patch(`${item}/rotate`, {
    config: { permission: 'keys:rotate', problems: [404, 409, 412, 422] },
    schema: { tags, operationId: 'extendRotation', summary: 'Let the old secret\'s grace end later, or sooner', params: KeyParams, headers: IfMatchHeaders, body: ExtendRotation, response: { 200: key } }
  }, async (request, reply) => {
    const changed = await commands.extendRotation(contextOf(request), targetOf(request), request.body.gracePeriodSeconds)
    return await reply.header('etag', etagOf(changed.row)).send(view(changed))
  })

  app.post(`${item}/rotate/finish`, {
    config: { permission: 'keys:rotate', bodyIsOptional: true, problems: [404, 409, 412] },
    schema: { tags, operationId: 'finishRotation', summary: 'End the old secret\'s grace now', params: KeyParams, headers: IfMatchHeaders, body: NoSettings, response: { 200: key } }
  }, async (request, reply) => {
    const changed = await commands.finishRotation(contextOf(request), targetOf(request))
    return await reply.header('etag', etagOf(changed.row)).send(view(changed))
  })

  app.post(`${item}/revoke`, {
    config: { permission: 'keys:revoke', bodyIsOptional: true, problems: [404, 409, 412, 422] },
    schema: { tags, operationId: 'revokeKey', summary: 'End the key for good; it stays in lists', params: KeyParams, headers: IfMatchHeaders, body: RevokeKey, response: { 200: key } }
  }, async (request, reply) => {
    const changed = await commands.revoke(contextOf(request), targetOf(request), request.body.reason)
    return await reply.header('etag', etagOf(changed.row)).send(view(changed))
  })

  app.post(`${item}/reveal`, {
    config: { permission: 'keys:reveal', recentPassword: true, problems: [404, 409, 422] },
    schema: { tags, operationId: 'revealKey', summary: 'Show the current secret again; who did it and why stays in the audit trail', params: KeyParams, body: RevealKey, response: { 200: RevealedSecret } }
  }, async (request, reply) => {
    const secret = await reveal(contextOf(request), request.params, request.body.reason)
    return await reply.header('cache-control', 'no-store').send({ secret })
  })
}

function targetOf (request: { params: KeyAddress, headers: Parameters<typeof ifMatch>[0]['headers'] }): KeyTarget {
  return { ...request.params, ifMatch: ifMatch(request) }
}
