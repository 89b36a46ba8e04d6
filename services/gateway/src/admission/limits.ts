import type { Api, Operation } from '@keygate/api-catalog'
import type { KeyRecord } from '@keygate/contracts'
import { addressTag, logKey, type LimitedBy, type Partition, type Policy, type PolicyOwner } from '@keygate/rate-limit'

/**
 * What a key's request is counted under: the key's own policies, else its project's, else the API's, as a whole list and never
 * merged by name; the operation's own in addition. A key's or project's list counts over all APIs, an API's per API.
 */
export function limitsOfKey (record: KeyRecord, api: Api, operation: Operation, addressHash: () => string): LimitedBy[] {
  const owner: PolicyOwner = record.policies === null ? { kind: 'api', api: api.name } : { kind: record.policies.owner }
  const partitionOf = (policy: Policy): Partition => {
    switch (policy.partition) {
      case 'key': return { kind: 'key', keyId: record.keyId }
      case 'project': return { kind: 'project' }
      case 'address': return { kind: 'address', addressHash: addressHash() }
    }
  }
  const limitedBy = (owner: PolicyOwner) => (policy: Policy): LimitedBy => ({ policy, log: logKey(record.projectId, owner, partitionOf(policy), policy) })
  return [
    ...(record.policies?.list ?? api.policies).map(limitedBy(owner)),
    ...operation.policies.map(limitedBy({ kind: 'operation', api: api.name, operation: operation.id }))
  ]
}

/** What a request without a key is counted under: the API's anonymous policies, per address. */
export function limitsOfAddress (api: Api, addressHash: string): LimitedBy[] {
  return api.anonymousPolicies.map(policy => ({
    policy,
    log: logKey(addressTag(addressHash), { kind: 'api', api: api.name }, { kind: 'address', addressHash }, policy)
  }))
}
