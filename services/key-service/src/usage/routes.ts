import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Database } from '../db/database.ts'
import { sendDownload } from '../download/download.ts'
import type { DownloadFormat } from '../download/schemas.ts'
import { searchInTurn } from '../download/turns.ts'
import { keyNotFound, projectNotFound } from '../errors.ts'
import { hasProject } from '../projects/queries.ts'
import { KeyParams, ProjectParams } from '../schemas.ts'
import { exportUsage, fileNameOf, usageColumns } from './export.ts'
import { countPoints, keyWasThere, listPoints, listTopKeys, type Selection } from './queries.ts'
import { rangeOf, topKeysDays } from './range.ts'
import { ExportKeyUsage, ExportProjectUsage, ListKeyUsage, ListProjectUsage, ListTopKeys, TopKeys, UsageFile, UsagePage } from './schemas.ts'

export interface UsageRoutesOptions { database: Pick<Database, 'search'> }

const tags = ['usage']
const permission = 'usage:read'
const problems = [404, 422]
const ofProject = '/projects/:projectId/usage'
const ofKey = '/projects/:projectId/keys/:keyId/usage'

/** What became of requests: by time, by scope, by operation, by key. */
export const usageRoutes: FastifyPluginAsyncTypebox<UsageRoutesOptions> = async (app, { database }) => {
  const search = searchInTurn(database.search)

  app.get(ofProject, {
    config: { permission, problems },
    schema: { tags, operationId: 'listProjectUsage', summary: 'What became of the requests of a project, step by step, oldest first, a page at a time', params: ProjectParams, querystring: ListProjectUsage, response: { 200: UsagePage } }
  }, async request => {
    const selection = selectionOf(request.params, request.query)
    if (!await database.search(async db => await hasProject(db, selection.projectId))) throw projectNotFound()
    return await listPoints(database.search, selection, request.query)
  })

  app.get(ofKey, {
    config: { permission, problems },
    schema: { tags, operationId: 'listKeyUsage', summary: 'What became of the requests of a key, also of one that was deleted', params: KeyParams, querystring: ListKeyUsage, response: { 200: UsagePage } }
  }, async request => {
    const selection = selectionOf(request.params, request.query)
    if (!await database.search(async db => await keyWasThere(db, request.params))) throw keyNotFound()
    return await listPoints(database.search, selection, request.query)
  })

  app.get(`${ofProject}/keys`, {
    config: { permission, problems },
    schema: { tags, operationId: 'listTopKeys', summary: 'The keys that were used most, were limited most, or were refused most', params: ProjectParams, querystring: ListTopKeys, response: { 200: TopKeys } }
  }, async request => {
    const { projectId } = request.params
    const range = rangeOf(request.query, Date.now(), topKeysDays)
    if (!await database.search(async db => await hasProject(db, projectId))) throw projectNotFound()
    return { data: await listTopKeys(database.search, projectId, request.query, range), ...range }
  })

  app.get(`${ofProject}/export`, {
    config: { permission, problems },
    schema: { tags, operationId: 'exportProjectUsage', summary: 'All rows of the usage of a project as a file', params: ProjectParams, querystring: ExportProjectUsage, response: { 200: UsageFile } }
  }, async (request, reply) => {
    const selection = selectionOf(request.params, request.query)
    if (!await database.search(async db => await hasProject(db, selection.projectId))) throw projectNotFound()
    return await sendFile(request, reply, selection, request.query.format)
  })

  app.get(`${ofKey}/export`, {
    config: { permission, problems },
    schema: { tags, operationId: 'exportKeyUsage', summary: 'All rows of the usage of a key as a file', params: KeyParams, querystring: ExportKeyUsage, response: { 200: UsageFile } }
  }, async (request, reply) => {
    const selection = selectionOf(request.params, request.query)
    if (!await database.search(async db => await keyWasThere(db, request.params))) throw keyNotFound()
    return await sendFile(request, reply, selection, request.query.format)
  })

  async function sendFile (request: FastifyRequest, reply: FastifyReply, selection: Selection, format: DownloadFormat): Promise<FastifyReply> {
    const total = await countPoints(search, selection)
    if (total !== undefined) reply.header('x-total-rows', total)
    return await sendDownload(request, reply, { name: fileNameOf(selection), format, columns: usageColumns(selection.groupBy), rows: exportUsage(search, selection) })
  }
}

type Query = Pick<Selection, 'interval' | 'groupBy' | 'api' | 'operation' | 'scope' | 'keyId'> & { from?: string, until?: string }

/** What is asked for, with the time that it is asked about. @throws {ProblemError} 422 for a time that cannot be. */
function selectionOf ({ projectId, keyId }: { projectId: string, keyId?: string }, query: Query): Selection {
  const { interval, groupBy, api, operation, scope } = query
  return { projectId: projectId.toLowerCase(), keyId: keyId ?? query.keyId, interval, groupBy, api, operation, scope, ...rangeOf(query, Date.now()) }
}
