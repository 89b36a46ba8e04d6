import type { Catalogue } from '@keygate/api-catalog'
import { limitsInApi, limitsOfOperation, type KeyLimit, type LimitedKey } from '@keygate/rate-limit'

/** Addresses come with requests, and nobody's is asked about here: such a limit is listed, and its log is not looked at. */
const noAddress = (): string => ''

/** Every limit that some request of the key is counted under, each log once: a key's or project's list counts over all APIs. */
export function applicableLimits (key: LimitedKey, { apis }: Catalogue): KeyLimit[] {
  const limits = apis.flatMap(api => [
    ...limitsInApi(key, api, noAddress),
    ...api.operations.filter(operation => operation.access === 'key').flatMap(operation => limitsOfOperation(key, api, operation, noAddress))
  ])
  return [...new Map(limits.map(limit => [limit.log, limit])).values()]
}

export function isPerAddress ({ policy }: KeyLimit): boolean {
  return policy.partition === 'address'
}

/** Counted for this key alone, so that emptying its log concerns nobody else. */
export function isOfKeyAlone ({ policy }: KeyLimit): boolean {
  return policy.partition === 'key'
}
