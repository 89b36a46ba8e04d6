import { Type, type Static, type TSchema } from 'typebox'

/** `null` or the schema. One list of types instead of `anyOf`: a fault names the field's own rule, and the document reads better. */
export function nullable<S extends TSchema> (schema: S) {
  return Type.Unsafe<Static<S> | null>({ ...schema, type: [(schema as { type?: string }).type ?? 'object', 'null'] })
}

export function oneOf<const T extends string[]> (values: T, options: object = {}) {
  return Type.Unsafe<T[number]>({ type: 'string', enum: values, ...options })
}

export const Timestamp = Type.String({ format: 'date-time', examples: ['2026-11-20T10:00:00.000Z'] })

export const ProjectParams = Type.Object({ projectId: Type.String({ description: 'UUID of the project' }) })
export const KeyParams = Type.Object({ ...ProjectParams.properties, keyId: Type.String({ description: 'id of the key, `key_...`' }) })

/** RFC 9457 with our members; `code` is what programs compare. */
export const Problem = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  detail: Type.String(),
  instance: Type.String(),
  code: Type.String(),
  requestId: Type.String(),
  errors: Type.Optional(Type.Array(Type.Object({ pointer: Type.String({ description: 'JSON pointer' }), message: Type.String() })))
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
