import { METHODS } from 'node:http'
import { ProblemError } from '@keygate/service-kit'
import fp from 'fastify-plugin'

const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** RFC 9112 section 3.2 and RFC 3986 section 3.2.2: a name, an IPv4 or a bracketed IPv6, and a port; no user, path or list. */
const hostPattern = /^(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/

/**
 * Spellings of a path that two readers may read differently: dot segments, empty segments, an encoded slash or backslash, NUL.
 * Refused, so that what is checked and what the upstream sees can never be two things.
 */
const ambiguousPath = /\/\/|\\|%2f|%5c|%00|(?:^|\/)(?:\.|%2e){1,2}(?:\/|$)/i

/** Step 0: what is not plainly one HTTP request to one place is refused before anything else looks at it. */
export const ingress = fp(async app => {
  for (const method of METHODS) {
    if (!app.supportedMethods.includes(method) && !['CONNECT', 'QUERY'].includes(method)) app.addHttpMethod(method)
  }

  app.addHook('onRequest', async request => {
    const { raw } = request
    if (!methods.has(request.method)) {
      throw new ProblemError({ status: 405, code: 'method_not_allowed', detail: `The method is none of ${[...methods].join(', ')}.` }, { allow: [...methods].join(', ') })
    }
    const hosts = raw.rawHeaders.filter((_, i) => i % 2 === 0).filter(name => name.toLowerCase() === 'host').length
    if (hosts !== 1 || !hostPattern.test(raw.headers.host ?? '')) throw bad('invalid_host', 'Send exactly one Host header with a name or address and at most a port.')
    // RFC 9112 section 6.1: another coding, or one on HTTP/1.0, is how two readers are made to disagree about where a body ends.
    const coding = raw.headers['transfer-encoding']
    if (coding !== undefined && (coding.toLowerCase() !== 'chunked' || raw.httpVersion !== '1.1')) throw bad('invalid_transfer_encoding', 'Send the body with Content-Length, or over HTTP/1.1 with Transfer-Encoding: chunked and nothing else.')
    const path = (raw.url ?? '').split('?', 1)[0] ?? ''
    if (!path.startsWith('/')) throw bad('invalid_target', 'Send the path of the operation as the request\'s target, beginning with a slash.')
    if (ambiguousPath.test(path)) throw bad('ambiguous_path', 'The path has dot segments, empty segments or an encoded slash. Send it in its plain form.')
  })
}, { name: 'ingress' })

function bad (code: string, detail: string): ProblemError {
  return new ProblemError({ status: 400, code, detail })
}
