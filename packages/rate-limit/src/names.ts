import { createHash } from 'node:crypto'
import type { Policy } from './policy.ts'

/**
 * Names in Redis (design.md section 5). All of one project share a hash tag, so one slot of a cluster and one script call:
 *
 *   kg:{<projectId>}:versions                                        key id -> version, `*` -> the project's, `#` -> incarnation
 *   kg:{<projectId>}:rl:<owner>:<partition>:<policy>:<s|f><seconds>  log of admitted requests
 *   kg:{<projectId>}:admitted:<minute>                               boot id -> admissions
 *   kg:{a:<address hash>}:rl:...                                     logs of an address without a project
 *
 * The limit is not in the name: a changed limit goes on with the same log. A changed window or algorithm starts a new one.
 */
export function versionsKey (projectId: string): string {
  return `kg:{${projectId}}:versions`
}

export function admittedPrefix (projectId: string): string {
  return `kg:{${projectId}}:admitted`
}

/** Whose list a policy stands in: what it counts over. */
export type PolicyOwner =
  | { kind: 'api', api: string }
  | { kind: 'operation', api: string, operation: string }
  | { kind: 'project' }
  | { kind: 'key' }

/** What is counted apart. An address comes in hashed: a raw one never stands in Redis. */
export type Partition = { kind: 'project' } | { kind: 'key', keyId: string } | { kind: 'address', addressHash: string }

/** The name of a policy's log; distinct inputs give distinct names (each part is encoded, `:`, `=`, `{` and `}` only separate). */
export function logKey (tag: string, owner: PolicyOwner, partition: Partition, policy: Pick<Policy, 'name' | 'algorithm' | 'windowSeconds'>): string {
  return `kg:{${tag}}:rl:${ownerPart(owner)}:${partitionPart(partition)}:${encode(policy.name)}:${policy.algorithm === 'sliding' ? 's' : 'f'}${policy.windowSeconds}`
}

/** The hash tag of an address that no project is known for. */
export function addressTag (addressHash: string): string {
  return `a:${addressHash}`
}

/** Half a SHA-256 of an address (or its /64), base64url: enough to tell addresses apart, and not the address. */
export function hashAddress (address: string): string {
  return createHash('sha256').update(`address ${address}`).digest().subarray(0, 16).toString('base64url')
}

function ownerPart (owner: PolicyOwner): string {
  switch (owner.kind) {
    case 'api': return `api=${encode(owner.api)}`
    case 'operation': return `op=${encode(owner.api)}=${encode(owner.operation)}`
    case 'project': return 'project'
    case 'key': return 'key'
  }
}

function partitionPart (partition: Partition): string {
  switch (partition.kind) {
    case 'project': return 'project'
    case 'key': return `key=${encode(partition.keyId)}`
    case 'address': return `address=${encode(partition.addressHash)}`
  }
}

/** JSON first, because it writes a lone surrogate as an escape where encodeURIComponent would throw. */
function encode (part: string): string {
  return encodeURIComponent(JSON.stringify(part).slice(1, -1))
}
