import type { Carrier, Operation, Requirement } from './catalogue.ts'
import type { ListedOperation, OpenApiDocument } from './document.ts'
import { quote, suggest, type Faults } from './fault.ts'
import { child, isObject, items, members, type Located } from './source.ts'

/** What an operation's security means for our keys. */
export type Security = Pick<Operation, 'access' | 'anonymous' | 'offersBearer' | 'requirements'>

/** A Security Scheme Object, as far as it matters here. */
type Scheme =
  | { kind: 'carrier', carrier: Carrier }
  | { kind: 'bearer' }
  /** Something else; `authorization` tells whether it, too, travels in that header. */
  | { kind: 'other', authorization: boolean }
  /** Cannot be enforced; the fault is noted. */
  | { kind: 'refused' }

/** Headers that mean something else on the way: a key in one of them would be dropped, or taken for credentials of another kind. */
const reservedHeaders = new Set(['authorization', 'proxy-authorization', 'cookie', 'host', 'connection', 'keep-alive', 'te', 'trailer',
  'transfer-encoding', 'upgrade', 'content-length', 'content-type', 'accept', 'expect'])

/**
 * The effective security of an operation: its own, else the document's (OpenAPI 3.0.4 section 4.8.10, Operation Object).
 *
 * Where neither says anything the operation is `other`, not `public`: an API is not opened by an omission.
 */
export function securityOf ({ at, method, template }: ListedOperation, { root, schemes }: OpenApiDocument, faults: Faults): Security {
  const name = `${method} ${template}`
  const own = child(at, 'security')
  const effective = own.value === undefined ? child(root, 'security') : own
  const alternatives = items(effective)
  const requirements: Requirement[] = []
  let anonymous = Array.isArray(effective.value) && alternatives.length === 0
  let offersBearer = false
  for (const alternative of alternatives) {
    if (!isObject(alternative.value)) continue
    const parts = members(alternative).map(([name, at]) => ({ name, scheme: readScheme(name, at, schemes, faults) }))
    if (parts.length === 0) anonymous = true
    if (parts.length === 1 && parts[0]?.scheme.kind === 'bearer') offersBearer = true
    const requirement = joinParts(alternative, parts, name, faults)
    if (requirement !== undefined) requirements.push(requirement)
  }
  return { access: requirements.length > 0 ? 'key' : anonymous ? 'public' : 'other', anonymous, offersBearer, requirements }
}

/** Each carrier once, Basic first, then the headers by name. */
export function carriersOf (operations: readonly Operation[]): Carrier[] {
  const all = operations.flatMap(operation => operation.requirements.map(requirement => requirement.carrier))
  const basic: Carrier[] = all.some(carrier => carrier.kind === 'basic') ? [{ kind: 'basic' }] : []
  const names = new Set(all.flatMap(carrier => carrier.kind === 'header' ? [carrier.name] : []))
  return [...basic, ...[...names].sort().map((name): Carrier => ({ kind: 'header', name }))]
}

/** All parts of one alternative must be met at once, so it is ours only if one request can meet them. */
function joinParts (alternative: Located, parts: Array<{ name: string, scheme: Scheme }>, operation: string, faults: Faults): Requirement | undefined {
  const carriers = parts.flatMap(({ scheme }) => scheme.kind === 'carrier' ? [scheme.carrier] : [])
  const others = parts.filter(({ scheme }) => scheme.kind !== 'carrier')
  const [carrier, second] = carriers
  if (carrier === undefined || others.some(({ scheme }) => scheme.kind === 'refused')) return undefined
  const names = parts.map(({ name }) => quote(name)).join(' and ')
  if (second !== undefined) {
    faults.add(alternative, `asks for ${names} together, and a request carries one key. Make them two alternatives: "- a: []" and "- b: []".`)
    return undefined
  }
  const alsoBearer = others.some(({ scheme }) => scheme.kind === 'bearer')
  const alsoAuthorization = alsoBearer || others.some(({ scheme }) => scheme.kind === 'other' && scheme.authorization)
  if (carrier.kind === 'basic' && alsoAuthorization) {
    faults.add(alternative, `asks for ${names} together, and both travel in Authorization (RFC 9110 section 11.6.2), which a request has once. Put the key in a header of its own: { type: apiKey, in: header, name: X-API-Key }.`)
    return undefined
  }
  const unchecked = others.filter(({ scheme }) => scheme.kind === 'other').map(({ name }) => quote(name))
  if (unchecked.length > 0) {
    const which = unchecked.join(' and ')
    faults.addFirst(alternative, `asks ${operation} for a key and ${which} together. The gateway does not check ${which}, and a key alone would be let in. Leave ${which} out here if the key is enough, ask for a bearer token instead (http bearer, oauth2, openIdConnect), or leave out the key and have the API check the rest.`)
    return undefined
  }
  return { carrier, also: others.map(({ name }) => name), alsoBearer }
}

function readScheme (name: string, at: Located, schemes: ReadonlyMap<string, Located>, faults: Faults): Scheme {
  const scheme = schemes.get(name)
  if (scheme === undefined) {
    faults.add(at, `names a scheme that components.securitySchemes does not have; ${suggest(name, [...schemes.keys()])}`)
    return { kind: 'refused' }
  }
  const type = child(scheme, 'type').value
  if (type === 'oauth2' || type === 'openIdConnect') return { kind: 'bearer' }
  if (type === 'apiKey') return readApiKey(scheme, faults)
  if (type !== 'http') return { kind: 'other', authorization: false }
  // Case does not count: RFC 9110 section 11.1.
  const http = String(child(scheme, 'scheme').value).toLowerCase()
  if (http === 'basic') return { kind: 'carrier', carrier: { kind: 'basic' } }
  return http === 'bearer' ? { kind: 'bearer' } : { kind: 'other', authorization: true }
}

function readApiKey (scheme: Located, faults: Faults): Scheme {
  const where = child(scheme, 'in')
  const name = child(scheme, 'name')
  if (where.value === 'query' || where.value === 'cookie') {
    const reason = where.value === 'query' ? 'a key in a URL ends up in logs, histories and referrers' : 'a browser sends a cookie to every page\'s request'
    faults.add(where, `is ${quote(where.value)}, and an operation takes keys that way; ${reason}. Use "in: header", or remove the scheme from "security".`)
    return { kind: 'refused' }
  }
  if (where.value !== 'header' || typeof name.value !== 'string') return { kind: 'refused' } // the document's validation says so
  const header = name.value.toLowerCase()
  if (reservedHeaders.has(header)) {
    faults.add(name, `${quote(name.value)} has a meaning of its own and cannot carry a key. ${header === 'authorization' ? 'Use { type: http, scheme: basic }, or bearer for a token that the API checks itself.' : 'Use a header such as X-API-Key.'}`)
    return { kind: 'refused' }
  }
  // RFC 9110 section 5.1, without "_".
  if (!/^[!#$%&'*+.^`|~0-9a-z-]+$/.test(header)) {
    const why = header.includes('_') ? 'has "_", and a gateway drops such headers, or refuses them (KEYGATE_UNDERSCORE_HEADERS), because some servers read "_" as "-". Rename it' : 'cannot be the name of a header that carries a key. Use letters, digits and "-"'
    faults.add(name, `${quote(name.value)} ${why}, as in X-API-Key.`)
    return { kind: 'refused' }
  }
  return { kind: 'carrier', carrier: { kind: 'header', name: header } }
}
