import { ProblemError } from '@keygate/service-kit'
import fp from 'fastify-plugin'

/** What bodies may be. */
export const mediaTypes = ['application/json', 'application/merge-patch+json']

/**
 * Bodies are JSON (also as `application/merge-patch+json`, RFC 7396), which is UTF-8 (RFC 8259), or absent; anything else is 415,
 * compressed bodies among them: what small bytes unpack to has no bound.
 *
 * An empty body counts as absent even when a Content-Type announces JSON, as many clients do on POST and DELETE. A route whose
 * settings all have defaults gets the empty object then; one that needs a body answers 400.
 */
export const bodyParsers = fp(async app => {
  const json = app.getDefaultJsonParser('error', 'error')
  app.removeAllContentTypeParsers()
  app.addContentTypeParser<Buffer>(mediaTypes, { parseAs: 'buffer' }, (request, body, done) => {
    const text = decode(body)
    if (!isPlain(request.headers['content-encoding'] ?? '')) done(encoded())
    else if (!isUtf8(request.headers['content-type'] ?? '')) done(otherCharset())
    else if (text === undefined) done(invalidJson('The body is not UTF-8. Encode it as that.'))
    else if (text === '') done(null, undefined)
    else json(request, text, (error, value) => { done(error !== null && isJson(text) ? invalidJson(forbiddenNames) : error, value) })
  })
  app.addHook('preValidation', async request => {
    if (request.body === undefined && request.routeOptions.config.bodyIsOptional === true) request.body = {}
  })
}, { name: 'body-parsers' })

/** What the default parser refuses although it is JSON: names that change what an object is made of. */
const forbiddenNames = 'The body has a field "__proto__", or a "constructor" with a "prototype". No field has such a name; remove it.'

function invalidJson (detail: string): ProblemError {
  return new ProblemError({ status: 400, code: 'invalid_json_body', detail })
}

/** RFC 9110 section 15.5.16: the answer says which codings would do. */
function encoded (): ProblemError {
  return new ProblemError({ status: 415, code: 'invalid_content_encoding', detail: 'The body has a Content-Encoding, and bodies are read as they come. Send it as plain JSON, without that header.' }, { 'accept-encoding': 'identity' })
}

function otherCharset (): ProblemError {
  return new ProblemError({ status: 415, code: 'invalid_media_type', detail: 'JSON is UTF-8. Send it as that, without a charset or with charset=utf-8.' })
}

/** `identity` is the one coding that does nothing. */
function isPlain (contentEncoding: string): boolean {
  return contentEncoding.split(',').every(coding => ['', 'identity'].includes(coding.trim().toLowerCase()))
}

function isUtf8 (contentType: string): boolean {
  return [...contentType.matchAll(/;\s*charset\s*=\s*"?([^";\s]*)/gi)].every(([, charset]) => /^utf-?8$/i.test(charset ?? ''))
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Undefined when the bytes are no text. A Buffer's own decoding would put U+FFFD in place of what it cannot read. */
function decode (bytes: Buffer): string | undefined {
  try {
    return utf8.decode(bytes)
  } catch {
    return undefined
  }
}

function isJson (text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** No body means the empty object. */
    bodyIsOptional?: boolean
  }
}
