import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import type { Store } from '../data/store.ts'
import type { FormRecord } from '../data/types.ts'
import { type FormParams, formParams } from '../schemas.ts'

/** One line of an export. */
export interface ExportRow { row: number, submissionId: string, createdAt: string, answers: Record<string, unknown> }

/** Makes the rows one by one, when somebody asks for them. */
export type RowSource = (record: FormRecord, rows: number) => Iterable<ExportRow>

interface ExportQuery { rows: number, format: 'ndjson' | 'csv' }

const query = {
  type: 'object',
  properties: {
    rows: { type: 'integer', minimum: 0, maximum: 1_000_000, default: 1000 },
    format: { type: 'string', enum: ['ndjson', 'csv'], default: 'ndjson' }
  }
}

const rowsPerChunk = 100

/** The streaming operation. */
export function exportRoutes (app: FastifyInstance, store: Store, source: RowSource = repeatSubmissions): void {
  app.get<{ Params: FormParams, Querystring: ExportQuery }>('/forms/:formId/export',
    { config: { operationId: 'exportSubmissions' }, schema: { params: formParams, querystring: query } },
    (request, reply) => {
      const { format } = request.query
      // Fastify drains the stream of a HEAD to nowhere: make none.
      const rows = request.method === 'HEAD' ? 0 : request.query.rows
      const lines = format === 'csv' ? csvLines : ndjsonLines
      const stream = Readable.from(chunks(lines(source(store.form(request.params.formId), rows))))
      return reply.type(format === 'csv' ? 'text/csv; charset=utf-8' : 'application/x-ndjson').send(stream)
    })
}

/** The form's submissions over and over, so that an export can have any length. A form without submissions has no rows. */
export function * repeatSubmissions (record: FormRecord, rows: number): Generator<ExportRow> {
  const submissions = [...record.submissions.values()]
  for (let row = 1; row <= rows; row++) {
    const submission = submissions[(row - 1) % submissions.length]
    if (submission === undefined) return
    yield { row, submissionId: submission.id, createdAt: submission.createdAt, answers: submission.answers }
  }
}

function * ndjsonLines (rows: Iterable<ExportRow>): Generator<string> {
  for (const row of rows) yield `${JSON.stringify(row)}\n`
}

function * csvLines (rows: Iterable<ExportRow>): Generator<string> {
  yield 'row,submissionId,createdAt,answers\r\n'
  for (const { row, submissionId, createdAt, answers } of rows) yield `${row},${submissionId},${createdAt},${quote(JSON.stringify(answers))}\r\n`
}

/** RFC 4180 section 2.7: a quote inside a quoted field is doubled. */
function quote (text: string): string {
  return `"${text.replaceAll('"', '""')}"`
}

/** A write per line would cost more than the lines. */
function * chunks (lines: Iterable<string>): Generator<string> {
  let chunk: string[] = []
  for (const line of lines) {
    chunk.push(line)
    if (chunk.length < rowsPerChunk) continue
    yield chunk.join('')
    chunk = []
  }
  if (chunk.length > 0) yield chunk.join('')
}
