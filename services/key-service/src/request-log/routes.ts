import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../db/database.ts'
import { sendDownload } from '../download/download.ts'
import { DownloadedFile } from '../download/schemas.ts'
import { searchInTurn } from '../download/turns.ts'
import { keyNotFound, projectNotFound } from '../errors.ts'
import { hasProject } from '../projects/queries.ts'
import { KeyParams, ProjectParams } from '../schemas.ts'
import { keyWasThere } from '../usage/queries.ts'
import { exportLog, logColumns } from './export.ts'
import { listLog } from './queries.ts'
import { ExportKeyLog, ExportProjectLog, ListKeyLog, ListProjectLog, LogList } from './schemas.ts'

export interface RequestLogRoutesOptions { database: Database }

const tags = ['request-log']
const config = { permission: 'log:read' as const, problems: [404, 422] }
const ofProject = '/projects/:projectId/log'
const ofKey = '/projects/:projectId/keys/:keyId/log'

/** The requests that were switched to be logged, for reading. What is switched off later stays until it is dropped (`cli/log-drop.ts`). */
export const requestLogRoutes: FastifyPluginAsyncTypebox<RequestLogRoutesOptions> = async (app, { database }) => {
  const search = searchInTurn(database.search)

  async function requireProject (projectId: string): Promise<void> {
    if (!await database.run(async db => await hasProject(db, projectId))) throw projectNotFound()
  }
  async function requireKey (key: { projectId: string, keyId: string }): Promise<void> {
    if (!await database.run(async db => await keyWasThere(db, key))) throw keyNotFound()
  }

  app.get(ofProject, {
    config: { ...config },
    schema: { tags, operationId: 'listProjectLog', summary: 'Logged requests of a project, newest first, a page at a time', params: ProjectParams, querystring: ListProjectLog, response: { 200: LogList } }
  }, async request => {
    const { projectId } = request.params
    await requireProject(projectId)
    return await listLog(database, projectId, request.query)
  })

  app.get(ofKey, {
    config: { ...config },
    schema: { tags, operationId: 'listKeyLog', summary: 'Logged requests of a key, also of one that was deleted, newest first, a page at a time', params: KeyParams, querystring: ListKeyLog, response: { 200: LogList } }
  }, async request => {
    const { projectId, keyId } = request.params
    await requireKey(request.params)
    return await listLog(database, projectId, { ...request.query, keyId })
  })

  app.get(`${ofProject}/export`, {
    config: { ...config },
    schema: { tags, operationId: 'exportProjectLog', summary: 'All logged requests of a project as a file, newest first', params: ProjectParams, querystring: ExportProjectLog, response: { 200: DownloadedFile } }
  }, async (request, reply) => {
    const { params: { projectId }, query: { format, ...filters } } = request
    await requireProject(projectId)
    return await sendDownload(request, reply, { name: `keygate-log-${projectId}`, format, columns: logColumns, rows: exportLog(search, projectId, filters) })
  })

  app.get(`${ofKey}/export`, {
    config: { ...config },
    schema: { tags, operationId: 'exportKeyLog', summary: 'All logged requests of a key as a file, newest first', params: KeyParams, querystring: ExportKeyLog, response: { 200: DownloadedFile } }
  }, async (request, reply) => {
    const { params: { projectId, keyId }, query: { format, ...filters } } = request
    await requireKey({ projectId, keyId })
    return await sendDownload(request, reply, { name: `keygate-log-${keyId}`, format, columns: logColumns, rows: exportLog(search, projectId, { ...filters, keyId }) })
  })
}
