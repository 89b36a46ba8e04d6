import { marked, parameter, read, withoutFormat } from './path-readings.ts'
import type { PathParameters } from './path-template.ts'

/** So many places are looked at to tell whether a template has siblings; beyond that it is taken for one that has. */
const longestSearch = 1000

/** What another reader may take for the end of the path, for a slash or for nothing: a value with none of these stays one segment. */
const odd = /[^!"$&->@-[\]-~]|^[.+;]/

/** A place in the tree of paths: what can stand in the next segment, the concrete apart from the templated. */
class Place {
  readonly texts = new Map<string, Place>()
  /** By the segment with its parameters: a text and parameters in one. */
  readonly parts = new Map<string, Place>()
  any: Place | undefined
  /** A listed path, or a reading of one, ends here. */
  isPath = false
  /** Those that end here as they are listed, in the document's own spelling, decoded. */
  readonly templates: string[][] = []

  enter (segment: string): Place {
    if (segment === parameter) {
      this.any ??= new Place()
      return this.any
    }
    const places = segment.includes(parameter) ? this.parts : this.texts
    let place = places.get(segment)
    if (place === undefined) places.set(segment, place = new Place())
    return place
  }

  /** Every segment that is known here and may be this one, the concrete first. */
  * at (segment: string): Generator<[string, Place]> {
    const place = this.texts.get(segment)
    if (place !== undefined) yield [segment, place]
    for (const part of this.parts) if (fits(part[0], segment)) yield part
    if (this.any !== undefined) yield [parameter, this.any]
  }

  * all (): Generator<[string, Place]> {
    yield * this.texts
    yield * this.parts
    if (this.any !== undefined) yield [parameter, this.any]
  }
}

/** A template with parameters among the others of its API, worked out once. */
export interface Standing {
  segments: string[]
  /** Its last segment without a format. */
  bare: string
  /** Some path that matches it may be another spelling of one that matches a more concrete template. */
  hasSiblings: boolean
}

/**
 * The paths that a document lists, to tell whether a request is another spelling of one: of any, where it matches none of them itself, and of a
 * more concrete one, where it matches a template.
 *
 * An upstream may read paths more loosely than a document is written: `/Items`, `/items/`, `/items;x`, `/items%20`, `/items.json` are `/items` to
 * one framework or another. Two paths are taken for the same when they are equal after `fold` (path-readings.ts). It finds too much rather than too little: what is
 * found is not forwarded. A search looks at no more places than the tree has, and takes time in proportion to the path's length.
 */
export class ListedPaths {
  readonly #root = new Place()

  /**
   * @param template OpenAPI's, below the API's prefix.
   * @param isOwn what the gateway answers itself: nothing unlisted may come near, but it is no sibling of a template.
   */
  add (template: string, { isOwn = false } = {}): void {
    const { readings: [first, ...others] } = read(marked(template))
    for (const reading of [first, ...others]) {
      const place = reading.reduce((place, segment) => place.enter(segment), this.#root)
      place.isPath = true
      if (reading === first && !isOwn) place.templates.push(decodeURIComponent(marked(template)).split('/'))
    }
  }

  /** Whether a path may be read as any of them. @param path below the API's prefix, without a query. */
  has (path: string): boolean {
    const { readings, isUnclear } = read(path)
    return isUnclear || readings.some(reading => hasPath(this.#root, reading))
  }

  /** Once all are added. `undefined`: it has no parameters. */
  standingOf (template: string): Standing | undefined {
    if (!template.includes('{')) return undefined
    const { readings: [segments] } = read(marked(template))
    const standing = { segments, bare: withoutFormat(segments).at(-1) ?? '' }
    return { ...standing, hasSiblings: hasSiblings(this.#root, standing) }
  }

  /**
   * Whether a path that matched a template may be read as one that matches a more concrete one (OpenAPI 3.1 section 4.8.8.2: concrete before
   * templated), whatever its methods; or, if it may be read as one that does not match the template at all, as any listed one. What matches
   * the other one as it is written is not meant: then the other one has no such method, or it would have been taken.
   *
   * @param path below the API's prefix, as it will be sent.
   */
  hasSibling (path: string, standing: Standing): boolean {
    const { readings, isEscaped } = read(path)
    if (isEscaped) return true
    const written = decodeURIComponent(path).split('/')
    return readings.some(reading => isTaken(this.#root, { reading, written, standing }, reading.length !== standing.segments.length))
  }
}

/** A template without siblings needs no search, unless a value may be read as more than one segment, or as none. */
export function mayBeSibling ({ hasSiblings }: Standing, parameters: PathParameters): boolean {
  if (hasSiblings) return true
  for (const place in parameters) if (odd.test(parameters[place] ?? '')) return true
  return false
}

function hasPath (place: Place, reading: readonly string[], i = 0): boolean {
  if (i === reading.length) return place.isPath
  for (const [, next] of place.at(reading[i] as string)) if (hasPath(next, reading, i + 1)) return true
  return false
}

interface Read { reading: readonly string[], written: readonly string[], standing: Standing }

function isTaken (place: Place, read: Read, isOther: boolean, i = 0): boolean {
  const { reading, written, standing } = read
  if (i === reading.length) return isOther && place.templates.length > 0 && !place.templates.some(template => template.length === written.length && template.every((segment, i) => fits(segment, written[i] as string)))
  for (const [segment, next] of place.at(reading[i] as string)) {
    const order = isOther ? 'before' : compare(segment, standing, i, reading[i] as string)
    if (order !== 'behind' && isTaken(next, read, order === 'before', i + 1)) return true
  }
  return false
}

/** Whether a segment of another template goes before the one that matched, both being read from the left. */
function compare (segment: string, { segments, bare }: Pick<Standing, 'segments' | 'bare'>, i: number, read: string): 'before' | 'same' | 'behind' {
  const own = segments[i] as string
  if (segment === own) return 'same'
  // The path is not read as one that matches the template.
  if (!own.includes(parameter)) return read === own || (i === segments.length - 1 && read === bare) ? 'behind' : 'before'
  if (own === parameter || !segment.includes(parameter)) return 'before'
  return segment !== parameter && fits(own, segment) && !fits(segment, own) ? 'before' : 'behind'
}

function hasSiblings (root: Place, standing: Pick<Standing, 'segments' | 'bare'>): boolean {
  const { segments, bare } = standing
  let searched = 0
  const search = (place: Place, i: number, isOther: boolean): boolean => {
    if (i === segments.length) return isOther && place.templates.length > 0
    const own = segments[i] as string
    const texts = own.includes(parameter) ? [] : i === segments.length - 1 ? [own, bare] : [own]
    for (const [segment, next] of texts.length === 0 ? place.all() : texts.flatMap(text => [...place.at(text)])) {
      if (++searched > longestSearch) return true
      const order = isOther ? 'before' : compare(segment, standing, i, own)
      if (order !== 'behind' && search(next, i + 1, order === 'before')) return true
    }
    return false
  }
  return search(root, 0, false)
}

/** Whether a segment matches one of a template, parameters being at least one character long. There is no way back, so it takes no longer than the text. */
function fits (template: string, segment: string): boolean {
  if (template === parameter) return segment !== ''
  const [first = '', ...texts] = template.split(parameter)
  const last = texts.pop()
  if (last === undefined) return segment === first
  if (!segment.startsWith(first)) return false
  let end = first.length
  for (const text of texts) {
    const at = segment.indexOf(text, end + 1)
    if (at === -1) return false
    end = at + text.length
  }
  return end + 1 + last.length <= segment.length && segment.endsWith(last)
}
