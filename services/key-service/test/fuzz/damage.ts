import { hostileNumbers, hostileTexts, isHeaderText, sharpTexts, strangeNames } from './hostile.ts'
import type { Operation, Schema } from './operations.ts'
import type { Random } from './random.ts'
import type { Request } from './request.ts'
import { typesOf } from './values.ts'

export type Damage = 'broken field' | 'wrong type' | 'missing field' | 'extra field' | 'oversize' | 'hostile'

/** One value of a request: the way to it, and what the document says of it. */
interface Place { way: [keyof Request, ...Array<string | number>], schema: Schema, isText: boolean }

/** A copy with one thing broken in it; undefined when the operation has nothing to break in that manner. */
export function damaged (operation: Operation, request: Request, kind: Damage, random: Random): Request | undefined {
  const places = placesOf(operation, request)
  const body = places.filter(place => !place.isText)
  if (kind === 'missing field') {
    const [present, own] = [body.filter(place => valueAt(request, place.way) !== undefined), places.filter(place => place.way[0] === 'query')]
    const from = present.length > 0 ? present : own
    return from.length === 0 ? undefined : without(request, random.pick(from).way)
  }
  if (kind === 'extra field') return withExtra(operation, request, random)
  if (kind === 'wrong type' && (body.length > 0 || operation.body !== undefined)) {
    if (random.chance(0.2) || body.length === 0) return { ...request, body: random.pick([[], 1, 'text', true, null, [{}]]) }
    return changed(request, random.pick(body), place => otherType(place.schema, random))
  }
  if (places.length === 0) return undefined
  return changed(request, random.pick(places), ({ schema, isText }) => {
    if (kind === 'hostile') return hostileFor(schema, random)
    return kind === 'oversize' ? oversizeFor(schema, random, isText) : brokenFor(schema, random)
  })
}

/** Every field with each of the sharpest texts, one at a time; unless it is to be thorough, with two of them, and the next field with the next two. */
export function hostileEverywhere (operation: Operation, request: Request, isThorough: boolean): Request[] {
  return placesOf(operation, request)
    .flatMap((place, index) => sharpTexts.filter((_, number) => isThorough || (index + number) % 4 === 0).map(text => changed(request, place, () => text)))
    .filter(made => made !== undefined)
}

function placesOf (operation: Operation, request: Request): Place[] {
  const parameters = operation.parameters.filter(parameter => parameter.in !== 'cookie').map(({ in: part, name, schema }): Place =>
    ({ way: [part as 'path' | 'query' | 'header', part === 'header' ? name.toLowerCase() : name], schema, isText: true }))
  return [...parameters, ...operation.body === undefined ? [] : within(operation.body.schema, request.body, ['body'])]
}

function within (schema: Schema, value: unknown, way: Place['way']): Place[] {
  const [branch] = schema.anyOf ?? schema.oneOf ?? []
  const { properties, items } = branch !== undefined && schema.properties === undefined ? branch : schema
  const list = Array.isArray(value) ? value : []
  return [
    ...Object.entries(properties ?? {}).flatMap(([name, member]): Place[] => {
      const inner: Place['way'] = [...way, name]
      return [{ way: inner, schema: member, isText: false }, ...within(member, (value as Record<string, unknown> | null | undefined)?.[name], inner)]
    }),
    ...items === undefined || list.length === 0 ? [] : [{ way: [...way, 0] as Place['way'], schema: items, isText: false }, ...within(items, list[0], [...way, 0])]
  ]
}

/** Undefined where the value cannot be sent there: a path's part that clients resolve themselves, a header that HTTP forbids. */
function changed (request: Request, place: Place, make: (place: Place) => unknown): Request | undefined {
  const value = make(place)
  const [part] = place.way
  if (place.isText) {
    const text = String(value)
    if (part === 'header' && !isHeaderText(text)) return undefined
    if (part === 'path' && ['', '.', '..'].includes(text)) return undefined
    return withValue(request, place.way, text)
  }
  return withValue(request, place.way, value)
}

function withExtra (operation: Operation, request: Request, random: Random): Request {
  const ways: Array<Place['way']> = [['body'], ...placesOf(operation, request).map(place => place.way)]
  const objects = ways.filter(way => way[0] === 'body' && isObject(valueAt(request, way)))
  const way: Place['way'] = objects.length > 0 && random.chance(0.8) ? random.pick(objects) : ['query']
  return withValue(request, [...way, random.pick(strangeNames)], random.pick([1, 'x', null, {}, [true]]))
}

function otherType (schema: Schema, random: Random): unknown {
  const types = typesOf(schema)
  const others = [['string', '1'], ['integer', 1], ['number', 1.5], ['boolean', true], ['boolean', 'true'], ['null', null], ['array', []], ['array', [[]]], ['object', {}], ['object', { a: 1 }]] as const
  return random.pick(others.filter(([type]) => !types.includes(type)))[1]
}

function brokenFor (schema: Schema, random: Random): unknown {
  const { enum: choices, maxLength, minLength = 0, minimum, maximum, minItems = 0, maxItems, items } = schema
  const types = typesOf(schema)
  if (choices !== undefined) return 'no such choice'
  if (types.includes('integer') || types.includes('number')) return random.pick([...minimum === undefined ? [-1] : [minimum - 1], ...maximum === undefined ? [2 ** 53] : [maximum + 1], 0.5])
  if (types.includes('array')) return random.pick([...minItems > 0 ? [[]] : [], Array.from({ length: Math.min(maxItems ?? 1000, 2000) + 1 }, () => items?.enum?.[0] ?? 'x'), ['no such thing']])
  if (types.includes('object')) return random.pick([{ nonsense: 1 }, {}])
  if (types.includes('boolean')) return 'maybe'
  return random.pick([...minLength > 0 ? [''] : [], ...maxLength === undefined ? [] : ['x'.repeat(maxLength + 1)], 'no\u0001such thing', ' ', '2001-01-01'])
}

/** Addresses and headers are shorter than what Node itself refuses, 16 kB. */
function oversizeFor (schema: Schema, random: Random, isText: boolean): unknown {
  const types = typesOf(schema)
  if (isText) return 'x'.repeat(random.pick([101, 1001, 4000]))
  if (types.includes('array')) return Array.from({ length: 5000 }, () => 'x')
  if (types.includes('object')) return Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`n${i}`, i]))
  if (types.includes('integer')) return 10 ** random.integer(10, 300)
  return 'x'.repeat(random.pick([101, 1001, 20_000, 300_000]))
}

function hostileFor (schema: Schema, random: Random): unknown {
  const types = typesOf(schema)
  const text = random.pick(hostileTexts)
  if (types.includes('integer') || types.includes('number')) return random.chance(0.7) ? random.pick(hostileNumbers) : text
  if (types.includes('array')) return random.pick([[text], [text, text], [null], [[[[[text]]]]], text])
  if (types.includes('object')) return random.pick([JSON.parse('{"__proto__":{"isAdmin":true}}'), { constructor: { prototype: { isAdmin: true } } }, { [text]: text }, text])
  return text
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function valueAt (request: Request, way: Place['way']): unknown {
  return way.reduce<any>((at, step) => at?.[step], request)
}

function withValue (request: Request, way: Place['way'], value: unknown): Request {
  const copy = structuredClone(request)
  let at: any = copy
  way.forEach((step, index) => {
    // As an own property, whatever its name: `at['__proto__'] = value` would not be in the JSON.
    if (index === way.length - 1) Object.defineProperty(at, step, { value, enumerable: true, configurable: true, writable: true })
    else {
      if (typeof at[step] !== 'object' || at[step] === null) at[step] = {}
      at = at[step]
    }
  })
  return copy
}

function without (request: Request, way: Place['way']): Request {
  const copy = structuredClone(request)
  const owner = valueAt(copy, way.slice(0, -1) as unknown as Place['way']) as any
  if (Array.isArray(owner)) owner.splice(Number(way.at(-1)), 1)
  else delete owner[way.at(-1) as string]
  return copy
}
