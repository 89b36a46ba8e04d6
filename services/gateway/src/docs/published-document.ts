import type { PublishedOperation } from '@keygate/api-catalog'

/** What of a published OpenAPI document the page shows. It was checked against OpenAPI's schema when it was loaded. */
export interface PublishedDocument {
  info: { title: string, version: string, description?: string }
  servers: [{ url: string }]
  paths: Record<string, PublishedPath>
}

export type PublishedPath = { parameters?: unknown[] } & Record<string, unknown>

export interface ListedOperation {
  method: string
  path: string
  operationId?: string
  summary?: string
  description?: string
  deprecated?: boolean
  parameters: Parameter[]
  /** Media types of the body that it takes. */
  body: string[]
  answers: Array<{ status: string, description: string }>
  'x-keygate': PublishedOperation
}

export interface Parameter { name: string, in: string, required: boolean, description?: string, type: string }

type Fields = Record<string, unknown>

const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch']

/** The operations of a published document, in its order, references followed. */
export function listOperations (document: PublishedDocument): ListedOperation[] {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    Object.keys(item).filter(name => methods.includes(name)).map(method => {
      const operation = item[method] as Fields
      return {
        method: method.toUpperCase(),
        path,
        ...textsOf(operation, 'operationId', 'summary', 'description'),
        deprecated: operation['deprecated'] === true,
        parameters: parametersOf(document, item, operation),
        body: Object.keys(objectOf(follow(document, operation['requestBody'])['content'])),
        answers: Object.entries(objectOf(operation['responses'])).filter(([status]) => !status.startsWith('x-'))
          .map(([status, answer]) => ({ status, description: String(follow(document, answer)['description'] ?? '') })),
        'x-keygate': operation['x-keygate'] as PublishedOperation
      }
    }))
}

/** An operation's own parameter takes the place of its path's of that name (OpenAPI 3.1.1 section 4.8.10). */
function parametersOf (document: PublishedDocument, item: PublishedPath, operation: Fields): Parameter[] {
  const found = new Map<string, Parameter>()
  for (const written of [...listOf(item.parameters), ...listOf(operation['parameters'])]) {
    const parameter = follow(document, written)
    const [name, place] = [String(parameter['name']), String(parameter['in'])]
    found.set(`${place} ${name}`, { name, in: place, required: parameter['required'] === true, type: typeOf(document, parameter), ...textsOf(parameter, 'description') })
  }
  return [...found.values()]
}

function typeOf (document: PublishedDocument, parameter: Fields): string {
  const { type, format, enum: choices } = follow(document, parameter['schema'])
  if (Array.isArray(choices)) return choices.map(choice => JSON.stringify(choice)).join(' | ')
  return [Array.isArray(type) ? type.join(' | ') : type, format].filter(part => typeof part === 'string').join(', ')
}

/** What a value stands for, references within the document followed; nothing for what leads nowhere. */
function follow (document: PublishedDocument, value: unknown): Fields {
  let current = objectOf(value)
  for (let steps = 0; typeof current['$ref'] === 'string' && steps < 50; steps++) {
    const reference = current['$ref']
    if (!reference.startsWith('#/')) return {}
    const keys = reference.slice(2).split('/').map(key => unescape(key).replaceAll('~1', '/').replaceAll('~0', '~'))
    current = objectOf(keys.reduce<unknown>((at, key) => at !== null && typeof at === 'object' && Object.hasOwn(at, key) ? (at as Fields)[key] : undefined, document))
  }
  return current
}

function unescape (text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function objectOf (value: unknown): Fields {
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? value as Fields : {}
}

function listOf (value: unknown): unknown[] {
  return Array.isArray(value) ? value : []
}

function textsOf<N extends string> (from: Fields, ...names: N[]): Partial<Record<N, string>> {
  return Object.fromEntries(names.flatMap(name => typeof from[name] === 'string' ? [[name, from[name]]] : [])) as Partial<Record<N, string>>
}
