import { lookup as resolve, type LookupAddress, type LookupOptions } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'

/** Where an upstream may be (GX-14). */
export interface AddressRules {
  /** Also where only this network's own machines are: loopback, 10.0.0.0/8, fc00::/7 and the like. */
  allowsPrivate: boolean
}

/** ipaddr.js's names for the ranges of RFC 6890 that are reached from inside alone. */
const privateRanges = new Set<string>(['loopback', 'private', 'uniqueLocal', 'carrierGradeNat'])

/** Amazon's metadata service over IPv6 lies in a private range, and what it tells is never an API. */
const metadata = ipaddr.parseCIDR('fd00:ec2::/32')

/**
 * Why an upstream may not be at an address; `undefined` if it may. Link-local addresses, where clouds answer with a machine's
 * credentials, and such that are no host's are never allowed. An IPv4 address in IPv6's clothes is judged as what it is.
 */
export function addressFault (address: string, { allowsPrivate }: AddressRules): string | undefined {
  const parsed = ipaddr.process(address)
  const range: string = parsed.range()
  if (range === 'unicast') return undefined
  if (parsed.kind() === 'ipv6' && parsed.match(metadata)) return `${address} is a metadata service`
  if (!privateRanges.has(range)) return `${address} is ${range === 'linkLocal' ? 'link-local' : `of the range "${range}"`}`
  return allowsPrivate ? undefined : `${address} is private`
}

/** The fault of an upstream's URL that names an address. A name is judged when it is looked up, since it may change. */
export function hostFault (url: URL, rules: AddressRules): string | undefined {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  return isIP(host) === 0 ? undefined : addressFault(host, rules)
}

/** An upstream's name led to an address where none may be. */
export class ForbiddenAddressError extends Error {
  override readonly name = 'ForbiddenAddressError'
  readonly code = 'FORBIDDEN_ADDRESS'
}

/**
 * The look-up of a connection: what was checked is what is connected to, so a name that answers otherwise the second time gains
 * nothing. Of several addresses each must be allowed.
 */
export function guardedLookup (rules: AddressRules): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options as LookupOptions, all: true }, (error, addresses: LookupAddress[]) => {
      if (error !== null) { callback(error, ''); return }
      const faults = addresses.map(({ address }) => addressFault(address, rules)).filter(fault => fault !== undefined)
      const [first] = addresses
      if (faults.length > 0 || first === undefined) callback(new ForbiddenAddressError(`${hostname}: ${faults[0] ?? 'no address'}`), '')
      else if ((options as LookupOptions).all === true) callback(null, addresses)
      else callback(null, first.address, first.family)
    })
  }
}
