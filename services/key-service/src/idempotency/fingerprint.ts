import { createHash } from 'node:crypto'

/** Who asks for what under which text. What differs in any part is another request, so no caller meets another's. */
export interface Scope {
  /** A service token's or a person's. */
  caller: { type: string, id: string }
  /** The route's operationId. */
  operation: string
  projectId: string
  key: string
}

/** What was asked: under the same key it must be the same again. */
export interface Asked { method: string, route: string, params: object, body: unknown }

/** SHA-256, base64url. Only this is stored of the client's text. */
export function digestOf ({ caller, operation, projectId, key }: Scope): string {
  return sha256([caller.type, caller.id, operation, projectId, key])
}

export function fingerprintOf ({ method, route, params, body }: Asked): string {
  return sha256([method, route, params, body])
}

function sha256 (parts: unknown[]): string {
  return createHash('sha256').update(canonicalJson(parts)).digest('base64url')
}

/** JSON in which an object's members are sorted: their order means nothing, and a client's library may change it. */
export function canonicalJson (value: unknown): string {
  return JSON.stringify(value, (_name, part: unknown) => isRecord(part) ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => a < b ? -1 : 1)) : part)
}

function isRecord (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
