import SerializerSelector from '@fastify/fast-json-stringify-compiler'
import { Ajv, type ValidateFunction } from 'ajv'
import formats from 'ajv-formats'
import type { FastifySchemaCompiler } from 'fastify'

// Fastify compiles every schema of every route at start. Most routes of a process are never called: each is compiled by its first
// request, which it costs a few milliseconds. Measured of key-service: 0.3 s of 2.1 s of a start.

const options = { allErrors: true, verbose: true, removeAdditional: false, useDefaults: true, strict: false } as const

/**
 * Fastify's validator, strict where its default is lenient: a body is never coerced (`"true"` is not a boolean) and an unknown
 * field is an error, not dropped. Query and path are text by nature, so their numbers and booleans are read from it.
 */
export function createValidator (): FastifySchemaCompiler<object> {
  const exact = withFormats(new Ajv({ ...options, coerceTypes: false }))
  const textual = withFormats(new Ajv({ ...options, coerceTypes: true }))
  return ({ schema, httpPart }) => {
    let compiled: ValidateFunction | undefined
    const validate: ReturnType<FastifySchemaCompiler<object>> = value => {
      compiled ??= (httpPart === 'body' ? exact : textual).compile(schema)
      const isValid = compiled(value)
      validate.errors = compiled.errors ?? null
      return isValid
    }
    return validate
  }
}

/** Fastify's own serializers. One compiler each, because a compiler forgets the shared schema that it has compiled itself. */
export const buildSerializer: SerializerSelector.SerializerFactory = (sharedSchemas, options) => route => {
  let compiled: SerializerSelector.Serializer | undefined
  return value => {
    compiled ??= SerializerSelector()(sharedSchemas, options)(route)
    return compiled(value)
  }
}

function withFormats (ajv: Ajv): Ajv {
  (formats as unknown as (ajv: Ajv) => void)(ajv)
  return ajv
}
