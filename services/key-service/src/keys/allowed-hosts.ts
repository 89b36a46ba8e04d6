import { isIPv4, isIPv6 } from 'node:net'

const mappedPrefix = 0xffffn << 32n

/**
 * The one spelling of an address or CIDR: IPv6 as in RFC 5952, IPv4-mapped IPv6 as IPv4, bits behind the prefix cleared, a full
 * prefix left out. So `::FFFF:192.0.2.1`, `192.0.2.1/32` and `192.0.2.1` are the same entry.
 *
 * @returns undefined for whatever else: names, wildcards, ports, zones, empty text.
 */
export function canonicalHost (text: string): string | undefined {
  const [, address = '', prefixText] = /^([0-9a-fA-F:.]+)(?:\/(0|[1-9]\d{0,2}))?$/.exec(text) ?? []
  const width = isIPv4(address) ? 32 : isIPv6(address) ? 128 : undefined
  if (width === undefined) return undefined
  const prefix = prefixText === undefined ? width : Number(prefixText)
  if (prefix > width) return undefined
  const bits = width === 32 ? bitsOfIPv4(address) : bitsOfIPv6(address)
  if (width === 128 && prefix >= 96 && bits >> 32n === mappedPrefix >> 32n) return format(bits & 0xffff_ffffn, prefix - 96, 32)
  return format(bits, prefix, width)
}

function format (bits: bigint, prefix: number, width: 32 | 128): string {
  const free = BigInt(width - prefix)
  const network = (bits >> free) << free
  const address = width === 32 ? textOfIPv4(network) : textOfIPv6(network)
  return prefix === width ? address : `${address}/${prefix}`
}

function bitsOfIPv4 (address: string): bigint {
  return address.split('.').reduce((bits, octet) => (bits << 8n) | BigInt(octet), 0n)
}

function bitsOfIPv6 (address: string): bigint {
  // The URL parser writes every spelling as at most eight hexadecimal groups, the longest run of zeros as "::".
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const groups = (text: string) => text === '' ? [] : text.split(':')
  const [before, after] = [groups(head), groups(tail ?? '')]
  const zeros = Array<string>(8 - before.length - after.length).fill('0')
  return [...before, ...zeros, ...after].reduce((bits, group) => (bits << 16n) | BigInt(`0x${group}`), 0n)
}

function textOfIPv4 (bits: bigint): string {
  return [24n, 16n, 8n, 0n].map(shift => (bits >> shift) & 0xffn).join('.')
}

function textOfIPv6 (bits: bigint): string {
  const groups = Array.from({ length: 8 }, (_, i) => ((bits >> BigInt(112 - 16 * i)) & 0xffffn).toString(16)).join(':')
  return new URL(`http://[${groups}]`).hostname.slice(1, -1)
}
