import { quote, type Faults } from './fault.ts'
import { isReference, type References } from './references.ts'
import { child, isObject, items, members, type Located } from './source.ts'

/** The objects of OpenAPI that hold others (3.0.4 section 4.8, 3.1.1 section 4.8). `components` is their home by the name given here. */
type Kind = 'document' | 'components' | 'pathItem' | 'operation' | 'parameter' | 'header' | 'requestBody' | 'response' | 'mediaType' |
  'encoding' | 'schema' | 'example' | 'link' | 'securityScheme' | 'discriminator' | 'mapping'

type Field = { one: Kind } | { list: Kind } | { map: Kind }

const one = (kind: Kind): Field => ({ one: kind })
const list = (kind: Kind): Field => ({ list: kind })
const map = (kind: Kind): Field => ({ map: kind })

const described = { schema: one('schema'), examples: map('example'), content: map('mediaType') }
const operations = Object.fromEntries(['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'].map(method => [method, one('operation')]))

/** What stands in which field. What is not here is data (an example, a default) or a text, and no reference in it is one. */
const fields: Record<Kind, Record<string, Field>> = {
  document: { paths: map('pathItem'), components: one('components') },
  components: {
    schemas: map('schema'),
    responses: map('response'),
    parameters: map('parameter'),
    examples: map('example'),
    requestBodies: map('requestBody'),
    headers: map('header'),
    securitySchemes: map('securityScheme'),
    links: map('link')
  },
  pathItem: { ...operations, parameters: list('parameter') },
  operation: { parameters: list('parameter'), requestBody: one('requestBody'), responses: map('response') },
  parameter: described,
  header: described,
  requestBody: { content: map('mediaType') },
  response: { headers: map('header'), content: map('mediaType'), links: map('link') },
  mediaType: { schema: one('schema'), examples: map('example'), encoding: map('encoding') },
  encoding: { headers: map('header') },
  schema: {
    ...Object.fromEntries(['properties', 'patternProperties', 'dependentSchemas', '$defs', 'definitions'].map(name => [name, map('schema')])),
    ...Object.fromEntries(['allOf', 'anyOf', 'oneOf', 'prefixItems'].map(name => [name, list('schema')])),
    ...Object.fromEntries(['items', 'additionalProperties', 'not', 'if', 'then', 'else', 'contains', 'propertyNames', 'unevaluatedItems',
      'unevaluatedProperties', 'contentSchema'].map(name => [name, one('schema')])),
    discriminator: one('discriminator')
  },
  discriminator: { mapping: map('mapping') },
  mapping: {},
  example: {},
  link: {},
  securityScheme: {}
}

/** Under which name `components` keeps what a reference of a kind names. */
const homes: Partial<Record<Kind, string>> = {
  schema: 'schemas',
  mapping: 'schemas',
  response: 'responses',
  parameter: 'parameters',
  example: 'examples',
  requestBody: 'requestBodies',
  header: 'headers',
  securityScheme: 'securitySchemes',
  link: 'links'
}

/**
 * Makes one document of a document and the files that it refers to, so that it can be read where those are not.
 *
 * Path Items come to stand in their places. What another file holds moves into `components`, and so does what is referred to elsewhere
 * in the document, because a path may be left out when it is published. References to http(s) stay as they are: a reader can follow them.
 * Webhooks, callbacks and servers are left out: what is asked and where is for `apis.yaml` to say. Nothing is replaced by what it refers
 * to, so schemas may be circular.
 */
export async function bundle (root: Located, references: References, faults: Faults): Promise<object> {
  return await new Bundle(root, references, faults).whole()
}

class Bundle {
  readonly #root: Located
  readonly #references: References
  readonly #faults: Faults
  /** Where what was moved is now, by where it was written. */
  readonly #moved = new Map<string, string>()
  readonly #homes: Record<string, Record<string, unknown>> = {}

  constructor (root: Located, references: References, faults: Faults) {
    this.#root = root
    this.#references = references
    this.#faults = faults
  }

  async whole (): Promise<object> {
    const document = await this.#object(this.#root, 'document')
    const components: Record<string, unknown> = isObject(document['components']) ? { ...document['components'] } : {}
    for (const [home, moved] of Object.entries(this.#homes)) components[home] = { ...(components[home] as object), ...moved }
    return Object.keys(components).length === 0 ? document : { ...document, components }
  }

  async #copy (at: Located, kind: Kind): Promise<unknown> {
    if (kind === 'mapping') return await this.#mapping(at)
    if (!isObject(at.value)) return at.value
    // Its references count from there, and only a reader of JSON Schema can tell where that is.
    if (kind === 'schema' && typeof at.value['$id'] === 'string') return at.value
    if (!isReference(at.value)) return await this.#object(at, kind)
    if (kind === 'pathItem') {
      const target = await this.#references.follow(at)
      return target === undefined ? {} : await this.#object(target, kind)
    }
    // OpenAPI 3.1 lets a schema have more beside its reference, and others a summary and a description.
    return { ...await this.#object(at, kind), $ref: await this.#reference(at, at.value.$ref, kind, async () => await this.#references.target(at)) }
  }

  async #object (at: Located, kind: Kind): Promise<Record<string, unknown>> {
    const known = fields[kind]
    const copy: Record<string, unknown> = {}
    for (const [name, member] of members(at)) {
      const field = Object.hasOwn(known, name) ? known[name] : undefined
      if (isLeftOut(kind, name)) continue
      Object.defineProperty(copy, name, { value: field === undefined ? member.value : await this.#field(member, field), enumerable: true, writable: true, configurable: true })
    }
    return copy
  }

  async #field (at: Located, field: Field): Promise<unknown> {
    if ('one' in field) return await this.#copy(at, field.one)
    if ('list' in field) return Array.isArray(at.value) ? await this.#each(items(at), field.list) : at.value
    if (!isObject(at.value)) return at.value
    const copy: Record<string, unknown> = {}
    for (const [name, member] of members(at)) {
      // An extension among paths or responses is not one of them; a header or a schema may begin so.
      const isExtension = name.startsWith('x-') && (field.map === 'pathItem' || (field.map === 'response' && at.path.at(-2) !== 'components'))
      Object.defineProperty(copy, name, { value: isExtension ? member.value : await this.#copy(member, field.map), enumerable: true, writable: true, configurable: true })
    }
    return copy
  }

  async #each (list: Located[], kind: Kind): Promise<unknown[]> {
    const copies: unknown[] = []
    for (const item of list) copies.push(await this.#copy(item, kind))
    return copies
  }

  /** The values of a discriminator's mapping are names of schemas, or references. */
  async #mapping (at: Located): Promise<unknown> {
    if (typeof at.value !== 'string' || !/[/#]|\.(?:json|ya?ml)$/i.test(at.value)) return at.value
    return await this.#reference(at, at.value, 'mapping', async () => await this.#references.named(at))
  }

  /** What to write instead of a reference, so that it leads there from anywhere in the whole document. */
  async #reference (at: Located, reference: string, kind: Kind, find: () => Promise<Located | undefined>): Promise<string> {
    const isOfRoot = at.source === this.#root.source
    if (/^https?:\/\//i.test(reference)) return reference
    if (isOfRoot && /^#\/components\/(?!pathItems\/|callbacks\/)/.test(reference)) return reference
    const fragment = reference.split('#', 2)[1] ?? ''
    if (fragment !== '' && !fragment.startsWith('/')) { // an anchor of JSON Schema
      if (isOfRoot && reference.startsWith('#')) return reference
      this.#faults.add(at, `${quote(reference)} names an anchor in another file. Name a place there, such as "#/$defs/Name".`)
      return reference
    }
    const target = await find()
    return target === undefined ? reference : await this.#move(target, kind)
  }

  async #move (target: Located, kind: Kind): Promise<string> {
    const home = homes[kind] as string
    const place = `${home} ${target.source.name} ${JSON.stringify(target.path)}`
    const known = this.#moved.get(place)
    if (known !== undefined) return known
    const ofRoot = child(child(this.#root, 'components'), home)
    const { source, path } = target
    if (source === this.#root.source && path.length === 3 && path[0] === 'components' && path[1] === home) return pointerTo(home, String(path[2]))
    const there = this.#homes[home] ??= {}
    const name = freeName(target, name => child(ofRoot, name).value === undefined && !Object.hasOwn(there, name))
    const reference = pointerTo(home, name)
    // Noted before it is copied: it may hold itself.
    this.#moved.set(place, reference)
    there[name] = null
    there[name] = await this.#copy(target, kind === 'mapping' ? 'schema' : kind)
    return reference
  }
}

const leftOut: Partial<Record<Kind, string[]>> = {
  document: ['webhooks', 'servers'],
  components: ['callbacks', 'pathItems'],
  pathItem: ['servers'],
  operation: ['servers', 'callbacks'],
  link: ['server']
}

function isLeftOut (kind: Kind, name: string): boolean {
  return leftOut[kind]?.includes(name) === true
}

/** Components' names have only these characters (OpenAPI 3.0.4 section 4.8.7). */
function freeName ({ source, path }: Located, isFree: (name: string) => boolean): string {
  const last = path.findLast(key => typeof key === 'string') ?? source.name.split(/[\\/]/).at(-1)?.replace(/\.[^.]*$/, '')
  const wanted = String(last).replace(/[^A-Za-z0-9._-]+/g, '_') || 'part'
  let name = wanted
  for (let i = 2; !isFree(name) || name === '__proto__'; i++) name = `${wanted}_${i}`
  return name
}

function pointerTo (home: string, name: string): string {
  return `#/components/${home}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
}
