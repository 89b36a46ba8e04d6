import { ProblemError } from '@keygate/service-kit'
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { contextOf } from '../plugins/authentication.ts'
import { text } from '../schemas.ts'
import { digestOf, fingerprintOf } from './fingerprint.ts'
import { parseIdempotencyKey } from './header.ts'
import type { Ask } from './once.ts'

export const IdempotencyHeaders = Type.Object({
  'idempotency-key': Type.Optional(text(16_384, {
    description: '1 to 255 visible ASCII characters, new for each new request. Sent again with the same request it gets the first answer again, for 24 hours; its secret for 15 minutes',
    examples: ['8e03978e-40d5-43e8-bc93-6894a57f9324']
  }))
})

/**
 * What a request says of itself, so that it can be told from others and known again. Undefined: it bears no Idempotency-Key.
 *
 * @param status of the answer when it is done.
 * @throws {ProblemError} 400 for a header that is no key.
 */
export function askOf (request: FastifyRequest, status: number): Ask | undefined {
  const header = request.headers['idempotency-key']
  if (header === undefined) return undefined
  const parsed = parseIdempotencyKey(String(header))
  if ('fault' in parsed) throw invalidKey(parsed.fault)
  const { method, body, routeOptions: { url: route = '', schema } } = request
  const params = request.params as { projectId: string }
  const projectId = params.projectId.toLowerCase()
  const context = contextOf(request)
  return {
    digest: digestOf({ caller: context.actor, operation: (schema as { operationId: string }).operationId, projectId, key: parsed.key }),
    fingerprint: fingerprintOf({ method, route, params: { ...params, projectId }, body }),
    status,
    context
  }
}

function invalidKey (message: string): ProblemError {
  return new ProblemError({ status: 400, code: 'invalid_idempotency_key', detail: `The header Idempotency-Key ${message}.`, errors: [{ pointer: '/idempotency-key', message }] })
}
