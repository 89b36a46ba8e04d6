import { isIPv4 } from 'node:net'
import type { FastifyRequest } from 'fastify'

/**
 * How a request came. `loopback`: in clear, but it never left this machine, as in development. `insecure`: in clear over a network,
 * where a password or a session could be read.
 */
export type Transport = 'https' | 'loopback' | 'insecure'

/** A proxy that is not trusted may stand between: then the socket's address and Host are its own, and say nothing of the person's way here. */
const signsOfAProxy = ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip']

export function transportOf (request: Pick<FastifyRequest, 'protocol' | 'headers' | 'socket'>): Transport {
  if (request.protocol === 'https') return 'https'
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
