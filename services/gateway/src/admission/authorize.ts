import { BlockList, isIP, isIPv4, isIPv6 } from 'node:net'
import type { Carrier, Operation } from '@keygate/api-catalog'
import type { KeyRecord } from '@keygate/contracts'
import type { RefusalCode } from '../errors.ts'
import type { Credentials } from './credentials.ts'

export interface Attempt {
  credentials: Credentials
  /** A Bearer came beside the key, for the upstream to check. */
  hasBearer: boolean
  operation: Operation
  optInScopes: string[]
  /** The project that the path names, if the operation's path names one. */
  pathProjectId: string | null
  /** The client's address as the trusted hop gives it. */
  address: string
}

/** What a key is judged by, whatever it is used for. */
export type KeyAttempt = Pick<Attempt, 'credentials' | 'pathProjectId' | 'address'>

/** `null`: the key is good here and now. Else why not. */
export function judgeKey (record: KeyRecord, { credentials, pathProjectId, address }: KeyAttempt): RefusalCode | null {
  if (credentials.projectId !== null && credentials.projectId !== record.projectId) return 'invalid_credentials'
  if (pathProjectId !== null && pathProjectId !== record.projectId) return 'invalid_credentials'
  if (record.status === 'revoked') return 'invalid_credentials'
  if (record.status === 'disabled') return 'key_disabled'
  return isHostAllowed(record, address) ? null : 'host_not_allowed'
}

/** `null`: the key may. Else why not. It only judges: the answer waits until the record's version is confirmed. */
export function authorize (record: KeyRecord, attempt: Attempt): RefusalCode | null {
  const { credentials, operation } = attempt
  const refusal = judgeKey(record, attempt)
  if (refusal !== null) return refusal
  if (operation.access !== 'key') return 'operation_not_open'
  let isOffered = false
  let suffices = false
  for (const { carrier, alsoBearer } of operation.requirements) {
    if (!isSame(carrier, credentials.carrier)) continue
    isOffered = true
    if (!alsoBearer || attempt.hasBearer) suffices = true
  }
  if (!isOffered) return 'carrier_not_offered'
  if (!suffices) return 'bearer_missing'
  if (!hasScope(record, operation.scopes, attempt.optInScopes)) return 'scope_missing'
  return null
}

function isSame (a: Carrier, b: Carrier): boolean {
  return a.kind === 'header' ? b.kind === 'header' && a.name === b.name : b.kind === 'basic'
}

/**
 * An operation may stand in several scopes. Its opt-in ones must be held by name, `allowedForAll` or not; of the others one is
 * enough. `allowedForAll` is every scope that is not opt-in, also of operations that are added later or have no scope at all.
 */
export function hasScope (record: Pick<KeyRecord, 'scopes' | 'allowedForAll'>, scopes: string[], optInScopes: string[]): boolean {
  let [isOptIn, isOrdinary, holdsOne] = [false, false, false]
  for (const scope of scopes) {
    const isHeld = record.scopes.includes(scope)
    if (optInScopes.includes(scope)) {
      if (!isHeld) return false
      isOptIn = true
    } else {
      isOrdinary = true
      if (isHeld) holdsOne = true
    }
  }
  return record.allowedForAll || (isOrdinary ? holdsOne : isOptIn)
}

const blockLists = new WeakMap<KeyRecord, BlockList>()

function isHostAllowed (record: KeyRecord, address: string): boolean {
  if (record.allowedHosts === null) return true
  const version = isIP(address)
  if (version === 0) return false // what a proxy wrote may be no address
  let list = blockLists.get(record)
  if (list === undefined) blockLists.set(record, list = toBlockList(record.allowedHosts))
  return list.check(address, version === 6 ? 'ipv6' : 'ipv4')
}

/** An address or CIDR that cannot be read allows nothing: a fault in the data must not open a key. */
function toBlockList (hosts: string[]): BlockList {
  const list = new BlockList()
  for (const host of hosts) {
    const [address = '', bits] = host.split('/')
    const family = isIPv4(address) ? 'ipv4' : isIPv6(address) ? 'ipv6' : undefined
    if (family === undefined) continue
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return list
}
