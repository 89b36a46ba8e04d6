import { Type, type Static, type TSchema } from 'typebox'

/** `null` or the schema. One list of types instead of `anyOf`: a fault names the field's own rule, and the document reads better. */
export function nullable<S extends TSchema> (schema: S) {
  return Type.Unsafe<Static<S> | null>({ ...schema, type: [(schema as { type?: string }).type ?? 'object', 'null'] })
}

export function oneOf<const T extends string[]> (values: T, options: object = {}) {
  return Type.Unsafe<T[number]>({ type: 'string', enum: values, ...options })
}

/** Text of at most so many characters; PostgreSQL can store no NUL. */
export function text (maxLength: number, options: object = {}) {
  return patterned('^[^\\u0000]*$', 'must not contain the character NUL (U+0000)', { maxLength, ...options })
}

/** @param fault what is wrong with a text that does not match, as `validation.ts` of the service-kit tells it. */
export function patterned (pattern: string, fault: string, options: object = {}) {
  return Type.String({ pattern, 'x-fault': fault, ...options })
}

/** Counts only up, from 1. */
export const Version = Type.Integer({ format: 'int64', minimum: 1, maximum: Number.MAX_SAFE_INTEGER })

/** Text of machines: visible ASCII. */
export function ascii (maxLength: number, options: object = {}) {
  return patterned('^[\\x21-\\x7e]*$', 'must have no spaces, and no characters but visible ASCII', { maxLength, ...options })
}

export function integer (minimum: number, maximum: number, options: object = {}) {
  return Type.Integer({ minimum, maximum, format: maximum < 2 ** 31 ? 'int32' : 'int64', ...options })
}

export const Uuid = Type.String({ format: 'uuid', maxLength: 36 })
export const Timestamp = Type.String({ format: 'date-time', maxLength: 30, examples: ['2026-11-20T10:00:00.000Z'] })

/** What every list takes, and what it answers beside `data`. */
export const page = {
  cursor: Type.Optional(ascii(1000, { description: '`nextCursor` of the page before' })),
  limit: integer(1, 100, { default: 50, description: 'rows per page' })
}
export const NextCursor = nullable(ascii(1000, { description: 'null: this is the last page' }))

export const ProjectParams = Type.Object({ projectId: ascii(36, { description: 'UUID of the project' }) })
export const KeyParams = Type.Object({ ...ProjectParams.properties, keyId: ascii(26, { description: 'id of the key, `key_...`' }) })

/** RFC 9457 with our members; `code` is what programs compare. */
export const Problem = Type.Object({
  type: ascii(200, { description: 'a URI that names the kind of problem' }),
  title: text(100),
  status: integer(400, 599),
  detail: text(2 ** 22, { description: 'what is wrong and what to do, for people' }),
  instance: ascii(100, { description: 'a URI that names this request' }),
  code: Type.String({ pattern: '^[a-z0-9_]+$', maxLength: 100, description: 'what programs compare' }),
  requestId: Type.String({ pattern: '^[\\w-]+$', maxLength: 64 }),
  errors: Type.Optional(Type.Array(Type.Object({
    pointer: Type.String({ maxLength: 2 ** 18, pattern: '^(/|$)', description: 'JSON pointer' }),
    message: text(2 ** 18)
  }), { maxItems: 2 ** 17 })),
  'violated-policies': Type.Optional(Type.Array(text(64), { maxItems: 20 }))
}, {
  $id: 'Problem',
  examples: [{
    type: 'urn:keygate:problem:key_not_found',
    title: 'Not Found',
    status: 404,
    detail: 'There is no such key in this project.',
    instance: 'urn:keygate:request:5b0e6a9c-9a43-4a39-8d1c-0d4a2f1f7b11',
    code: 'key_not_found',
    requestId: '5b0e6a9c-9a43-4a39-8d1c-0d4a2f1f7b11'
  }]
})

/** Whether every gateway that reaches Redis knows the present version, and since when. */
export const effect = {
  effective: oneOf(['everywhere', 'pending'], { description: '`everywhere`: the next request on every replica is judged by this version' }),
  effectiveAt: nullable(Timestamp)
}

/** Nothing but the empty object: for actions that take no settings. */
export const NoSettings = Type.Object({}, { additionalProperties: false })

export const noContent = { type: 'null', description: 'Done; there is no body.' }
