/** An operation as it is written into a document, and how it is called. */
export interface Generated {
  method: string
  template: string
  /** Undefined: it says nothing. */
  security: Security | undefined
  scopes: string[]
  /** Pieces of the path in order: texts as the document spells them, and parameters with the value to call them with. */
  pieces: Piece[]
}

export type Security = Array<Record<string, string[]>>
export type Piece = { text: string } | { name: string, value: string }
/** Where an API's scopes come from (`scopes` in apis.yaml). */
export type ScopeSource = 'tags' | 'x-scope' | 'path'

export const optIn = 'files'
export const projectParameter = 'formId'

/** All that OpenAPI lets an operation say of security with the schemes below; the last says nothing. */
const securities: Array<Security | undefined> = [
  [{ basic: [] }],
  [{ header: [] }],
  [{ basic: [] }, { header: [] }],
  [{ header: [], bearer: [] }],
  [{ header: [], oauth: ['read'] }, { basic: [] }],
  [{ bearer: [] }],
  [{ oauth: ['read'] }, { bearer: [] }],
  [],
  [{ basic: [] }, {}],
  undefined
]

export const scopeLists = [[], ['alpha'], ['alpha', 'beta'], [optIn], ['beta', optIn]]

const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace']

/** Spellings of a segment that stand in documents. */
const texts = ['plain', 'UPPER', 'caf\u00e9', 'caf%C3%A9', 'a@b', 'a%40b', 'x+y', 'x%2By', 'co:lon', 'co%3Alon', '100%25', 'sp%20ace', '~tilde', 'q\'uote', 'sem;i', 'eq=1', 'am&p', 'do$lar', 'com,ma', '(paren)', 'ex!cl', 'a-b.c_d', '%E2%82%AC', '\u65e5\u672c']

const values = ['value', 'two words', '\u00e9t\u00e9', 'a+b', '100%', 'a@b:c;d', '{brace}', '~', 'list']

const project: Piece = { name: projectParameter, value: projectParameter }

/** Paths that are siblings: concrete ones beside templated ones, at two depths, and parameters with text around them. */
const shapes: Array<(value: () => string) => Piece[]> = [
  () => [],
  () => [{ text: '/' }, project],
  () => [{ text: '/list' }],
  value => [{ text: '/list/' }, { name: 'itemId', value: value() }],
  () => [{ text: '/' }, project, { text: '/items' }],
  value => [{ text: '/' }, project, { text: '/items/' }, { name: 'itemId', value: value() }],
  value => [{ text: '/' }, { name: 'item-id', value: value() }, { text: '/' }],
  () => [{ text: '/' }, project, { text: '/' }, { name: 'a', value: 'x1' }, { text: '.' }, { name: 'b', value: 'tar.gz' }],
  () => [{ text: '/v' }, { name: 'major-version', value: '12' }, { text: '-' }, { name: 'minor_version', value: '\u00e9' }, { text: ':copy' }],
  () => [{ text: '/forms(' }, project, { text: ')/caf\u00e9' }]
]

/** The same numbers for the same seed, from 0 to below 1 (mulberry32). */
export function randomOf (seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6D2B79F5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

export function picker (random: () => number): <T>(from: readonly T[]) => T {
  return <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T
}

/** How many combinations of security, path and scopes there are. */
export const combinations = securities.length * shapes.length * scopeLists.length

/**
 * Families of siblings: each has every shape of path once below a root of its own, and most of its operations have one method. Security and scopes are
 * others for each, so that taking one operation for its sibling shows; over `combinations` operations each shape meets all of them.
 */
export function generate (count: number, random: () => number, from: ScopeSource): Generated[] {
  const pick = picker(random)
  return Array.from({ length: count / shapes.length }, (_, family) => {
    const [root, method] = [`/r${family}/${pick(texts)}`, pick(methods)]
    return shapes.map((shape, i): Generated => {
      const pieces = [{ text: root }, ...shape(() => pick(values))]
      return {
        method: random() < 0.7 ? method : pick(methods),
        template: pieces.map(piece => 'text' in piece ? piece.text : `{${piece.name}}`).join(''),
        security: securities[(family + i) % securities.length],
        scopes: from === 'path' ? [`r${family}`] : scopeLists[(Math.floor(family / securities.length) + i) % scopeLists.length] as string[],
        pieces
      }
    })
  }).flat()
}

/** In which ways a document is written that means the same. */
export interface Writing {
  openapi: string
  scopes: ScopeSource
  /** What it says for operations that say nothing. */
  inherited?: Security | undefined
}

/**
 * The OpenAPI documents that list operations: a main one, and one with path items that it refers to, so that path items, parameters and security are
 * met where they stand, by reference and by inheritance.
 */
export function documentsOf (name: string, operations: Generated[], { openapi, scopes: from, inherited }: Writing): Record<string, object> {
  const items: Record<string, object> = {}
  const names = [...new Set(operations.flatMap(({ pieces }) => pieces.flatMap(piece => 'name' in piece ? [piece.name] : [])))]
  const paths = operations.map(({ method, template, security, scopes, pieces }, i): [string, object] => {
    const isElsewhere = i % 2 === 1
    const parameters = pieces.flatMap(piece => 'name' in piece ? [piece.name] : []).map((parameter, at) =>
      (i + at) % 3 === 0 ? parameterOf(parameter) : { $ref: `${isElsewhere ? `${name}.json` : ''}#/components/parameters/${parameter}` })
    // Of two places in which something can stand, each in turn; where scopes do not come from tags, these mislead.
    const isShared = i % 4 < 2
    const scoped = from === 'tags' ? { tags: scopes } : from === 'x-scope' && !isShared ? { tags: ['alpha'], 'x-scope': scopes } : { tags: ['alpha'] }
    const item = {
      ...(isShared && { parameters, ...(from === 'x-scope' && { 'x-scope': scopes }) }),
      [method]: { ...(!isShared && { parameters }), ...scoped, ...(security !== undefined && { security }), responses: { 200: { description: 'OK' } } }
    }
    if (!isElsewhere) return [template, item]
    items[`item${i}`] = item
    return [template, { $ref: `${name}.items.json#/item${i}` }]
  })
  return {
    [`${name}.json`]: {
      openapi,
      info: { title: 'Generated', version: '1' },
      ...(inherited !== undefined && { security: inherited }),
      paths: Object.fromEntries(paths),
      components: {
        parameters: Object.fromEntries(names.map(name => [name, parameterOf(name)])),
        securitySchemes: {
          basic: { type: 'http', scheme: 'basic' },
          header: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
          bearer: { type: 'http', scheme: 'bearer' },
          oauth: { type: 'oauth2', flows: { clientCredentials: { tokenUrl: 'https://sign-in.invalid/token', scopes: { read: 'read' } } } }
        }
      }
    },
    [`${name}.items.json`]: items
  }
}

function parameterOf (name: string): object {
  return { name, in: 'path', required: true, schema: { type: 'string' } }
}

/** The path of a call: texts as `spell` writes them, values escaped, `empty` the how-manieth piece that gets no value. */
export function pathOf ({ pieces }: Generated, projectId: string, { spell = escapeUnicode, empty = -1 }: { spell?: (text: string) => string, empty?: number } = {}): string {
  return pieces.map((piece, i) => 'text' in piece ? spell(piece.text) : i === empty ? '' : piece === project ? projectId : encodeURIComponent(piece.value)).join('')
}

/** The path that the document says the upstream has, with these values (RFC 3986 section 6.2.2: one path, many spellings). */
export function documentedPath ({ pieces }: Generated, values: string[]): string {
  let next = 0
  return pieces.map(piece => 'text' in piece ? escapeUnicode(piece.text) : encodeURIComponent(values[next++] as string)).join('')
}

export function escapeUnicode (text: string): string {
  return text.replace(/[^\x20-\x7e]+/g, encodeURIComponent)
}

/** Every character that is not a letter, digit or slash, in lower-case hex; dots stay, as a segment of them would be refused. */
export function escapeAll (text: string): string {
  return escapeBytes(text, character => /[\w/.]/.test(character))
}

/** Letters too. */
export function escapeLetters (text: string): string {
  return escapeBytes(text, character => /[/.]/.test(character))
}

function escapeBytes (text: string, stays: (character: string) => boolean): string {
  return Array.from(Buffer.from(decodeURIComponent(text)), byte => stays(String.fromCharCode(byte)) ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, '0')}`).join('')
}

/**
 * Which operation a method and path are for, by OpenAPI's rules (3.0.4 section 4.8.8): a parameter is never empty and stays in its segment, and a concrete
 * path goes before a templated one. A GET answers HEAD. Made of the document alone, and slow.
 */
export function operationAt (operations: Generated[], method: string, path: string): { operation: Generated, values: string[] } | null {
  const decoded = decodeURIComponent(path) // no slash is escaped in it
  const found = operations.flatMap(operation => {
    const answers = operation.method === method || (method === 'head' && operation.method === 'get')
    // Every path answers OPTIONS, if only that nobody asked for it.
    const matched = answers || method === 'options' ? match(operation, decoded) : null
    return matched === null ? [] : [{ operation, ...matched }]
  }).sort((a, b) => a.rank < b.rank ? -1 : 1)
  const [best] = found
  return best === undefined || (method === 'options' && best.operation.method !== 'options') ? null : best
}

const patterns = new WeakMap<Generated, { pattern: RegExp, rank: string }>()

function match (operation: Generated, decoded: string): { values: string[], rank: string } | null {
  let known = patterns.get(operation)
  if (known === undefined) patterns.set(operation, known = patternOf(operation))
  const { pattern, rank } = known
  const matched = pattern.exec(decoded)
  return matched === null ? null : { values: matched.slice(1), rank }
}

/** A parameter ends where the text behind it first stands. `rank` sorts: of each segment, whether it is concrete, in part, or not at all. */
function patternOf ({ pieces, template }: Generated): { pattern: RegExp, rank: string } {
  const source = pieces.map((piece, i) => {
    if ('text' in piece) return decodeURIComponent(piece.text).replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
    const next = pieces[i + 1]
    const isFollowed = next !== undefined && 'text' in next && !next.text.startsWith('/') && pieces[i + 2] !== undefined && !next.text.includes('/')
    return isFollowed ? `((?:(?!\\${next.text.charAt(0)})[^/])+)` : '([^/]+)'
  }).join('')
  const rank = template.split('/').map(segment => /^\{[^}]*\}$/.test(segment) ? '2' : segment.includes('{') ? '1' : '0').join('')
  return { pattern: new RegExp(`^${source}$`), rank }
}
