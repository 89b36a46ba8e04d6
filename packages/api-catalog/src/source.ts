import { readFile } from 'node:fs/promises'
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, type Document, type Node } from 'yaml'

export type Path = ReadonlyArray<string | number>

/** Where values come from, so that a fault can say so. */
export interface Source {
  /** The file or URL as the reader knows it. */
  name: string
  /** `apis.yaml:7 apis[0].upstream` */
  place: (path: Path) => string
}

/** A value together with where it was written. */
export interface Located {
  value: unknown
  source: Source
  path: Path
}

/** A text that was read and parsed; or why it was not. */
export interface Reading {
  root: Located | null
  /** Complete faults that name file and line. */
  faults: string[]
  /** Why the text could not even be read, with a remedy; who named the location says where that was. */
  unread: string | null
}

const defaultFetchTimeoutMs = 10_000

/** Documents that people and their tools write stay far below this. */
const deepest = 500
const tooDeep = `is nested deeper than ${deepest} levels. Write it flatter, with "$ref" for what is deep.`

/** True for what is fetched over HTTP instead of read from disk. */
export function isUrl (location: string): boolean {
  return /^https?:\/\//i.test(location)
}

/** Reads and parses YAML or JSON from a file or an http(s) URL. Never throws. */
export async function readSource (location: string, fetchTimeoutMs = defaultFetchTimeoutMs): Promise<Reading> {
  let text: string
  try {
    text = isUrl(location) ? await fetchText(location, fetchTimeoutMs) : await readFile(location, 'utf8')
  } catch (error) {
    return { root: null, faults: [], unread: `cannot be read: ${reasonOf(error, fetchTimeoutMs)}` }
  }
  return parseSource(location, text)
}

/**
 * Parses YAML 1.2 (with `<<` merge keys), and so also JSON.
 *
 * JSON is read by JSON.parse, which is some hundred times faster; where in the text a value stands is found out by the other parser, when
 * there is a fault to place.
 */
export function parseSource (name: string, text: string): Reading {
  const json = readJson(text)
  if (json === undefined) return parseYaml(name, text)
  let find: Source['place'] | undefined
  const place: Source['place'] = path => (find ??= placesIn(name, text))(path)
  if (json.isTooDeep) return { root: null, faults: [`${name}: ${tooDeep}`], unread: null }
  return { root: { value: json.value, source: { name, place }, path: [] }, faults: [], unread: null }
}

function parseYaml (name: string, text: string): Reading {
  try {
    const { document, lineCounter } = parse(text)
    const faults = document.errors.map(error => {
      const { line, col } = lineCounter.linePos(error.pos[0])
      const remedy = error.code === 'DUPLICATE_KEY' ? 'the same key is written twice; join the two or remove one' : `not valid YAML: ${error.message}`
      return `${name}:${line}:${col}: ${remedy}.`
    })
    // The parser calls itself for each level, and takes the end of the stack for a fault of the text.
    if (document.errors.some(({ message }) => message.includes('call stack'))) return { root: null, faults: [`${name}: ${tooDeep}`], unread: null }
    if (faults.length > 0) return { root: null, faults, unread: null }
    const value: unknown = document.toJS()
    const reason = reasonAgainst(value)
    if (reason !== undefined) return { root: null, faults: [`${name}: ${reason}`], unread: null }
    return { root: { value, source: { name, place: placeBy(name, document, lineCounter) }, path: [] }, faults: [], unread: null }
  } catch (error) {
    // Aliases that multiply beyond reason, or to nothing: the parser finds them only here.
    return { root: null, faults: [`${name}: ${error instanceof RangeError ? tooDeep : `not valid YAML: ${(error as Error).message}.`}`], unread: null }
  }
}

function parse (text: string): { document: Document, lineCounter: LineCounter } {
  const lineCounter = new LineCounter()
  return { document: parseDocument(text, { lineCounter, merge: true, prettyErrors: false }), lineCounter }
}

function placeBy (name: string, document: Document, lineCounter: LineCounter): Source['place'] {
  return path => `${name}:${lineOf(document, lineCounter, path)}${path.length > 0 ? ' ' : ''}${pathText(path)}`
}

/** Of a text that is known to be JSON. */
function placesIn (name: string, text: string): Source['place'] {
  const { document, lineCounter } = parse(text)
  return placeBy(name, document, lineCounter)
}

/**
 * What a text holds if it is JSON without a doubled key; else undefined, and the other parser says what is wrong and where.
 *
 * JSON.parse takes the last of two equal keys in silence, and a path that is listed twice would be enforced by only one of its listings.
 * Each key has one colon outside of strings, so there are as many of these as the value has members, unless a key is doubled.
 */
function readJson (text: string): { value: unknown, isTooDeep: boolean } | undefined {
  if (!/^\s*[[{]/.test(text)) return undefined
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  const { count, depth } = sizeOf(value)
  return count === colonsIn(text) ? { value, isTooDeep: depth > deepest } : undefined
}

/** Colons of a JSON text that are not in a string. */
function colonsIn (json: string): number {
  let count = 0
  let isString = false
  for (let i = 0; i < json.length; i++) {
    const code = json.charCodeAt(i)
    if (code === 0x22) isString = !isString // "
    else if (isString && code === 0x5c) i++ // a backslash, and what it escapes
    else if (!isString && code === 0x3a) count++
  }
  return count
}

/** How many members all of its objects have, and how deep they are nested. Without recursion: it may be deeper than the stack. */
function sizeOf (value: unknown): { count: number, depth: number } {
  let count = 0
  let depth = 0
  let level = [value]
  while (level.length > 0) {
    const next: unknown[] = []
    for (const container of level) {
      if (container === null || typeof container !== 'object') continue
      const inside = Object.values(container)
      if (!Array.isArray(container)) count += inside.length
      for (const member of inside) if (member !== null && typeof member === 'object') next.push(member)
    }
    level = next
    depth++
  }
  return { count, depth }
}

/** The member `key` of a located object or list; its value is `undefined` when there is none. */
export function child (parent: Located, key: string | number): Located {
  const container = parent.value
  const value = container !== null && typeof container === 'object' && Object.hasOwn(container, key)
    ? (container as Record<string | number, unknown>)[key]
    : undefined
  return { value, source: parent.source, path: [...parent.path, key] }
}

export function isObject (value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}

/** The items of a located list, located; none when it is no list. */
export function items (parent: Located): Located[] {
  return Array.isArray(parent.value) ? parent.value.map((_, index) => child(parent, index)) : []
}

/** The members of a located object by key, located; none when it is no object. */
export function members (parent: Located): Array<[string, Located]> {
  return isObject(parent.value) ? Object.keys(parent.value).map(key => [key, child(parent, key)]) : []
}

/** `apis[0].operations["GET /forms"].policies` */
export function pathText (path: Path): string {
  return path.map((key, index) => {
    if (typeof key === 'number') return `[${key}]`
    if (!/^[\w-]+$/.test(key)) return `[${JSON.stringify(key)}]`
    return index === 0 ? key : `.${key}`
  }).join('')
}

/** The line of the deepest part of `path` that is written down: what is missing is reported where it belongs. */
function lineOf (document: Document, lineCounter: LineCounter, path: Path): number {
  let node = document.contents as Node | null
  let offset = node?.range?.[0] ?? 0
  for (const key of path) {
    if (isAlias(node)) node = node.resolve(document) ?? null
    let next: Node | null | undefined
    if (isMap(node)) {
      const pair = node.items.find(({ key: name }) => isScalar(name) && String(name.value) === String(key))
      if (!pair) break
      offset = (pair.key as Node).range?.[0] ?? offset
      next = pair.value as Node | null
    } else if (isSeq(node)) {
      next = node.items[Number(key)] as Node | undefined
      offset = next?.range?.[0] ?? offset
    }
    if (!next) break
    node = next
  }
  return lineCounter.linePos(offset).line
}

/**
 * YAML can write a tree that holds itself; nothing can be made of it, least of all the JSON that the gateway serves. And what works on a
 * document calls itself for each level.
 */
function reasonAgainst (value: unknown, around = new Set<unknown>(), done = new Set<unknown>()): string | undefined {
  if (value === null || typeof value !== 'object' || done.has(value)) return undefined
  if (around.has(value)) return 'not valid YAML: an alias (*name) stands inside what it names.'
  if (around.size >= deepest) return tooDeep
  around.add(value)
  let reason: string | undefined
  for (const member of Object.values(value)) reason ??= reasonAgainst(member, around, done)
  around.delete(value)
  done.add(value)
  return reason
}

async function fetchText (url: string, timeoutMs: number): Promise<string> {
  // The signal covers the body too: a server that answers its headers and then stalls must not stop the start.
  const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs), headers: { accept: 'application/yaml, application/json, */*' } })
  if (!response.ok) throw new Error(`it answered ${response.status}`)
  return await response.text()
}

function reasonOf (error: unknown, timeoutMs: number): string {
  const { name, code, message, cause } = error as Error & { code?: string, cause?: Error & { code?: string } }
  if (name === 'TimeoutError') return `no answer within ${timeoutMs} ms. Check that the server is up and the URL is right.`
  if (code === 'ENOENT') return 'there is no such file. Check the path; it counts from the folder of the file that names it.'
  if (code === 'EISDIR') return 'it is a folder. Name a file in it.'
  if (code === 'EACCES') return 'this process may not read it. Change the file\'s permissions.'
  return `${cause?.code ?? cause?.message ?? message}. Check that it exists and can be reached from here.`
}
