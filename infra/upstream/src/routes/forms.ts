import type { FastifyInstance } from 'fastify'
import type { Store } from '../data/store.ts'
import { notFound } from '../problem.ts'
import { type FormParams, formParams, params, uuid } from '../schemas.ts'

interface FormEdit { name: string, description?: string }

const formEdit = {
  type: 'object',
  required: ['name'],
  additionalProperties: false,
  properties: { name: { type: 'string', minLength: 1, maxLength: 100 }, description: { type: 'string', maxLength: 1000 } }
}

/** Forms and their versions. */
export function formRoutes (app: FastifyInstance, store: Store): void {
  app.get<{ Params: FormParams }>('/forms/:formId', { config: { operationId: 'getForm' }, schema: { params: formParams } },
    request => store.form(request.params.formId).form)

  app.put<{ Params: FormParams, Body: FormEdit }>('/forms/:formId', { config: { operationId: 'updateForm' }, schema: { params: formParams, body: formEdit } },
    request => store.change(request.params.formId, record => {
      record.form = { ...record.form, ...request.body, updatedAt: new Date().toISOString() }
      return record.form
    }))

  app.get<{ Params: FormParams }>('/forms/:formId/versions', { config: { operationId: 'listFormVersions' }, schema: { params: formParams } },
    request => ({ data: store.form(request.params.formId).versions }))

  const versionParams = params({ formId: uuid, versionId: { type: 'integer', minimum: 1 } })
  app.get<{ Params: FormParams & { versionId: number } }>('/forms/:formId/versions/:versionId',
    { config: { operationId: 'getFormVersion' }, schema: { params: versionParams } },
    (request, reply) => store.form(request.params.formId).versions.find(version => version.id === request.params.versionId) ?? notFound(reply, 'version'))
}
