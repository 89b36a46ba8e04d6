import { readFileSync } from 'node:fs'
import Fastify from 'fastify'
import { parse } from 'yaml'

export interface Media { schema: object, example?: unknown }
export interface Answer { content?: Record<string, Media> }
export interface Parameter { name: string, in: 'path' | 'query', schema: Record<string, unknown>, example?: unknown }

/** One operation of the document with every reference resolved. */
export interface Operation {
  operationId: string
  method: string
  path: string
  tags?: string[]
  security: Array<Record<string, string[]>>
  parameters: Parameter[]
  requestBody?: { content: Record<string, Media> }
  responses: Record<string, Answer>
}

type Json = Record<string, unknown>

const source = parse(readFileSync(new URL('../forms.openapi.yaml', import.meta.url), 'utf8')) as Json

export const document = resolve(source) as {
  servers: Array<{ url: string }>
  security: Operation['security']
  paths: Record<string, Json>
  components: { securitySchemes: Record<string, Json> }
}

/** The operations in the order of the document. */
export const operations: Operation[] = Object.entries(document.paths).flatMap(([path, { parameters = [], ...methods }]) =>
  Object.entries(methods as Record<string, Partial<Operation>>).map(([method, operation]) => ({
    ...operation as Operation,
    security: operation.security ?? document.security,
    method: method.toUpperCase(),
    path,
    parameters: [...parameters as Parameter[], ...operation.parameters ?? []]
  })))

function resolve (node: unknown): unknown {
  if (Array.isArray(node)) return node.map(resolve)
  if (typeof node !== 'object' || node === null) return node
  if ('$ref' in node) return resolve(lookUp(String(node.$ref)))
  return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, resolve(value)]))
}

function lookUp (ref: string): unknown {
  return ref.slice(2).split('/').reduce<unknown>((node, key) => (node as Json)[key], source)
}

/** Says what is wrong with a value, or nothing. Fastify's own validator does the work; it coerces nothing here. */
export async function createValidator (): Promise<(schema: object, value: unknown) => string | undefined> {
  const app = Fastify({ ajv: { customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, allErrors: true, strict: false } } })
  let validator: ((schema: object, value: unknown) => string | undefined) | undefined
  app.get('/', request => {
    validator = (schema, value) => {
      const validate = request.compileValidationSchema(schema)
      return validate(value) ? undefined : JSON.stringify(validate.errors)
    }
    return ''
  })
  await app.inject('/')
  if (validator === undefined) throw new Error('the validator was not made')
  return validator
}
