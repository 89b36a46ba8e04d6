import type { IncomingHttpHeaders } from 'node:http'
import type { Api, Cors } from '@keygate/api-catalog'

/** What a page of another origin may read of the gateway's own fields, beside those that it always may. */
export const exposedHeaders = 'RateLimit, RateLimit-Policy, Retry-After'

/** A browser asks whether a page of another origin may send a request (Fetch Standard, CORS-preflight request). It brings no credentials. */
export function isPreflight (method: string, headers: IncomingHttpHeaders): boolean {
  return method === 'OPTIONS' && headers.origin !== undefined && headers['access-control-request-method'] !== undefined
}

/** The fields by which the gateway lets a page of another origin read an answer; none unless the API says so for that origin. */
export function corsHeaders (cors: Api['cors'], origin: string | undefined): Record<string, string> {
  if (cors === 'forward') return {}
  const allowed = allowedOrigin(cors, origin)
  return {
    ...(!cors.origins.includes('*') && { vary: 'Origin' }),
    ...(allowed !== null && { 'access-control-allow-origin': allowed, 'access-control-expose-headers': [exposedHeaders, ...cors.exposedHeaders].join(', ') })
  }
}

/** The answer to a preflight: which methods the path has, and which headers a request may bring, our keys' among them. */
export function preflightHeaders (cors: Cors, api: Api, methods: readonly string[], origin: string | undefined): Record<string, string> {
  const headers = corsHeaders(cors, origin)
  if (allowedOrigin(cors, origin) === null) return headers
  const names = new Set([...api.carriers.map(carrier => carrier.kind === 'header' ? carrier.name : 'authorization'), 'authorization', 'content-type', ...cors.headers.map(name => name.toLowerCase())])
  return {
    ...headers,
    'access-control-allow-methods': methods.join(', '),
    'access-control-allow-headers': [...names].join(', '),
    'access-control-max-age': String(cors.maxAgeSeconds)
  }
}

function allowedOrigin ({ origins }: Cors, origin: string | undefined): string | null {
  if (origin === undefined) return null
  if (origins.includes('*')) return '*'
  return origins.includes(origin) ? origin : null
}
