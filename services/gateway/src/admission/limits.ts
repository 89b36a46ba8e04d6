import type { Api } from '@keygate/api-catalog'
import { addressTag, logKey, type LimitedBy } from '@keygate/rate-limit'

/** What a request without a key is counted under: the API's anonymous policies, per address. With a key: `limitsOfKey` of the limiter. */
export function limitsOfAddress (api: Api, addressHash: string): LimitedBy[] {
  return api.anonymousPolicies.map(policy => ({
    policy,
    log: logKey(addressTag(addressHash), { kind: 'api', api: api.name }, { kind: 'address', addressHash }, policy)
  }))
}
