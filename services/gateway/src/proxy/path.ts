import type { FastifyRequest } from 'fastify'

/**
 * The path for the upstream, written anew from the template that matched and the parameters that were checked: what was judged
 * is what is sent. The query goes on as it came.
 */
export function upstreamPath (base: string, template: string, request: Pick<FastifyRequest, 'params' | 'url'>): string {
  const parameters = request.params as Record<string, string>
  const path = template.replace(/\{([^}]+)\}/g, (_, name: string) => encodeURIComponent(parameters[name] ?? ''))
  const query = request.url.indexOf('?')
  return base.replace(/\/$/, '') + path + (query === -1 ? '' : request.url.slice(query))
}
