import type { FastifySchemaValidationError } from 'fastify'

/** One fault of a request: where, as a JSON pointer, and what to do. */
export interface FieldError { pointer: string, message: string }

/** Keywords that say "this is not the shape": 400. All others judge a well-formed value: 422 (design.md section 8). */
const shapeKeywords = new Set(['type', 'required', 'additionalProperties', 'anyOf', 'oneOf', 'minProperties'])

/** A body can have tens of thousands of faults; nobody mends more than these at a time. */
const mostErrors = 100

/** Validation errors as the status to answer with and one entry per field, the first hundred of them. */
export function explainValidation (errors: FastifySchemaValidationError[]): { status: 400 | 422, errors: FieldError[] } {
  const byPointer = new Map<string, FieldError>()
  for (const error of errors) {
    const entry = explain(error)
    if (!byPointer.has(entry.pointer)) byPointer.set(entry.pointer, entry)
  }
  return { status: errors.some(error => shapeKeywords.has(error.keyword)) ? 400 : 422, errors: [...byPointer.values()].slice(0, mostErrors) }
}

/** How a value of a format looks, in the words of whoever writes one. */
const formats: Record<string, string> = {
  'date-time': 'must be a date-time such as 2026-11-20T10:00:00Z',
  uuid: 'must be a UUID such as 5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10'
}

/** @param error of an Ajv that is `verbose`: a schema with a `pattern` says in `x-fault` what is wrong with what does not match. */
function explain (error: FastifySchemaValidationError & { parentSchema?: { 'x-fault'?: string } }): FieldError {
  const { params, instancePath } = error
  if (error.keyword === 'required') return { pointer: `${instancePath}/${String(params['missingProperty'])}`, message: 'is required' }
  if (error.keyword === 'additionalProperties') return { pointer: `${instancePath}/${String(params['additionalProperty'])}`, message: 'is not a known field; remove it' }
  if (error.keyword === 'enum') return { pointer: instancePath, message: `must be one of ${(params['allowedValues'] as unknown[]).join(', ')}` }
  if (error.keyword === 'pattern') return { pointer: instancePath, message: error.parentSchema?.['x-fault'] ?? `must have the form of the regular expression ${String(params['pattern'])}` }
  return { pointer: instancePath, message: formats[String(params['format'])] ?? error.message ?? 'is not acceptable' }
}
