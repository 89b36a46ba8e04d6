import type { IncomingMessage } from 'node:http'
import { isIPv6 } from 'node:net'
import type { ProblemError } from '@keygate/service-kit'
import { methods } from '../routing/table.ts'
import { bad, doubt, methodFault } from './problems.ts'
import { targetFault } from './target.ts'

const isMethod = new Set<string>(methods)

/** RFC 9112 section 3.2 and RFC 3986 section 3.2.2: a name, an IPv4 or a bracketed IPv6, and a port; no user, path or list. */
const hostPattern = /^(?:[A-Za-z0-9._~-]+|\[([0-9A-Fa-f:.]+)\])(?::(\d{1,5}))?$/

export interface IngressOptions {
  /** What becomes of a header with `_` in its name, which CGI-like servers read as `-`: it does not go on, or the request is refused. */
  underscores: 'drop' | 'refuse'
}

/** What is wrong with a request as HTTP, whatever it asks for. */
export function faultOf (raw: IncomingMessage, underscores: IngressOptions['underscores']): ProblemError | null {
  if (!isMethod.has(raw.method ?? '')) return methodFault()
  // HTTP/0.9 has no headers and no status; nothing that is said here could be said to it.
  if (raw.httpVersion !== '1.1' && raw.httpVersion !== '1.0') return doubt('invalid_version', 'Send the request as HTTP/1.1.')
  let hosts = 0
  for (let i = 0; i < raw.rawHeaders.length; i += 2) {
    const name = raw.rawHeaders[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++
    if (underscores === 'refuse' && name.includes('_')) return bad('invalid_header', 'A header\'s name has an underscore, which some servers read as a hyphen. Leave that header out.')
  }
  if (hosts !== 1 || !isHost(raw.headers.host ?? '')) return doubt('invalid_host', 'Send exactly one Host header with a name or address and at most a port.')
  // RFC 9112 section 6.1: another coding, or one on HTTP/1.0, is how two readers are made to disagree about where a body ends.
  const coding = raw.headers['transfer-encoding']
  if (coding !== undefined && (coding.toLowerCase() !== 'chunked' || raw.httpVersion !== '1.1')) return doubt('invalid_transfer_encoding', 'Send the body with Content-Length, or over HTTP/1.1 with Transfer-Encoding: chunked and nothing else.')
  return isAboutServer(raw) ? null : targetFault(raw.url ?? '')
}

/** RFC 9110 section 9.3.7: OPTIONS of `*` asks about the server itself. */
export function isAboutServer ({ method, url }: IncomingMessage): boolean {
  return method === 'OPTIONS' && url === '*'
}

function isHost (text: string): boolean {
  if (text === lastHost) return true
  const [host, address, port = '0'] = hostPattern.exec(text) ?? []
  if (host === undefined || (address !== undefined && !isIPv6(address)) || Number(port) > 65_535) return false
  lastHost = text
  return true
}

/** A gateway is mostly called by one name. */
let lastHost = 'localhost'
