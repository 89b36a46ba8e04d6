import type { FastifyRequest } from 'fastify'

export type IsSameSite = (request: FastifyRequest) => boolean

const safeMethods = new Set(['GET', 'HEAD', 'OPTIONS'])

/**
 * A page of another site must not act with our cookie (GX-23). Browsers say where a request comes from: `Sec-Fetch-Site`, and those
 * that do not know it, `Origin`. A request with neither is refused: it is not known to be ours.
 *
 * `same-site` is refused too: another host of the same domain is not ours either.
 *
 * @param publicUrl where people reach this service, if its proxy does not pass on the Host that they asked for.
 */
export function createSameSiteCheck (publicUrl: string | undefined): IsSameSite {
  const publicOrigin = publicUrl === undefined ? undefined : new URL(publicUrl).origin
  return request => {
    const { 'sec-fetch-site': site, origin } = request.headers
    if (safeMethods.has(request.method)) return true
    const own = [`${request.protocol}://${request.host}`, publicOrigin]
    return site === undefined ? origin !== undefined && own.includes(origin) : site === 'same-origin' || site === 'none'
  }
}
