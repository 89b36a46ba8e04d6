import { BlockList, isIPv4, isIPv6 } from 'node:net'
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

/** `null`: the key may. Else why not. It only judges: the answer waits until the record's version is confirmed. */
export function authorize (record: KeyRecord, attempt: Attempt): RefusalCode | null {
  const { credentials, operation, pathProjectId } = attempt
  if (credentials.projectId !== null && credentials.projectId !== record.projectId) return 'invalid_credentials'
  if (pathProjectId !== null && pathProjectId !== record.projectId) return 'invalid_credentials'
  if (record.status === 'revoked') return 'invalid_credentials'
  if (record.status === 'disabled') return 'key_disabled'
  if (!isHostAllowed(record, attempt.address)) return 'host_not_allowed'
  if (operation.access !== 'key') return 'operation_not_open'
  const offered = operation.requirements.filter(requirement => isSame(requirement.carrier, credentials.carrier))
  if (offered.length === 0) return 'carrier_not_offered'
  if (!attempt.hasBearer && offered.every(requirement => requirement.alsoBearer)) return 'bearer_missing'
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
  const held = new Set(record.scopes)
  const optIn = scopes.filter(scope => optInScopes.includes(scope))
  const ordinary = scopes.filter(scope => !optInScopes.includes(scope))
  if (!optIn.every(scope => held.has(scope))) return false
  if (record.allowedForAll) return true
  return ordinary.length === 0 ? optIn.length > 0 : ordinary.some(scope => held.has(scope))
}

const blockLists = new WeakMap<KeyRecord, BlockList>()

function isHostAllowed (record: KeyRecord, address: string): boolean {
  if (record.allowedHosts === null) return true
  let list = blockLists.get(record)
  if (list === undefined) blockLists.set(record, list = toBlockList(record.allowedHosts))
  return list.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
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

/** `::ffff:192.0.2.1` is 192.0.2.1 (RFC 4291 section 2.5.5.2): a dual-stack socket shows IPv4 clients so. */
export function canonicalAddress (address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  return mapped?.[1] ?? address
}
