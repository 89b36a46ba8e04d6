import type { FastifyInstance, InjectOptions } from 'fastify'
import { encodeText } from './hostile.ts'
import type { Living } from './living.ts'
import type { Operation, Parameter, Schema } from './operations.ts'
import type { Random } from './random.ts'
import { makers, valueFor, type Makers, type Reach } from './values.ts'

/** A request in parts, so that each can be broken apart from the others. */
export interface Request {
  path: Record<string, string>
  query: Record<string, unknown>
  header: Record<string, string>
  body?: unknown
}

export interface Answer { status: number, headers: Record<string, string | string[] | number | undefined>, text: string }

/** A request that should be accepted, addressed to something that lives. */
export function acceptable (operation: Operation, living: Living, random: Random, reach: Reach): Request {
  const known = { ...makers, ...living.values }
  const valueOf = (place: Parameter['in']): Record<string, unknown> => Object.fromEntries(operation.parameters
    .filter(parameter => parameter.in === place && (parameter.required || known[parameter.name.toLowerCase()] !== undefined || random.chance(0.5)))
    .map(({ name, schema }) => [name, valueFor(schema, name, random, reach, known)])
    .filter(([, value]) => value !== undefined && value !== null))
  const header = Object.fromEntries(Object.entries(valueOf('header')).map(([name, value]) => [name.toLowerCase(), String(value)]))
  return {
    path: { ...living.path },
    query: valueOf('query'),
    header: { ...header, ...living.header },
    ...operation.body !== undefined && { body: bodyOf(operation.body, random, reach, known) }
  }
}

function bodyOf ({ schema, examples }: NonNullable<Operation['body']>, random: Random, reach: Reach, known: Makers): unknown {
  const example = reach === 'inside' && examples.length > 0 && random.chance(0.3) ? random.pick(examples) : undefined
  return example === undefined ? valueFor(schema, '', random, reach, known) : renewed(example, schema, random, known)
}

/** The example's fields, with values of today: its dates pass, and its ids never lived. */
function renewed (example: unknown, schema: Schema, random: Random, known: Makers): unknown {
  if (typeof example !== 'object' || example === null || Array.isArray(example)) return example
  return Object.fromEntries(Object.entries(example)
    .map(([name, value]) => [name, known[name.toLowerCase()] === undefined ? value : valueFor(schema.properties?.[name] ?? {}, name, random, 'inside', known)])
    .filter(([, value]) => value !== undefined))
}

export function urlOf (operation: Operation, { path, query }: Request): string {
  const address = operation.path.replace(/\{(\w+)\}/g, (_all, name: string) => encodeText(path[name] ?? ''))
  const pairs = Object.entries(query).map(([name, value]) => `${encodeText(name)}=${encodeText(String(value))}`)
  return pairs.length === 0 ? address : `${address}?${pairs.join('&')}`
}

let senders = 0

/** Each request comes from an address of its own on this machine: limits per address are another test. */
function nextAddress (): string {
  senders = (senders + 1) % 2 ** 24
  return `127.${senders >> 16}.${(senders >> 8) % 256}.${senders % 256}`
}

/** @param changes what a test sends instead: another token, another type of content, an address of its own. */
export async function send (app: FastifyInstance, operation: Operation, request: Request, token: string, changes: InjectOptions = {}): Promise<Answer> {
  const response = await app.inject({
    method: operation.method as 'GET',
    url: urlOf(operation, request),
    remoteAddress: nextAddress(),
    ...request.body !== undefined && { payload: JSON.stringify(request.body) },
    ...changes,
    headers: {
      ...request.header['cookie'] === undefined && { authorization: `Bearer ${token}` }, // a person comes with a session instead
      ...request.body !== undefined && { 'content-type': operation.body?.contentType ?? 'application/json' },
      ...request.header,
      ...changes.headers
    }
  })
  return { status: response.statusCode, headers: response.headers, text: response.body }
}
