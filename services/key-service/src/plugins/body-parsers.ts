import fp from 'fastify-plugin'

/**
 * Bodies are JSON (also as `application/merge-patch+json`, RFC 7396) or absent; anything else is 415.
 *
 * An empty body counts as absent even when a Content-Type announces JSON, as many clients do on POST and DELETE. A route whose
 * settings all have defaults gets the empty object then; one that needs a body answers 400.
 */
export const bodyParsers = fp(async app => {
  const json = app.getDefaultJsonParser('error', 'error')
  app.removeAllContentTypeParsers()
  app.addContentTypeParser<string>(['application/json', 'application/merge-patch+json'], { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined)
    else json(request, body, done)
  })
  app.addHook('preValidation', async request => {
    if (request.body === undefined && request.routeOptions.config.bodyIsOptional === true) request.body = {}
  })
}, { name: 'body-parsers' })

declare module 'fastify' {
  interface FastifyContextConfig {
    /** No body means the empty object. */
    bodyIsOptional?: boolean
  }
}
