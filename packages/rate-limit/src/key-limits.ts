import { logKey, type Partition, type PolicyOwner } from './names.ts'
import type { Policy } from './policy.ts'
import type { LimitedBy } from './store.ts'

/** A key as far as its limits go: its own policies, else its project's; null: those of the API that is called. */
export interface LimitedKey { projectId: string, keyId: string, policies: { owner: 'key' | 'project', list: Policy[] } | null }

/** An API or an operation of the catalogue as far as limits go. */
export interface LimitedApi { name: string, policies: Policy[] }
export interface LimitedOperation { id: string, policies: Policy[] }

/** A policy that a key's request is counted under, its log, and whose list it stands in. */
export interface KeyLimit extends LimitedBy { owner: PolicyOwner }

/** The hash of the caller's address; asked for only when a policy counts per address. */
export type AddressHash = () => string

/**
 * What a key's request is counted under: the key's own policies, else its project's, else the API's, as a whole list and never
 * merged by name; the operation's own in addition. A key's or project's list counts over all APIs, an API's per API.
 */
export function limitsOfKey (key: LimitedKey, api: LimitedApi, operation: LimitedOperation, addressHash: AddressHash): KeyLimit[] {
  return [...limitsInApi(key, api, addressHash), ...limitsOfOperation(key, api, operation, addressHash)]
}

/** Those of every operation of an API. */
export function limitsInApi (key: LimitedKey, api: LimitedApi, addressHash: AddressHash): KeyLimit[] {
  const owner: PolicyOwner = key.policies === null ? { kind: 'api', api: api.name } : { kind: key.policies.owner }
  return (key.policies?.list ?? api.policies).map(policy => limitOf(key, owner, policy, addressHash))
}

/** Those that one operation has in addition. */
export function limitsOfOperation (key: LimitedKey, api: LimitedApi, { id, policies }: LimitedOperation, addressHash: AddressHash): KeyLimit[] {
  return policies.map(policy => limitOf(key, { kind: 'operation', api: api.name, operation: id }, policy, addressHash))
}

function limitOf ({ projectId, keyId }: LimitedKey, owner: PolicyOwner, policy: Policy, addressHash: AddressHash): KeyLimit {
  return { policy, owner, log: logKey(projectId, owner, partitionOf(policy, keyId, addressHash), policy) }
}

function partitionOf ({ partition }: Policy, keyId: string, addressHash: AddressHash): Partition {
  switch (partition) {
    case 'key': return { kind: 'key', keyId }
    case 'project': return { kind: 'project' }
    case 'address': return { kind: 'address', addressHash: addressHash() }
  }
}
