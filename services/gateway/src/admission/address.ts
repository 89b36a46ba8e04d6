import { SocketAddress, isIPv4, isIPv6 } from 'node:net'

/**
 * A client's address in one spelling, as it is compared, counted and told to the upstream. `::ffff:192.0.2.1` is 192.0.2.1 (RFC 4291 section
 * 2.5.5.2): a dual-stack socket shows IPv4 clients so. Some proxies write `192.0.2.1:4711` or `[2001:db8::1]:4711` (RFC 7239 section 6); a zone
 * (RFC 4007 section 11) means something on one machine only. What is no address stays as it is: `isIP` tells.
 */
export function canonicalAddress (address: string): string {
  if (isIPv4(address)) return address
  const bare = /^\[([^\]]*)\](?::\d+)?$/.exec(address)?.[1] ?? /^([\d.]+):\d+$/.exec(address)?.[1] ?? address
  const zoneless = bare.replace(/%.*$/, '')
  if (isIPv4(zoneless)) return zoneless
  // Node's spelling (RFC 5952): ipaddr.js would take `::192.0.2.1`, which is another address, for 192.0.2.1.
  return isIPv6(zoneless) ? new SocketAddress({ address: zoneless, family: 'ipv6' }).address.replace(/^::ffff:(?=\d+\.)/, '') : address
}
