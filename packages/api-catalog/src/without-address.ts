import { isObject } from './source.ts'

export interface Addresses {
  upstream: string
  /** What stands there instead: the public address, or only its path. */
  url: string
}

/** A copy of a JSON value in which no text and no name of a member names the upstream, in whatever way a URL can be written. */
export function withoutAddress (value: unknown, addresses: Addresses): unknown {
  const clean = cleaner(addresses)
  const copy = (value: unknown): unknown => {
    if (typeof value === 'string') return clean(value)
    if (Array.isArray(value)) return value.map(copy)
    return isObject(value) ? copyMembers(value) : value
  }
  const copyMembers = (value: Record<string, unknown>): object => {
    const copied = new Map<string, unknown>()
    for (const [name, member] of Object.entries(value)) copied.set(free(clean(name), copied), copy(member))
    return Object.fromEntries(copied)
  }
  return copy(value)
}

/** Two members that were apart stay so. */
function free (wanted: string, taken: ReadonlyMap<string, unknown>): string {
  let name = wanted
  for (let i = 2; taken.has(name); i++) name = `${wanted}_${i}`
  return name
}

/**
 * Takes an address out of a text: with http, https or `//` before it; with its port, which may be left out where it is the scheme's own; or the host
 * alone, if it has a dot or colon, since `backend` may as well be a word. What follows the upstream's path stays behind the public address.
 */
function cleaner ({ upstream, url }: Addresses): (text: string) => string {
  const { hostname, port, pathname } = new URL(upstream)
  const isPublic = URL.canParse(url)
  const [root, host] = isPublic ? [new URL(url).origin, new URL(url).host] : ['', 'localhost']
  const isOwn = isPublic && new URL(url).hostname === hostname
  const anyPort = port === '' ? '(?::(?:80|443))?' : `:${port}`
  const forms = [
    `(?:https?:)?//${escape(hostname)}${anyPort}`,
    // Behind a word it is the end of another name.
    `${notBehindName}${escape(hostname)}:${port === '' ? '(?:80|443)' : port}`,
    ...(/[.:]/.test(hostname) && port === '' && !isOwn ? [`(?<bare>${notBehindName}${escape(hostname)})`] : [])
  ]
  const path = pathname.replace(/\/$/, '')
  const pattern = new RegExp(`(?:${forms.join('|')})(?![\\w-]|\\.\\w|:\\d)(?<path>${escape(path)}(?![\\w-]|\\.\\w))?`, 'gi')
  return text => text.replace(pattern, (found: string, ...rest: unknown[]) => {
    const { bare, path: itsPath } = rest.at(-1) as { bare?: string, path?: string }
    if (bare !== undefined) return host + (itsPath ?? '')
    if (itsPath === undefined && path !== '') return root
    // `/` and what follows it: one slash.
    return url.endsWith('/') && String(rest.at(-2)).startsWith('/', Number(rest.at(-3)) + found.length) ? url.slice(0, -1) : url
  })
}

/** At the beginning of a name of a host: `%2F` is a slash. */
const notBehindName = '(?:(?<![\\w.@-])|(?<=%[0-9a-f]{2}))'

function escape (text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
}
