import type { FastifyContextConfig } from 'fastify'

interface Parameter { name: string, in: string, required?: boolean, schema: { default?: unknown } }
interface Answer { description: string, headers?: Record<string, object>, content?: Record<string, { schema: object }> }
interface Operation {
  operationId: string
  description?: string
  security?: object[]
  parameters?: Parameter[]
  requestBody?: { required?: boolean, content: Record<string, { schema: object }> }
  responses: Record<string, Answer>
}
type PathItem = Record<string, Operation>
/** As much of an OpenAPI document as is completed here. */
export interface OpenApiDocument { paths: Record<string, PathItem> }

const descriptions: Record<number, string> = {
  200: 'Done',
  201: 'Made',
  400: 'Not JSON, a wrong type, an unknown or a missing field',
  401: 'Neither a valid service token nor a session',
  403: 'The caller lacks the permission, or the request comes from another site',
  404: 'There is nothing with this id, or it is of somebody else',
  409: 'Its present state does not allow it',
  410: 'The cursor is too old',
  412: 'It was changed since: read it again',
  413: 'The body is too large',
  414: 'An id in the path is too long',
  415: 'The body is not JSON',
  422: 'Well-formed, but not acceptable',
  428: 'If-Match is missing',
  429: 'Too many requests from this address',
  500: 'A fault of ours',
  503: 'A part of the service is away; try again'
}

const count = { type: 'integer', format: 'int32', minimum: 0, maximum: 2 ** 31 - 1 }
const text = { type: 'string', maxLength: 1000, pattern: '^[\\x20-\\x7e]*$' }

/** draft-ietf-httpapi-ratelimit-headers-07. Not required: without Redis there is no shared count to tell. */
const rateLimit = {
  RateLimit: { description: 'requests from this address: `limit=600, remaining=599, reset=60`', schema: text },
  'RateLimit-Policy': { description: 'requests and seconds: `600;w=60`', schema: text }
}
const retryAfter = { 'Retry-After': { description: 'seconds to wait', required: true, schema: count } }
const location = { Location: { description: 'where it is from now on', required: true, schema: text } }
const challenge = { 'WWW-Authenticate': { description: 'how to authenticate (RFC 6750)', required: true, schema: text } }
const etag = { ETag: { description: 'what If-Match takes', required: true, schema: text } }
const replayed = { 'Idempotency-Replayed': { description: '`true`: this is the first answer again, and nothing was done', schema: text } }
/** Of the 409 `request_in_flight` alone. */
const retryInFlight = { 'Retry-After': { ...retryAfter['Retry-After'], required: false } }

/** Adds what no route's schema says: the problems of every route, headers, and which parts of a request may be left out. */
export function completeDocument (document: OpenApiDocument, configs: ReadonlyMap<string, FastifyContextConfig>): OpenApiDocument {
  for (const [path, item] of Object.entries(document.paths)) {
    const hasItems = Object.entries(document.paths).some(([other, { get }]) => get !== undefined && isItemOf(path, other))
    const hasVersions = isVersioned(item)
    const hasVersionedItems = Object.entries(document.paths).some(([other, item]) => isItemOf(path, other) && isVersioned(item))
    for (const [method, operation] of Object.entries(item)) {
      const config = configs.get(operation.operationId) ?? {} as FastifyContextConfig
      relax(operation, config)
      const access = accessOf(config)
      operation.security = access.security
      operation.description ??= access.description
      for (const status of problemsOf(method, operation, config)) {
        operation.responses[status] = { description: descriptions[status] ?? '', content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } } }
      }
      for (const [status, answer] of Object.entries(operation.responses)) {
        if (answer.description === 'Default Response') answer.description = descriptions[Number(status)] ?? 'Done'
        const headers = headersOf(status, {
          isCounted: config.permission !== 'keys:verify',
          hasVersion: status === '201' ? hasVersionedItems : status === '200' && (takes(operation, 'if-match') || (hasVersions && method === 'get')),
          hasItems,
          isRepeatable: takes(operation, 'idempotency-key')
        })
        if (Object.keys(headers).length > 0) answer.headers = { ...headers, ...answer.headers }
      }
    }
  }
  return withoutFaults(document)
}

/** `x-fault` is for the answer to whoever sends what does not match; the document has the pattern. */
function withoutFaults (document: OpenApiDocument): OpenApiDocument {
  return JSON.parse(JSON.stringify(document, (name, value: unknown) => name === 'x-fault' ? undefined : value)) as OpenApiDocument
}

function accessOf ({ permission, access }: FastifyContextConfig): { security: object[], description: string } {
  if (access === 'open') return { security: [], description: 'Open to everybody.' }
  if (permission === undefined) return { security: [{ serviceToken: [] }, { session: [] }], description: 'For everybody who is known.' }
  return { security: permission === 'keys:verify' ? [{ serviceToken: [] }] : [{ serviceToken: [] }, { session: [] }], description: `Needs the permission \`${permission}\`.` }
}

function problemsOf (method: string, operation: Operation, { permission, access, problems = [] }: FastifyContextConfig): number[] {
  const isChange = method !== 'get'
  const { parameters = [] } = operation
  return [...new Set([
    400, // unknown query parameters at least
    ...access === 'open' ? [] : [401],
    ...permission !== undefined || isChange ? [403] : [], // also for requests of other sites' pages
    ...isChange ? [413, 415] : [],
    ...parameters.some(parameter => parameter.in === 'path') ? [414] : [],
    ...takes(operation, 'if-match') ? [422] : [], // too long
    429,
    ...problems,
    500,
    503
  ])].sort((a, b) => a - b)
}

interface Traits {
  /** Every request counts per address; else only those that are refused because of who asks, which is told when there were too many. */
  isCounted: boolean
  /** The answer shows something that has versions. */
  hasVersion: boolean
  hasItems: boolean
  /** It takes an Idempotency-Key. */
  isRepeatable: boolean
}

function headersOf (status: string, { isCounted, hasVersion, hasItems, isRepeatable }: Traits): Record<string, object> {
  return {
    ...(isCounted ? /^[24]/.test(status) : status === '429') && rateLimit,
    ...['429', '503'].includes(status) && retryAfter,
    ...status === '409' && isRepeatable && retryInFlight,
    ...status === '201' && hasItems && location,
    ...status === '401' && challenge,
    ...(hasVersion || status === '412') && etag,
    ...status.startsWith('2') && isRepeatable && replayed
  }
}

/** Directly below it, by an id. */
function isItemOf (path: string, other: string): boolean {
  return other.startsWith(`${path}/{`) && !other.slice(path.length + 1).includes('/')
}

function isVersioned (item: PathItem): boolean {
  return Object.values(item).some(operation => takes(operation, 'if-match'))
}

/** What has a default may be left out: the schemas call it required, because it is there once they have filled it in. */
function relax (operation: Operation, { bodyIsOptional = false }: FastifyContextConfig): void {
  for (const parameter of operation.parameters ?? []) {
    if (parameter.schema.default !== undefined) parameter.required = false
  }
  const { requestBody } = operation
  if (requestBody === undefined) return
  if (bodyIsOptional) requestBody.required = false
  for (const media of Object.values(requestBody.content)) media.schema = relaxed(media.schema)
}

function relaxed (schema: { required?: string[], properties?: Record<string, { default?: unknown }> }): object {
  const { required, ...others } = schema
  const left = required?.filter(name => schema.properties?.[name]?.default === undefined) ?? []
  return left.length === 0 ? others : { ...schema, required: left }
}

function takes (operation: Operation, header: string): boolean {
  return operation.parameters?.some(parameter => parameter.in === 'header' && parameter.name.toLowerCase() === header) === true
}
