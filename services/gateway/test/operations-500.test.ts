import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { combinations, documentedPath, documentsOf, escapeAll, escapeLetters, escapeUnicode, generate, operationAt, optIn, pathOf, picker, projectParameter, randomOf, scopeLists, type Generated, type ScopeSource, type Security } from './generated-document.ts'
import { basicOf, call, openGatewayHouse, type Project } from './house.ts'

const seed = Number(process.env['KEYGATE_SEED'] ?? 500)
const random = randomOf(seed)
const pick = picker(random)
/** Of the calls beside those that are made for every operation. */
const share = process.env['KEYGATE_THOROUGH'] === '1' ? 1 : 0.35

/** An upstream that keeps what reached it, by the name that the caller gave the call. */
const reached = new Map<string, { method: string, url: string, headers: IncomingHttpHeaders }>()
const upstream = createServer((request, response) => {
  reached.set(String(request.headers['x-case']), { method: request.method ?? '', url: request.url ?? '', headers: request.headers })
  response.end('reached')
})
await new Promise<void>(resolve => { upstream.listen(0, '127.0.0.1', resolve) })
t.teardown(() => { upstream.close(); upstream.closeAllConnections() })

const inherited: Security = [{ basic: [] }, { header: [] }]
interface Api { name: string, operations: Generated[], inherited: Security | undefined, forwardsBearer: boolean, openapi: string, scopes: ScopeSource, optIn: string }
/** Scopes by tag, by extension and by path; one document says what holds for operations that say nothing, the others do not. */
const apis: Api[] = [
  { name: 'tagged', operations: generate(combinations, random, 'tags'), inherited, forwardsBearer: false, openapi: '3.0.3', scopes: 'tags', optIn },
  { name: 'marked', operations: generate(100, random, 'x-scope'), inherited: undefined, forwardsBearer: true, openapi: '3.1.0', scopes: 'x-scope', optIn },
  { name: 'placed', operations: generate(50, random, 'path'), inherited, forwardsBearer: true, openapi: '3.1.0', scopes: 'path', optIn: 'r0' }
]
// So that there is a scope of no other operation.
const elsewhere: Generated = { method: 'get', template: '/elsewhere', security: inherited, scopes: ['elsewhere'], pieces: [{ text: '/elsewhere' }] }
const dir = t.testdir(Object.fromEntries(apis.flatMap(api => Object.entries(documentsOf(api.name, [...api.operations, elsewhere], api)).map(([name, document]) => [name, JSON.stringify(document)]))))
const policy = (name: string, more = ''): string => `[{ name: ${name}, limit: 100000, window: 3600s${more} }]`
const house = await openGatewayHouse(() => ['apis:', ...apis.map(({ name, forwardsBearer, scopes, optIn }) => `
  - name: ${name}
    prefix: /${name}
    upstream: http://127.0.0.1:${(upstream.address() as AddressInfo).port}/base
    openapi: ${dir}/${name}.json
    project: { pathParameter: ${projectParameter} }
    scopes: ${scopes}
    optInScopes: [${optIn}]
    otherSchemes: ${forwardsBearer ? 'forward' : 'refuse'}
    policies: ${policy('default')}
    anonymousPolicies: ${policy('anonymous', ', partition: address')}`)].join('\n'), { KEYGATE_REFUSALS_LIMIT: '100000' })
t.teardown(house.stop)

interface Key { project: Project, secret: string, scopes: string[], all: boolean }
const [ours, theirs] = [await house.createProject(), await house.createProject()]
const keyWith = async (project: Project, scopes: string[] | 'all'): Promise<Key> => ({
  project,
  secret: (await project.createKey(scopes === 'all' ? { allowedForAll: true } : { allowedForAll: false, scopes })).secret,
  scopes: scopes === 'all' ? [] : scopes,
  all: scopes === 'all'
})
const all = await keyWith(ours, 'all')
const theirAll = await keyWith(theirs, 'all')
const without = await keyWith(ours, ['elsewhere'])
const granted = new Map<string, Key>()
const theirGranted = new Map<string, Key>()
for (const scopes of [...scopeLists.slice(1), ...new Set(apis[2]?.operations.flatMap(({ scopes }) => scopes))].map(scopes => [scopes].flat())) {
  // One of the ordinary scopes suffices; an opt-in one must be there.
  const enough = [...scopes.filter(scope => scope !== optIn).slice(-1), ...scopes.filter(scope => scope === optIn)]
  granted.set(scopes.join(), await keyWith(ours, enough))
  theirGranted.set(scopes.join(), await keyWith(theirs, enough))
}

type Expected = [status: number, code: string | undefined]
const admitted: Expected = [200, undefined]

/** What the document says of a call, read off it by rules of this test's own (design.md sections 4 and 6). */
function answerOf (api: Api, operation: Generated, { key, username, carrier, hasBearer, pathProject }: Call): Expected {
  const effective = operation.security ?? api.inherited
  const alternatives = effective ?? []
  const ways = alternatives.filter(alternative => 'basic' in alternative || 'header' in alternative)
  const isOptional = effective !== undefined && (effective.length === 0 || alternatives.some(alternative => Object.keys(alternative).length === 0))
  if (ways.length === 0 && isOptional) return admitted
  if (pathProject !== undefined && ![ours.id, theirs.id].includes(pathProject)) return [400, 'invalid_project_id']
  if (key === undefined) {
    const offersBearer = alternatives.some(alternative => ['bearer', 'oauth'].includes(Object.keys(alternative).join()))
    return isOptional || (hasBearer && api.forwardsBearer && offersBearer) ? admitted : [401, 'missing_credentials']
  }
  const isForeign = (carrier === 'basic' && username !== key.project.id) || (pathProject !== undefined && pathProject !== key.project.id)
  if (isForeign) return [401, 'invalid_credentials']
  if (ways.length === 0) return [403, 'operation_not_open']
  const ofCarrier = ways.filter(way => carrier in way)
  if (ofCarrier.length === 0) return [403, 'carrier_not_offered']
  if (!ofCarrier.some(way => Object.keys(way).length === 1 || hasBearer)) return [401, 'bearer_missing']
  return hasScope(api, operation, key) ? admitted : [403, 'scope_missing']
}

/** Every opt-in scope by name, and one of the ordinary ones, if there are any; who has all has the ordinary ones, and what has none at all. */
function hasScope ({ optIn }: Api, { scopes }: Generated, key: Key): boolean {
  const [named, ordinary] = [scopes.filter(scope => scope === optIn), scopes.filter(scope => scope !== optIn)]
  if (!named.every(scope => key.scopes.includes(scope))) return false
  return key.all || (ordinary.length > 0 ? ordinary.some(scope => key.scopes.includes(scope)) : named.length > 0)
}

/** What a call brings, for the operation that its path names: the last of these is read off that path. */
interface Call { key: Key | undefined, username: string, carrier: 'basic' | 'header', hasBearer: boolean, pathProject: string | undefined }

function headersOf ({ key, username, carrier, hasBearer }: Call): string[] {
  const bearer = hasBearer ? ['authorization', 'Bearer upstream-token'] : []
  if (key === undefined) return bearer
  return carrier === 'basic' ? basicOf(`${username}:${key.secret}`) : ['x-api-key', key.secret, ...bearer]
}

/** A key in one of the ways that an operation offers; where it offers none, as Basic. */
function present ({ security }: Generated, api: Api, key: Key, username = key.project.id): Call {
  const ways = (security ?? api.inherited ?? []).filter(way => 'basic' in way || 'header' in way)
  const way = ways.length === 0 ? undefined : pick(ways)
  const carrier = way === undefined || 'basic' in way ? 'basic' : 'header'
  return { key, username, carrier, hasBearer: way !== undefined && carrier === 'header' && Object.keys(way).length > 1, pathProject: undefined }
}

const nobody: Call = { key: undefined, username: '', carrier: 'basic', hasBearer: false, pathProject: undefined }

interface Asked { name: string, path: string, call: Call }

/** Every call that is made for an operation: with all kinds of credentials, and in spellings that are the same path, or another one, or none. */
function callsFor (api: Api, operation: Generated): Asked[] {
  const asked = (spell: (text: string) => string): string => pathOf(operation, ours.id, { spell })
  const path = asked(random() < 0.5 ? escapeAll : escapeUnicode)
  const scopes = operation.scopes.join()
  const [own, foreign] = [granted.get(scopes) ?? all, theirGranted.get(scopes) ?? theirAll]
  const namesProject = operation.pieces.some(piece => 'name' in piece && piece.name === projectParameter)
  const key = present(operation, api, own)
  const always = [
    { name: 'none', path, call: nobody },
    { name: 'bearer', path, call: { ...nobody, hasBearer: true } },
    { name: 'with', path, call: key },
    { name: 'without', path, call: present(operation, api, without) },
    { name: 'all', path, call: present(operation, api, all) },
    // Another project's: on our path, or under our name; where neither is said it is simply a key of theirs.
    { name: 'foreign', path, call: present(operation, api, foreign, namesProject ? theirs.id : ours.id) }
  ]
  const more = [
    { name: 'sibling', path, call: present(operation, api, pick([...granted.values()])) },
    { name: 'otherwise', path, call: { ...key, carrier: key.carrier === 'basic' ? 'header' : 'basic', hasBearer: false } as const },
    { name: 'spelled', path: asked(escapeLetters), call: key },
    { name: 'ended', path: path + pick(['/', ';x', '.json', '%20', '%2e', 'x']), call: key },
    { name: 'changed', path: asked(text => pick([escapeUnicode(text.toUpperCase()), `${escapeUnicode(text)}/`])), call: key },
    ...operation.pieces.flatMap((piece, i) => 'text' in piece ? [] : [{ name: `empty ${i}`, path: pathOf(operation, ours.id, { empty: i }), call: key }])
  ]
  return [...always, ...more.filter(() => random() < share)]
}

/** What is to be answered and what the upstream is to see, whichever operation the path turns out to name. */
function expectationOf (api: Api, method: string, { path, call }: Asked): unknown[] {
  if (method === 'trace') return [405, 'method_not_allowed']
  if (/\/\/|\/%2e$/.test(path)) return [400, 'ambiguous_path']
  const found = operationAt([...api.operations, elsewhere], method, path)
  if (found === null) return [404, 'not_found']
  const { operation, values } = found
  if (isSpelledOtherwise(api, operation, path)) return [404, 'not_found']
  const place = operation.pieces.filter(piece => 'name' in piece).findIndex(piece => 'name' in piece && piece.name === projectParameter)
  const [status, code] = answerOf(api, operation, { ...call, pathProject: values[place] })
  if (status !== 200) return [status, code]
  const isPublic = answerOf(api, operation, nobody)[0] === 200 && !(operation.security ?? api.inherited ?? []).some(way => 'basic' in way || 'header' in way)
  return [200, undefined, method.toUpperCase(), `/base${documentedPath(operation, values)}`, ...(call.key === undefined || isPublic ? [] : [call.key.project.id])]
}

/** Whether a path is, but for its end, one that a more concrete template lists, with any method: an upstream may not look at that end. */
function isSpelledOtherwise (api: Api, { template }: Generated, path: string): boolean {
  const plain = path.replace(/(?:\/|;x|\.json|%20|%2e)+$/, '')
  if (plain === path) return false
  return ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'].some(method => {
    const other = operationAt(api.operations, method, plain)?.operation.template
    return other !== undefined && concreteness(other) < concreteness(template.replace(/\/$/, ''))
  })
}

/** Sorts the more concrete template first: of each segment, whether it has no parameter, or has one in a text, or is one. */
function concreteness (template: string): string {
  return template.split('/').map(segment => /^\{[^}]*\}$/.test(segment) ? 2 : segment.includes('{') ? 1 : 0).join('')
}

t.test(`A18 500 operations and more: what is enforced is what the document says (seed ${seed})`, async t => {
  const mismatches: string[] = []
  const statuses: Record<string, number> = {}
  const calls: Array<() => Promise<void>> = []
  const [gateway] = house.gateways as [string]
  for (const api of apis) {
    for (const operation of api.operations) {
      const { method } = operation
      const own = method === 'options' ? operationAt(api.operations, method, pathOf(operation, ours.id)) : operationAt(api.operations.filter(one => one.method === method), method, pathOf(operation, ours.id))
      if (own?.operation !== operation) mismatches.push(`the test itself takes ${method} ${operation.template} for ${String(own?.operation.template)}`)
      for (const asked of callsFor(api, operation)) {
        calls.push(async () => {
          const id = encodeURIComponent(`${api.name} ${asked.name} ${method} ${operation.template}`)
          const wanted = expectationOf(api, method, asked)
          const answer = await call(gateway, { method: method.toUpperCase(), path: `/${api.name}${asked.path}`, headers: [...headersOf(asked.call), 'x-case', id] })
          const found = reached.get(id)
          const seen = [answer.status, method === 'head' ? wanted[1] : answer.problem.code, found?.method, found?.url, found?.headers['x-keygate-project']]
          while (seen.length > 2 && seen.at(-1) === undefined) seen.pop()
          if (JSON.stringify(seen) !== JSON.stringify(wanted)) mismatches.push(`${decodeURIComponent(id)} (${asked.path}): ${JSON.stringify(seen)}, the document says ${JSON.stringify(wanted)}`)
          const kind = `${asked.name.replace(/ \d/, '')} ${answer.status}`
          statuses[kind] = (statuses[kind] ?? 0) + 1
        })
      }
    }
  }
  const count = calls.length
  await Promise.all(Array.from({ length: 16 }, async () => { for (let next = calls.pop(); next !== undefined; next = calls.pop()) await next() }))
  t.strictSame(mismatches.slice(0, 20), [], `${mismatches.length} of ${count} answers differ`)
  t.comment(JSON.stringify(statuses))
  t.ok(combinations === 500 && count > 5000 && reached.size > 1000, `${count} calls, ${reached.size} reached the upstream`)
  // The calls that are to tell something do so: each kind of answer was met.
  for (const kind of ['with 200', 'none 200', 'none 401', 'bearer 200', 'without 403', 'all 403', 'sibling 200', 'sibling 403', 'foreign 401', 'spelled 200', 'ended 404', 'ended 200', 'changed 404', 'empty 404', 'empty 400', 'with 405']) t.ok((statuses[kind] ?? 0) > 20, `${kind}: ${statuses[kind] ?? 0}`)
})
