import type { FastifyReply, FastifyRequest } from 'fastify'
import { insecureTransport } from '../errors.ts'
import { transportOf } from './transport.ts'

/** Browsers take `__Host-` only with Secure, Path=/ and no Domain: no other host and no page in clear can set or overwrite it. */
const names = { https: '__Host-keygate_session', loopback: 'keygate_session' }

const attributes = { path: '/', httpOnly: true, sameSite: 'strict' } as const

/** What the session's cookie holds, if it may have come this way. */
export function sessionCookieOf (request: FastifyRequest): string | undefined {
  const transport = transportOf(request)
  return transport === 'insecure' ? undefined : request.cookies[names[transport]]
}

/** @throws {ProblemError} 403: over this way no session is begun, nor a password taken. */
export function requireSafeTransport (request: FastifyRequest): keyof typeof names {
  const transport = transportOf(request)
  if (transport === 'insecure') throw insecureTransport()
  return transport
}

export function setSessionCookie (request: FastifyRequest, reply: FastifyReply, id: string): void {
  const transport = requireSafeTransport(request)
  reply.setCookie(names[transport], id, { ...attributes, secure: transport === 'https' })
}

export function clearSessionCookie (request: FastifyRequest, reply: FastifyReply): void {
  const transport = requireSafeTransport(request)
  reply.clearCookie(names[transport], { ...attributes, secure: transport === 'https' })
}
