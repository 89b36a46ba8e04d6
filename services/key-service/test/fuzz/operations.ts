/** As much of JSON Schema as the document of this service uses. */
export interface Schema {
  type?: string | string[]
  enum?: unknown[]
  const?: unknown
  anyOf?: Schema[]
  oneOf?: Schema[]
  allOf?: Schema[]
  properties?: Record<string, Schema>
  required?: string[]
  additionalProperties?: boolean | Schema
  patternProperties?: Record<string, Schema>
  minProperties?: number
  items?: Schema
  minItems?: number
  maxItems?: number
  minLength?: number
  maxLength?: number
  pattern?: string
  format?: string
  minimum?: number
  maximum?: number
  default?: unknown
  example?: unknown
  examples?: unknown[]
}

export interface Parameter { name: string, in: 'path' | 'query' | 'header' | 'cookie', required: boolean, schema: Schema }
export interface Response { content: string[], headers: Record<string, { required?: boolean }> }

/** One operation of the document, with every reference in it resolved. */
export interface Operation {
  id: string
  method: string
  /** As in the document: `/v1/projects/{projectId}`. */
  path: string
  parameters: Parameter[]
  body: { schema: Schema, examples: unknown[], contentType: string } | undefined
  /** By status, as text. */
  responses: Record<string, Response>
}

export interface Document { paths: Record<string, Record<string, any>>, [member: string]: unknown }

export function operationsOf (document: Document): Operation[] {
  return Object.entries(document.paths).flatMap(([path, item]) => Object.entries(item).map(([method, value]) => {
    const operation = dereference(document, value)
    const [contentType, media] = Object.entries<any>(operation.requestBody?.content ?? {})[0] ?? []
    return {
      id: operation.operationId ?? `${method} ${path}`,
      method: method.toUpperCase(),
      path,
      parameters: (operation.parameters ?? []).map((p: Parameter) => ({ ...p, required: p.required ?? false })),
      body: contentType === undefined ? undefined : { schema: media.schema, examples: examplesOf(media), contentType },
      responses: Object.fromEntries(Object.entries<any>(operation.responses).map(([status, response]) =>
        [status, { content: Object.keys(response.content ?? {}), headers: response.headers ?? {} }]))
    }
  }))
}

/** The statuses of 4xx that an operation documents. */
export function refusalsOf (operation: Operation): number[] {
  return Object.keys(operation.responses).map(Number).filter(status => status >= 400 && status < 500)
}

function examplesOf (media: any): unknown[] {
  const named = Object.values<any>(media.examples ?? {}).map(example => example.value)
  return [...media.example === undefined ? [] : [media.example], ...named, ...media.schema?.examples ?? []]
}

function dereference (document: Document, value: any, within: string[] = []): any {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(item => dereference(document, item, within))
  if (typeof value.$ref === 'string') {
    if (within.includes(value.$ref)) throw new Error(`${value.$ref} refers to itself, which this generator cannot follow`)
    const target = value.$ref.slice(2).split('/').reduce((at: any, step: string) => at?.[step.replaceAll('~1', '/').replaceAll('~0', '~')], document)
    if (target === undefined) throw new Error(`${value.$ref} is not in the document`)
    return dereference(document, target, [...within, value.$ref])
  }
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, dereference(document, member, within)]))
}
