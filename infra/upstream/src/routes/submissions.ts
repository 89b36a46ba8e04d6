import { randomUUID } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import type { Store } from '../data/store.ts'
import type { Submission } from '../data/types.ts'
import { ownerOf } from '../owner.ts'
import { notFound } from '../problem.ts'
import {
  type FormParams, formParams, formSubmissionParams, type SubmissionBody, submissionBody, type SubmissionParams, submissionParams, uuid
} from '../schemas.ts'

interface Page { limit: number, cursor?: string }

const page = {
  type: 'object',
  properties: { limit: { type: 'integer', minimum: 1, maximum: 100, default: 20 }, cursor: uuid }
}

/** Answers of people to a form. */
export function submissionRoutes (app: FastifyInstance, store: Store): void {
  readRoutes(app, store)
  writeRoutes(app, store)
}

function readRoutes (app: FastifyInstance, store: Store): void {
  app.get<{ Params: FormParams, Querystring: Page }>('/forms/:formId/submissions',
    { config: { operationId: 'listSubmissions' }, schema: { params: formParams, querystring: page } },
    request => pageOf([...store.form(request.params.formId).submissions.values()], request.query))

  app.get<{ Params: FormParams & SubmissionParams }>('/forms/:formId/submissions/:submissionId',
    { config: { operationId: 'getFormSubmission' }, schema: { params: formSubmissionParams } },
    ({ params: { formId, submissionId } }, reply) =>
      store.form(formId).submissions.get(submissionId.toLowerCase()) ?? notFound(reply, 'submission'))

  // No form in the path: the gateway cannot tell whose submission this is, so the API itself confirms the owner.
  app.get<{ Params: SubmissionParams }>('/submissions/:submissionId', { config: { operationId: 'getSubmission' }, schema: { params: submissionParams } },
    (request, reply) => {
      const owner = ownerOf(request)
      const submission = owner === undefined ? undefined : store.form(owner).submissions.get(request.params.submissionId.toLowerCase())
      return submission ?? notFound(reply, 'submission')
    })
}

function writeRoutes (app: FastifyInstance, store: Store): void {
  app.post<{ Params: FormParams, Body: SubmissionBody }>('/forms/:formId/submissions',
    { config: { operationId: 'createSubmission' }, schema: { params: formParams, body: submissionBody } },
    (request, reply) => reply.code(201).send(store.change(request.params.formId, record => {
      const now = new Date().toISOString()
      const submission: Submission = { id: randomUUID(), formId: record.form.id, version: record.form.activeVersion, ...request.body, createdAt: now, updatedAt: now }
      record.submissions.set(submission.id, submission)
      return submission
    })))

  app.put<{ Params: FormParams & SubmissionParams, Body: SubmissionBody }>('/forms/:formId/submissions/:submissionId',
    { config: { operationId: 'replaceSubmission' }, schema: { params: formSubmissionParams, body: submissionBody } },
    ({ params: { formId, submissionId }, body }, reply) => store.change(formId, record => {
      const old = record.submissions.get(submissionId.toLowerCase())
      if (old === undefined) return notFound(reply, 'submission')
      const submission = { ...old, ...body, updatedAt: new Date().toISOString() }
      record.submissions.set(old.id, submission)
      return submission
    }))

  app.delete<{ Params: FormParams & SubmissionParams }>('/forms/:formId/submissions/:submissionId',
    { config: { operationId: 'deleteSubmission' }, schema: { params: formSubmissionParams } },
    ({ params: { formId, submissionId } }, reply) => store.change(formId, record =>
      record.submissions.delete(submissionId.toLowerCase()) ? reply.code(204).send() : notFound(reply, 'submission')))
}

function pageOf (submissions: Submission[], { limit, cursor }: Page): { data: Submission[], nextCursor: string | null } {
  // A cursor that names nothing (any more) ends the list instead of starting it again: a reader's loop must end.
  const after = cursor === undefined ? -1 : submissions.findIndex(submission => submission.id === cursor.toLowerCase())
  if (cursor !== undefined && after === -1) return { data: [], nextCursor: null }
  const data = submissions.slice(after + 1, after + 1 + limit)
  const last = data.at(-1)
  return { data, nextCursor: last !== undefined && after + 1 + limit < submissions.length ? last.id : null }
}
