import type { IncomingMessage } from 'node:http'
import type { ProblemError } from '@keygate/service-kit'
import { bad } from './problems.ts'

/**
 * Spellings of a path that two readers may read differently: dot segments, also with a parameter (`..;x`, which servlet containers take for
 * `..`), empty segments, an encoded slash or backslash, NUL, and characters that no path has (RFC 3986 section 3.3): a fragment, a space, a
 * byte that is not ASCII.
 * Refused, so that what is checked and what the upstream sees can never be two things.
 */
const ambiguousPath = /\/\/|%2f|%5c|%00|(?:^|\/)(?:\.|%2e){1,2}(?:\/|;|%3b|$)|[^!$-;=@-Z_a-z~]/i

/** A query that has a fragment behind it, or what the parser should not have let in: of two readers one would cut it off. */
const ambiguousQuery = /[^!"$-~]/

/** Stands for a path whose escapes cannot be read, such as `%zz` or `%ff`: refused as `ambiguous_path`. */
const unreadable = '/%00'

/** What is wrong with a request's target: a path and query in plain form. */
export function targetFault (url: string): ProblemError | null {
  const query = url.indexOf('?')
  const path = query === -1 ? url : url.slice(0, query)
  if (path.charCodeAt(0) !== 0x2f) return bad('invalid_target', 'Send the path of the operation as the request\'s target, beginning with a slash.')
  if (ambiguousPath.test(path)) return bad('ambiguous_path', 'The path has dot segments, empty segments, an encoded slash, a broken escape or a character that must be percent-encoded. Send it in its plain form.')
  if (query !== -1 && ambiguousQuery.test(url.slice(query))) return bad('ambiguous_query', 'The query has a fragment or a character that must be percent-encoded. Send it in its plain form.')
  return null
}

/**
 * The target of a request in absolute form (RFC 9112 section 3.2.2) as the path that it names, if it names the host that `Host` does; any other
 * stays as it is and is refused. A path that cannot be decoded is replaced: the router would answer it before any rule of the protocol is looked at.
 */
export function originForm (request: Pick<IncomingMessage, 'url' | 'headers'>): string {
  const url = relative(request)
  return url.includes('%') && !isReadable(url) ? unreadable : url
}

function isReadable (url: string): boolean {
  const query = url.indexOf('?')
  try {
    decodeURIComponent(query === -1 ? url : url.slice(0, query))
    return true
  } catch {
    return false
  }
}

function relative ({ url = '', headers: { host = '' } }: Pick<IncomingMessage, 'url' | 'headers'>): string {
  if (url.charCodeAt(0) === 0x2f) return url
  const [, authority, rest = ''] = /^https?:\/\/([^/?#]*)(.*)$/i.exec(url) ?? []
  return authority !== undefined && authority.toLowerCase() === host.toLowerCase() ? (rest.startsWith('/') ? rest : `/${rest}`) : url
}
