import { dirname, isAbsolute, join, relative } from 'node:path'
import { quote, type Faults } from './fault.ts'
import { child, isObject, isUrl, readSource, type Located, type Reading } from './source.ts'

/**
 * Follows `$ref`s (RFC 3986 references with a JSON Pointer, RFC 6901, as fragment) within one document and the files beside it.
 *
 * Nothing is fetched over the network and no file outside the document's folder is read: whoever writes a document
 * would otherwise choose what the gateway reads at its start.
 */
export class References {
  readonly #folder: string | null
  readonly #faults: Faults
  readonly #readings = new Map<string, Reading>()

  constructor (root: Located, faults: Faults) {
    this.#folder = isUrl(root.source.name) ? null : dirname(root.source.name)
    this.#faults = faults
    this.#readings.set(root.source.name, { root, faults: [], unread: null })
  }

  /** What `at` stands for: itself, or the end of its chain of references. Undefined after a fault. */
  async follow (at: Located, seen = new Set<string>()): Promise<Located | undefined> {
    let current = at
    while (isReference(current.value)) {
      const reference = child(current, '$ref')
      const place = keyOf(current)
      if (seen.has(place)) {
        this.#faults.add(reference, `${quote(reference.value)} leads back to itself. Break the circle.`)
        return undefined
      }
      seen.add(place)
      const target = await this.#target(reference, current.value.$ref, seen)
      if (target === undefined) return undefined
      current = target
    }
    return current
  }

  /** What a single reference names, which may be a reference again. Undefined after a fault. */
  async target (at: Located): Promise<Located | undefined> {
    const reference = child(at, '$ref')
    return await this.#target(reference, String(reference.value), new Set([keyOf(at)]))
  }

  /** What a text like that of a `$ref` names, written in another field. */
  async named (at: Located): Promise<Located | undefined> {
    return await this.#target(at, String(at.value), new Set())
  }

  async #target (at: Located, reference: string, seen: Set<string>): Promise<Located | undefined> {
    const [location, pointer] = reference.split('#', 2).map(decode)
    if (location === undefined) {
      this.#faults.add(at, `${quote(reference)} is not a well-formed reference. Write for example "#/components/parameters/FormId".`)
      return undefined
    }
    const root = location === '' ? this.#readings.get(at.source.name)?.root : await this.#open(at, reference, location)
    if (root === undefined || root === null) return undefined
    let target: Located | undefined = root
    for (const key of pointerKeys(pointer ?? '')) {
      // RFC 6901 knows no references on the way; but bundlers write pointers that lead through one.
      if (isReference(target?.value)) target = await this.follow(target as Located, seen)
      if (target === undefined) return undefined
      target = child(target, Array.isArray(target.value) ? Number(key) : key)
    }
    if (target.value !== undefined) return target
    this.#faults.add(at, `${quote(reference)} leads to nothing. Correct it, or add what it names.`)
  }

  async #open (at: Located, reference: string, location: string): Promise<Located | null | undefined> {
    if (/^([a-z][a-z0-9+.-]*:|\/\/)/i.test(location)) {
      this.#faults.add(at, `${quote(reference)} is elsewhere, and a document's references are not fetched. Copy what it names into the document, or into a file beside it.`)
      return undefined
    }
    if (this.#folder === null) {
      this.#faults.add(at, `${quote(reference)} is another file, and a document that comes by URL must be whole. Bundle it into one document, or name a local file under "openapi".`)
      return undefined
    }
    const file = join(dirname(at.source.name), location)
    const inside = relative(this.#folder, file)
    if (isAbsolute(location) || isAbsolute(inside) || inside.split(/[\\/]/)[0] === '..') {
      this.#faults.add(at, `${quote(reference)} is outside the folder of the document. Move it there.`)
      return undefined
    }
    const reading = this.#readings.get(file) ?? await readSource(file)
    this.#readings.set(file, reading)
    for (const fault of reading.faults) this.#faults.add(at, `${quote(reference)}: ${fault}`)
    if (reading.unread !== null) this.#faults.add(at, `${quote(reference)} ${reading.unread}`)
    return reading.root
  }
}

/** Where something is written, to tell it from others. To find out its line is costly, and only a fault needs that. */
function keyOf ({ source, path }: Located): string {
  return `${source.name} ${JSON.stringify(path)}`
}

/** True for a Reference Object of OpenAPI. */
export function isReference (value: unknown): value is { $ref: string } {
  return isObject(value) && typeof value['$ref'] === 'string'
}

function pointerKeys (pointer: string): string[] {
  return pointer.split('/').slice(1).map(key => key.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** RFC 3986: both halves of a reference are percent-encoded. Undefined for a stray `%`. */
function decode (text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
