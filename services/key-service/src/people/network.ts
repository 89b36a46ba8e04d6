import { isIPv6 } from 'node:net'

/** What is counted as one address: an IPv6 address by its /64, which one customer commonly holds; IPv4 as it is, however it is written. */
export function networkOf (address: string): string {
  const plain = address.replace(/%.*$/, '')
  if (!isIPv6(plain)) return plain
  const mapped = /^(?:0*:)*:?ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(plain)?.[1]
  if (mapped !== undefined) return mapped
  const [head = '', tail] = plain.split('::', 2)
  const left = groupsOf(head)
  const right = groupsOf(tail ?? '')
  const filled = tail === undefined ? left : [...left, ...Array<string>(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right]
  return `${filled.slice(0, 4).map(group => Number.parseInt(group, 16).toString(16)).join(':')}::/64`
}

/** A dotted end stands for two groups, of which none is among the first four. */
function groupsOf (text: string): string[] {
  return text === '' ? [] : text.split(':').flatMap(group => group.includes('.') ? ['0', '0'] : [group])
}
