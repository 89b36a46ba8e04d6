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

function explain (error: FastifySchemaValidationError): FieldError {
  const { params, instancePath } = error
  if (error.keyword === 'required') return { pointer: `${instancePath}/${String(params['missingProperty'])}`, message: 'is required' }
  if (error.keyword === 'additionalProperties') return { pointer: `${instancePath}/${String(params['additionalProperty'])}`, message: 'is not a known field; remove it' }
  if (error.keyword === 'enum') return { pointer: instancePath, message: `must be one of ${(params['allowedValues'] as unknown[]).join(', ')}` }
  return { pointer: instancePath, message: error.message ?? 'is not acceptable' }
}
