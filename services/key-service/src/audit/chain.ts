import { createHash } from 'node:crypto'
import type { Actor } from './audit-log.ts'

/** An event as its chain holds it, all but its hash. */
export interface ChainedEvent {
  chain: string
  /** From 1, without gaps. */
  seq: number
  /** ISO 8601 in UTC, to the millisecond. */
  at: string
  projectId: string | null
  keyId: string | null
  actor: Actor
  action: string
  requestId: string
  details: Record<string, unknown>
}

/** Where a chain ends: the number and the hash of its last event. */
export interface End { seq: number, hash: string }

/** The end of a chain that has no event yet. */
export const beginning: End = { seq: 0, hash: '' }

/** Each project has a chain of its own; what belongs to no project is in that of the installation. */
export function chainOf (projectId: string | null): string {
  return projectId ?? 'installation'
}

/**
 * An event as one text, the same for the same event wherever and whenever it is written: the JSON of RFC 8785 (members sorted by
 * name at every depth, no white space), with exactly the members of `ChainedEvent`. Two different events never have the same text.
 */
export function canonical ({ chain, seq, at, projectId, keyId, actor: { type, id, name }, action, requestId, details }: ChainedEvent): string {
  return canonicalJson({ chain, seq, at, projectId, keyId, actor: { type, id, name }, action, requestId, details })
}

/**
 * What binds an event to all before it: base64url of SHA-256 over the hash of the event before (nothing for the first), a line feed,
 * and the event's canonical text.
 */
export function hashOf (previousHash: string, event: ChainedEvent): string {
  return createHash('sha256').update(`${previousHash}\n${canonical(event)}`).digest('base64url')
}

function canonicalJson (value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  const members = Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1)
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`).join(',')}}`
}
