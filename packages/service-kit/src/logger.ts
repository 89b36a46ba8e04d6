import type { FastifyRequest } from 'fastify'
import { stdSerializers, type LoggerOptions } from 'pino'

/** A request as the log may show it: never its query or headers, where credentials and personal data travel. */
function requestForLog (request: FastifyRequest): object {
  return { method: request.method, path: withoutSecrets(request.url.split('?', 1)[0] ?? ''), remoteAddress: request.ip }
}

/**
 * Who puts an API key, a service token, a session or a link's token into a path by mistake need not find it in the log as well. The last
 * two are 32 bytes as base64url, and nothing that belongs into a path looks like that: a digest of as many travels in bodies alone.
 */
function withoutSecrets (path: string): string {
  return path.replace(/([a-z][a-z0-9]{1,15}_)[0-9A-Za-z]{22}_[0-9A-Za-z]{6}/g, '$1…').replace(/(kgs_)[\w-]{20,}/g, '$1…').replace(/(?<![\w-])[\w-]{43}(?![\w-])/g, '…')
}

/** A driver's error may carry the statement and its parameters: only what it says of itself is kept. */
function errorForLog (error: Error): object {
  const { type, message, stack, code } = stdSerializers.err(error) as { type: string, message: string, stack: string, code?: unknown }
  const cause = error.cause instanceof Error ? { cause: errorForLog(error.cause) } : {}
  return { type, message, stack, ...(code === undefined ? {} : { code }), ...cause }
}

/** Pino's options for a service: JSON lines on stdout, readable lines only on a terminal. */
export function loggerOptions (service: string, level: string, isTerminal = false): LoggerOptions {
  return {
    level,
    base: { service, pid: process.pid },
    serializers: { req: requestForLog, err: errorForLog },
    redact: ['authorization', 'secret', 'token', '*.authorization', '*.secret', '*.token', 'headers', '*.headers'],
    ...(isTerminal ? { transport: { target: 'pino-pretty', options: { ignore: 'pid,service' } } } : {})
  }
}
