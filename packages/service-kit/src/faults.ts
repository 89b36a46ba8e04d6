import { isIP } from 'node:net'

/**
 * What is wrong with a setting that must be a URL, as a sentence that begins with its name; undefined: nothing.
 *
 * The value is never quoted, because it may hold a password. Drivers would quote it, and some read an escape only when they connect.
 *
 * @param protocols without `://`, such as `postgres`.
 */
export function urlFault (name: string, value: string, protocols: string[]): string | undefined {
  const parts = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/is.exec(value)
  const [, protocol = '', authority = '', rest = ''] = parts ?? []
  if (!protocols.includes(protocol.toLowerCase())) return `${name} must begin with ${protocols.map(known => `${known}://`).join(' or ')}`
  const [host = '', user = ''] = [authority.slice(authority.lastIndexOf('@') + 1), authority.slice(0, Math.max(0, authority.lastIndexOf('@')))]
  if (/^(?::\d*)?$/.test(host)) return `${name} names no host: write it as ${protocols[0]}://host:port`
  const port = /:(\d+)$/.exec(host)?.[1]
  if (port !== undefined && Number(port) > 65_535) return `${name} names the port ${port}: the highest there is is 65535`
  if (!isDecodable(user) || !isDecodable(rest)) return `${name} holds a % that begins no escape: write a % of the user or password as %25`
  return URL.canParse(value) ? undefined : `${name} is not a URL; encode special characters of its password (@ is %40, / is %2F)`
}

/** What is wrong with a setting that must be a list of addresses and CIDRs, all wrong ones in one sentence; undefined: nothing. */
export function cidrFault (name: string, parts: string[]): string | undefined {
  const wrong = parts.filter(part => !isCidr(part))
  return wrong.length === 0 ? undefined : `${name} has ${wrong.join(', ')}: give addresses or CIDRs such as 10.0.0.0/8, separated by commas`
}

function isDecodable (text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}

/** A prefix of no bits would be everybody, which whoever reads such a list refuses. */
function isCidr (text: string): boolean {
  const [address = '', bits, ...more] = text.split('/')
  const version = isIP(address)
  if (version === 0 || more.length > 0) return false
  return bits === undefined || (/^[1-9]\d{0,2}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
}
