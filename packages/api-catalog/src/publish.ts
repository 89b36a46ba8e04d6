import type { Api, Operation, Policy } from './catalogue.ts'
import { isObject } from './source.ts'
import { withoutAddress } from './without-address.ts'

/** What the published document says of an operation under `x-keygate`: what is enforced, in words of the catalogue. */
export interface PublishedOperation {
  /** `key`: open to API keys. `public`: to everybody. `other`: to no key. */
  access: Operation['access']
  /** A call without a key passes too, counted by its address. Only where `access` is `key`. */
  anonymous?: true
  /** A bearer token passes without a key, and the API checks it. */
  forwardsBearer?: true
  scopes: string[]
  /** Those of `scopes` that a key must hold by name. */
  optIn: string[]
  /** All that count a call, unless the key or its project has a list of its own. */
  policies: PublishedPolicy[]
  /** What counts a call that passes without a key instead. Only where `access` is `key` and such calls pass. */
  anonymousPolicies?: PublishedPolicy[]
}

export type PublishedPolicy = Omit<Policy, 'whenStoreIsDown'>

/** OpenAPI's methods that the gateway lets in; TRACE it does not. */
const served = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch']

/**
 * An API's OpenAPI document as the gateway enforces it: one server, and only operations that can be reached through it, each with
 * `x-keygate`. The upstream's address is nowhere in it, not in a text either; vendors' extensions, which commonly hold such addresses,
 * are left out of the document, its paths and operations.
 */
export function publishedDocument (api: Api): object {
  const { openapi, info, paths, components, ...rest } = api.document as Record<string, unknown>
  const url = publicAddress(api)
  const operations = new Map(api.operations.map(operation => [`${operation.method} ${operation.path}`, operation]))
  const document = {
    openapi,
    info: withoutExtensions(info),
    servers: [{ url }],
    ...withoutExtensions(rest),
    paths: Object.fromEntries(Object.entries(paths as object).flatMap(([path, item]) => publishedPath(api, operations, path, item))),
    ...(components !== undefined && { components: withoutExtensions(components) })
  }
  return withoutAddress(document, { upstream: api.upstream, url }) as object
}

/** Where callers find an API: as it is told to people, else the path on the gateway. */
export function publicAddress ({ publicUrl, prefix }: Api): string {
  return publicUrl ?? (prefix === '' ? '/' : prefix)
}

/** What the gateway does with an operation, for those who read its document. */
function publishedOperation (api: Api, operation: Operation): PublishedOperation {
  const { access, anonymous, scopes } = operation
  const forwardsBearer = forwardsBearerOf(api, operation)
  const withoutKey = policiesWithoutKey(api, operation)
  return {
    access,
    ...(access === 'key' && anonymous && { anonymous }),
    ...(forwardsBearer && { forwardsBearer }),
    scopes: [...scopes],
    optIn: scopes.filter(scope => api.optInScopes.includes(scope)),
    policies: policiesOf(api, operation).map(publishedPolicy),
    ...(withoutKey.length > 0 && { anonymousPolicies: withoutKey.map(publishedPolicy) })
  }
}

/** What an outage does to a limit is nobody's business but ours. */
function publishedPolicy ({ whenStoreIsDown, ...policy }: Policy): PublishedPolicy {
  return policy
}

/** A request with a bearer token and no key goes on to the API, which checks it. */
export function forwardsBearerOf ({ otherSchemes }: Api, { offersBearer, access }: Operation): boolean {
  return otherSchemes === 'forward' && offersBearer && access !== 'public'
}

/** What counts a call by whoever the operation is open to; nothing where that is nobody. */
export function policiesOf (api: Api, operation: Operation): Policy[] {
  if (operation.method === 'TRACE') return []
  if (operation.access === 'key') return [...api.policies, ...operation.policies]
  return operation.access === 'public' || forwardsBearerOf(api, operation) ? api.anonymousPolicies : []
}

/** What counts a call without a key, of an operation that is open to keys and not to them alone. */
export function policiesWithoutKey (api: Api, operation: Operation): Policy[] {
  const isMixed = operation.access === 'key' && operation.method !== 'TRACE' && (operation.anonymous || forwardsBearerOf(api, operation))
  return isMixed ? api.anonymousPolicies : []
}

function publishedPath (api: Api, operations: ReadonlyMap<string, Operation>, path: string, item: unknown): Array<[string, object]> {
  if (!isObject(item) || path.startsWith('x-')) return []
  const published = withoutExtensions(item, ['trace'])
  for (const method of served) {
    const operation = operations.get(`${method.toUpperCase()} ${path}`)
    if (operation === undefined) delete published[method]
    else published[method] = { ...withoutExtensions(item[method]), 'x-keygate': publishedOperation(api, operation) }
  }
  return served.some(method => method in published) ? [[path, published]] : []
}

function withoutExtensions (value: unknown, names: readonly string[] = []): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value as object).filter(([name]) => !name.startsWith('x-') && !names.includes(name)))
}
