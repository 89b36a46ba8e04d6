import { createHash, randomUUID } from 'node:crypto'
import type { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import type { Store } from '../data/store.ts'
import type { StoredFile } from '../data/types.ts'
import { ownerOf } from '../owner.ts'
import { notFound, problem } from '../problem.ts'
import { type FormParams, formParams, params, uuid } from '../schemas.ts'

/** Larger uploads are measured and digested to the last byte, but not kept. */
export const maxStoredBytes = 1_048_576

const uploadQuery = { type: 'object', properties: { name: { type: 'string', minLength: 1, maxLength: 100, default: 'upload.bin' } } }

/** Files of a form, up and down. */
export function fileRoutes (app: FastifyInstance, store: Store): void {
  // The body goes to the handler as it arrives: a large upload never lies in memory. Any other type is a 415.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/octet-stream', (_request, payload, done) => { done(null, payload) })

  app.get<{ Params: FormParams }>('/forms/:formId/files', { config: { operationId: 'listFiles' }, schema: { params: formParams } },
    request => ({ data: [...store.form(request.params.formId).files.values()].map(file => file.info) }))

  app.post<{ Params: FormParams, Querystring: { name: string }, Body: Readable | undefined }>('/forms/:formId/files',
    { config: { operationId: 'uploadFile' }, schema: { params: formParams, querystring: uploadQuery } },
    async (request, reply) => {
      const { formId } = request.params
      if (request.body === undefined) return await problem(reply, 400, 'The body is missing.')
      const file = await receive(formId.toLowerCase(), request.query.name, request.body)
      if (file.info.stored) store.change(formId, record => record.files.set(file.info.id, file))
      return await reply.code(201).send(file.info)
    })

  app.get<{ Params: { fileId: string } }>('/files/:fileId', { config: { operationId: 'getFile' }, schema: { params: params({ fileId: uuid }) } },
    (request, reply) => {
      const owner = ownerOf(request)
      const file = owner === undefined ? undefined : store.form(owner).files.get(request.params.fileId.toLowerCase())
      return file === undefined ? notFound(reply, 'file') : reply.type('application/octet-stream').send(file.content)
    })
}

async function receive (formId: string, name: string, body: Readable): Promise<StoredFile> {
  const hash = createHash('sha256')
  const kept: Buffer[] = []
  let size = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    hash.update(chunk)
    size += chunk.length
    if (size <= maxStoredBytes) kept.push(chunk)
  }
  const stored = size <= maxStoredBytes
  return { info: { id: randomUUID(), formId, name, size, sha256: hash.digest('hex'), stored }, content: stored ? Buffer.concat(kept) : Buffer.alloc(0) }
}
