import { isIP } from 'node:net'
import { normalizeIP } from '@fastify/rate-limit'
import type { Api } from '@keygate/api-catalog'
import type { KeyRecord } from '@keygate/contracts'
import { addressTag, limitsOfKey, logKey, type AddressHash, type KeyLimit, type LimitedBy } from '@keygate/rate-limit'
import type { OperationTarget } from '../routing/target.ts'
import { canonicalAddress } from './address.ts'

/**
 * What a key's request for an operation is counted under. Records and operations never change, so the answer is remembered: to spell out
 * the names of the logs costs more than to count.
 */
export function limitsOfRequest (record: KeyRecord, target: OperationTarget, addressHash: AddressHash): KeyLimit[] {
  let known = knownLimits.get(record)
  if (known === undefined) knownLimits.set(record, known = new WeakMap())
  const remembered = known.get(target)
  if (remembered !== undefined) return remembered
  const limits = limitsOfKey(record, target.api, target.operation, addressHash)
  if (limits.every(({ policy }) => policy.partition !== 'address')) known.set(target, limits)
  return limits
}

const knownLimits = new WeakMap<KeyRecord, WeakMap<OperationTarget, KeyLimit[]>>()

/** What a request without a key is counted under: the API's anonymous policies, per address. */
export function limitsOfAddress (api: Api, addressHash: string): LimitedBy[] {
  return api.anonymousPolicies.map(policy => ({
    policy,
    log: logKey(addressTag(addressHash), { kind: 'api', api: api.name }, { kind: 'address', addressHash }, policy)
  }))
}

/**
 * What a client is counted under: its IPv4 address, or the /64 of its IPv6 address, which one customer commonly holds. What is no address
 * (a proxy may write `unknown`) is all one: a client could choose it, and have a new count each time.
 */
export function countedAddress (address: string): string {
  const canonical = canonicalAddress(address)
  return isIP(canonical) === 0 ? 'unknown' : normalizeIP(canonical)
}
