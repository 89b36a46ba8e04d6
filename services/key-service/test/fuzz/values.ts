import fc from 'fast-check'
import type { Schema } from './operations.ts'
import type { Random } from './random.ts'

/** `inside`: an ordinary value. `edge`: the smallest, the longest, the last that is allowed. */
export type Reach = 'inside' | 'edge'

type Maker = (random: Random, reach: Reach, schema: Schema) => unknown

/** What a schema cannot tell, by the name of the property, parameter or header in lower case. `undefined` leaves it out. */
export type Makers = Record<string, Maker>

const names = ['Accounting', 'Nightly export', 'Büro für Förderung', '田中さん', 'مرحبا', '👩‍👩‍👧‍👦', 'a', '  padded  ', 'O\'Brien & "Söhne" <x>', '100% _sure_']
const hosts = ['192.0.2.0/24', '198.51.100.7', '2001:db8::/32', '2001:db8::1', '::ffff:10.0.0.1', '0.0.0.0/1']
const knownScopes = ['submissions', 'exports', 'files']

const name: Maker = (random, reach) => reach === 'edge' ? random.pick(['n', 'n'.repeat(100), '😀'.repeat(100), `  ${'n'.repeat(100)}  `]) : `${random.pick(names)} ${random.integer(0, 1e9)}`
const longText: Maker = (random, reach) => reach === 'edge' ? random.pick(['', '😀'.repeat(400), 'line\nline\tend\r\n']) : `${random.pick(names)}, because ${random.pick(names)}`
const future: Maker = (random, reach) => reach === 'edge'
  ? random.pick(['9999-12-31T23:59:59.999Z', '9999-12-31', '2996-02-29', '2996-02-29T23:59:59-12:00'])
  : `${random.integer(2200, 2900)}-${String(random.integer(1, 12)).padStart(2, '0')}-0${random.integer(1, 9)}${random.pick(['', 'T10:00:00Z', 't10:00:00.123z', 'T10:00:00+02:00'])}`
const scopes: Maker = random => knownScopes.filter(() => random.chance(0.5))

const policy = (random: Random, reach: Reach, index: number): object => ({
  name: `p${index}`,
  limit: reach === 'edge' ? random.pick([1, 100_000]) : random.integer(1, 1000),
  ...random.chance(0.5) ? { windowSeconds: reach === 'edge' ? 1 : random.integer(1, 3600) } : { window: random.pick(['1s', '60s', '1m', '1h']) },
  ...random.chance(0.3) && { algorithm: random.pick(['sliding', 'fixed']) },
  ...random.chance(0.3) && { partition: random.pick(['key', 'project', 'address']) },
  ...random.chance(0.3) && { whenStoreIsDown: random.pick(['local', 'open', 'closed']) }
})

const logging: Maker = random => random.chance(0.5)
  ? { all: random.chance(0.5) ? null : '2300-01-31T00:00:00Z' }
  : { scopes: { [random.pick(knownScopes)]: random.chance(0.5) ? null : '2300-01-31T00:00:00Z' } }

/** The catalogue of these tests, the rules that are judged beyond the schema, and values that only make sense when they are fresh. */
export const makers: Makers = {
  name,
  description: longText,
  reason: longText,
  scopes,
  expiresat: future,
  notafter: future,
  allowedhosts: (random, reach) => reach === 'edge' ? Array.from({ length: random.pick([1, 100]) }, (_, i) => `10.0.${i}.0/24`) : [random.pick(hosts), random.pick(hosts)],
  policies: (random, reach) => Array.from({ length: random.integer(1, 3) }, (_, index) => policy(random, reach, index)),
  logging,
  role: () => undefined, // of a key: the living knows which roles there are
  import: random => random.chance(0.1) ? { digest: digest(random) } : undefined,
  sealed: random => random.chance(0.3) ? true : undefined, // it cannot be undone
  permissions: (random, _reach, schema) => (schema.items?.enum ?? []).filter(permission => /:read$/.test(String(permission)) && random.chance(0.5)).concat('projects:read').filter((value, index, list) => list.indexOf(value) === index),
  projectid: (random, _reach, schema) => uuid(random, schema),
  digest: random => digest(random),
  cursor: () => undefined,
  email: random => `person-${random.integer(0, 1e12)}@example.org`,
  search: random => random.pick(['a', 'Key', 'fuzz', '100%', 'a_b']),
  password: random => `correct horse ${random.integer(0, 1e12)} battery`,
  'if-match': () => '*',
  'idempotency-key': random => `fuzz-${random.integer(0, 1e12)}-${random.integer(0, 1e12)}`
}

function digest (random: Random): string {
  return Buffer.from(Array.from({ length: 32 }, () => random.integer(0, 255))).toString('base64url')
}

function uuid (random: Random, _schema: Schema = {}): string {
  const hex = (length: number): string => Array.from({ length }, () => random.integer(0, 15).toString(16)).join('')
  return `${hex(8)}-${hex(4)}-4${hex(3)}-8${hex(3)}-${hex(12)}`
}

/** A value that the schema accepts, and the rules beyond it as far as `makers` knows them; undefined: leave it out. */
export function valueFor (schema: Schema, name: string, random: Random, reach: Reach, known: Makers): unknown {
  const typed = typesOf(schema)
  if (typed.includes('null') && random.chance(reach === 'edge' ? 0.3 : 0.1)) return null
  if (schema.const !== undefined) return schema.const
  if (schema.enum !== undefined) return random.pick(schema.enum)
  const maker = known[name.toLowerCase()]
  if (maker !== undefined) return maker(random, reach, schema)
  const branches = schema.anyOf ?? schema.oneOf
  if (branches !== undefined) return valueFor(random.pick(branches), name, random, reach, known)
  switch (typed.find(type => type !== 'null')) {
    case 'object': return objectFor(schema, random, reach, known)
    case 'array': return arrayFor(schema, name, random, reach, known)
    case 'integer': return integerFor(schema, random, reach)
    case 'number': return integerFor(schema, random, reach)
    case 'boolean': return random.chance(0.5)
    case 'string': return textFor(schema, random, reach)
    default: return typed.includes('null') ? null : undefined
  }
}

export function typesOf (schema: Schema): string[] {
  if (schema.type !== undefined) return [schema.type].flat()
  return schema.properties === undefined ? [] : ['object']
}

function objectFor (schema: Schema, random: Random, reach: Reach, known: Makers): Record<string, unknown> {
  const { properties = {}, required = [], minProperties = 0 } = schema
  const share = reach === 'edge' ? random.pick([0, 1]) : 0.5
  const fill = (wanted: (name: string) => boolean): Record<string, unknown> => Object.fromEntries(Object.entries(properties)
    .filter(([name]) => required.includes(name) || wanted(name))
    .map(([name, member]) => [name, valueFor(member, name, random, reach, known)])
    .filter(([, value]) => value !== undefined))
  const value = fill(() => random.chance(share))
  return Object.keys(value).length >= minProperties ? value : fill(() => true)
}

function arrayFor (schema: Schema, name: string, random: Random, reach: Reach, known: Makers): unknown[] {
  const { minItems = 0, maxItems = 4, items = {} } = schema
  const length = reach === 'edge' ? random.pick([minItems, Math.min(maxItems, 100)]) : random.integer(minItems, Math.max(minItems, Math.min(maxItems, 4)))
  const list = Array.from({ length }, () => valueFor(items, name, random, 'inside', known))
  return [...new Map(list.map(item => [JSON.stringify(item), item])).values()].filter(item => item !== undefined)
}

function integerFor ({ minimum = 0, maximum = 1000 }: Schema, random: Random, reach: Reach): number {
  return reach === 'edge' ? random.pick([minimum, maximum]) : random.integer(minimum, Math.min(maximum, minimum + 10_000))
}

const formats: Record<string, (random: Random) => string> = {
  uuid,
  'date-time': () => '2300-01-31T12:00:00Z',
  date: () => '2300-01-31',
  email: random => `person-${random.integer(0, 1e12)}@example.org`,
  uri: () => 'https://example.org/a',
  ipv4: () => '192.0.2.1'
}

function textFor (schema: Schema, random: Random, reach: Reach): string {
  const { format, pattern, minLength = 0, maxLength = 40 } = schema
  const [example] = schema.examples ?? []
  if (typeof example === 'string' && random.chance(0.5)) return example
  if (format !== undefined && formats[format] !== undefined) return formats[format](random)
  if (pattern !== undefined) return random.pick(textsLike(pattern, minLength, schema.maxLength))
  const length = reach === 'edge' ? random.pick([minLength, maxLength]) : random.integer(Math.max(1, minLength), Math.max(minLength, Math.min(maxLength, 20)))
  return Array.from({ length }, () => random.pick([...'abcdefghijklmnopqrstuvwxyz0123456789'])).join('')
}

const likenesses = new Map<string, string[]>()

/** A few texts of the pattern; the same ones every time. */
function textsLike (pattern: string, minLength: number, maxLength = 200): string[] {
  const known = likenesses.get(pattern)
  if (known !== undefined) return known
  const fits = fc.stringMatching(new RegExp(pattern, 'u')).filter(text => text.length >= minLength && text.length <= maxLength)
  const made = fc.sample(fits, { seed: 1, numRuns: 20 })
  likenesses.set(pattern, made)
  return made
}
