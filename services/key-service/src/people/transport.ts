import { isIPv4 } from 'node:net'
import type { FastifyRequest } from 'fastify'

declare module 'fastify' {
  interface FastifyInstance {
    /** Whether people may come in clear, on this machine (`mayComeInClear`). */
    mayComeInClear: boolean
  }
}

/**
 * How a request came. `loopback`: in clear, but it never left this machine, as in development. `insecure`: in clear over a network,
 * where a password or a session could be read.
 */
export type Transport = 'https' | 'loopback' | 'insecure'

/** A proxy that is not trusted may stand between: then the socket's address and Host are its own, and say nothing of the person's way here. */
const signsOfAProxy = ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip']

/**
 * Whether a request in clear can be a person's own, on this machine. Never where people come over https or by another name: what comes
 * in clear there comes from a proxy, which need not say so.
 *
 * @param publicUrl where people reach this service, as configured.
 */
export function mayComeInClear (publicUrl: string | undefined): boolean {
  if (publicUrl === undefined) return true
  const { protocol, host } = new URL(publicUrl)
  return protocol === 'http:' && isLoopbackHost(host)
}

export function transportOf (request: Pick<FastifyRequest, 'protocol' | 'headers' | 'socket' | 'server'>): Transport {
  if (request.protocol === 'https') return 'https'
  if (!request.server.mayComeInClear) return 'insecure'
  const isDirect = signsOfAProxy.every(name => request.headers[name] === undefined)
  return isDirect && isLoopback(request.socket.remoteAddress ?? '') && isLoopbackHost(request.headers.host ?? '') ? 'loopback' : 'insecure'
}

function isLoopback (address: string): boolean {
  const plain = address.replace(/^::ffff:/i, '')
  return plain === '::1' || (isIPv4(plain) && plain.startsWith('127.'))
}

/** A name that others can point here would not do: a page of theirs would be our own site then. */
function isLoopbackHost (host: string): boolean {
  const name = host.replace(/:\d{1,5}$/, '').toLowerCase()
  return name === 'localhost' || (name === '[::1]') || (isIPv4(name) && name.startsWith('127.'))
}
