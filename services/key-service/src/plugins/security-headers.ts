import helmet from '@fastify/helmet'
import fp from 'fastify-plugin'

/** Two years, as the preload lists want it; not for subdomains, which are not ours to speak for. */
const strictTransportSecurity = 'max-age=63072000'

/** Everything comes from here, nothing is inline, and no other page may frame this one. */
const contentSecurityPolicy = {
  'default-src': ["'none'"],
  'script-src': ["'self'"],
  'style-src': ["'self'"],
  'img-src': ["'self'"],
  'connect-src': ["'self'"],
  'font-src': ["'none'"],
  'base-uri': ["'none'"],
  'form-action': ["'self'"],
  'frame-ancestors': ["'none'"]
}

/**
 * swagger-ui styles its elements inline and shows its icons as data URLs. Its scripts are files of ours: those stay as strict as
 * everywhere. Its default policy would also send everyone to https, which there may be none of.
 */
export const documentPagePolicy = Object.entries({ ...contentSecurityPolicy, 'style-src': ["'self'", "'unsafe-inline'"], 'img-src': ["'self'", 'data:'] })
  .map(([directive, sources]) => `${directive} ${sources.join(' ')}`).join(';')

/**
 * What a browser must not do with our answers, on every answer, refusals and 404s included. There is no CORS header anywhere:
 * pages of other origins read nothing here.
 */
export const securityHeaders = fp(async app => {
  await app.register(helmet, {
    contentSecurityPolicy: { useDefaults: false, directives: contentSecurityPolicy },
    crossOriginOpenerPolicy: { policy: 'same-origin' },
    crossOriginResourcePolicy: { policy: 'same-origin' },
    referrerPolicy: { policy: 'no-referrer' },
    xFrameOptions: { action: 'deny' },
    strictTransportSecurity: false // over http browsers ignore it, and here it depends on the request
  })
  app.addHook('onRequest', async (request, reply) => {
    if (request.protocol === 'https') reply.header('strict-transport-security', strictTransportSecurity)
  })
}, { name: 'security-headers' })

/** For the scope that registers it: no answer may be kept by a browser or a cache on the way. */
export const neverStored = fp(async app => {
  app.addHook('onRequest', async (_request, reply) => { reply.header('cache-control', 'no-store') })
}, { name: 'never-stored' })
