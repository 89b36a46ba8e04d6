import { STATUS_CODES, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { explainValidation, type FieldError } from './validation.ts'

/** What a problem says beside its status; `code` is the stable name that programs compare. */
export interface Problem {
  status: number
  code: string
  detail: string
  type?: string
  errors?: FieldError[]
  'violated-policies'?: string[]
}

/** An error that carries its own problem and headers: thrown anywhere, answered here. */
export class ProblemError extends Error {
  readonly problem: Problem
  readonly headers: Record<string, string>
  readonly statusCode: number
  constructor (problem: Problem, headers: Record<string, string> = {}, options?: ErrorOptions) {
    super(problem.detail, options)
    this.name = 'ProblemError'
    this.problem = problem
    this.headers = headers
    this.statusCode = problem.status
  }
}

/** The RFC 9457 body. `instance` names the request, not its path: answers to different paths can be the same to the byte. */
export function problemBody (problem: Problem, requestId: string): object {
  const { status, code, detail, type, ...members } = problem
  return {
    type: type ?? `urn:keygate:problem:${code}`,
    title: STATUS_CODES[status] ?? 'Error',
    status,
    detail,
    instance: `urn:keygate:request:${requestId}`,
    code,
    requestId,
    ...members
  }
}

/** Answers a problem; the only place that writes an error's body. As bytes, because Fastify adds a charset to JSON text, and this type has none. */
export function sendProblem (request: FastifyRequest, reply: FastifyReply, problem: Problem): FastifyReply {
  return reply.code(problem.status).type('application/problem+json').header('cache-control', 'no-store').send(Buffer.from(JSON.stringify(problemBody(problem, request.id))))
}

export interface ProblemOptions {
  /** Recognises errors that mean "a part we need is away": answered 503 with `Retry-After: 1`, cause logged. */
  isUnavailable?: (error: Error) => boolean
  /** What bodies may be, which a 415 names. */
  mediaTypes?: string[]
  /** Answers what no route matches; by default `notFound`. */
  onNotFound?: (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply>
}

/** The plugin that turns every error into a problem: a client's fault keeps its text, ours is logged and told in general words. */
export const problem = fp<ProblemOptions>(async (app, { isUnavailable = () => false, mediaTypes = [], onNotFound = async (request, reply) => await sendProblem(request, reply, notFound) }) => {
  app.setErrorHandler<FastifyError | ProblemError>((error, request, reply) => {
    if (error instanceof ProblemError) {
      if (error.statusCode >= 500) request.log.warn({ err: error.cause instanceof Error ? error.cause : error }, error.problem.code)
      return sendProblem(request, reply.headers(error.headers), error.problem)
    }
    if (isUnavailable(error)) {
      request.log.warn({ err: error }, 'a part is away')
      return sendProblem(request, reply.header('retry-after', '1'), { status: 503, code: 'unavailable', detail: 'A part of the service is away. Try again.' })
    }
    const found = fromFastify(error, request)
    return sendProblem(request, reply, error.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE' && mediaTypes.length > 0 ? { ...found, detail: `The body must be ${mediaTypes.join(' or ')}. Say so in the header Content-Type.` } : found)
  })
  app.setNotFoundHandler(onNotFound)
}, { name: 'problem' })

/** What the router answers when it knows no such route. */
export const notFound: Problem = { status: 404, code: 'not_found', detail: 'There is nothing at this address. Check the method and the path.' }

function fromFastify (error: FastifyError, request: FastifyRequest): Problem {
  if (error.validationContext === 'params') return notFound // an id that cannot exist is answered like one that does not
  if (error.validation !== undefined) {
    const { status, errors } = explainValidation(error.validation)
    return { status, code: 'invalid_request', detail: `The ${error.validationContext ?? 'request'} is not acceptable: ${errors.map(e => `${e.pointer === '' ? 'it' : e.pointer} ${e.message}`).join('; ')}.`, errors }
  }
  const status = error.statusCode ?? 500
  if (status < 500) return { status, code: codeOf(error), detail: error.message }
  request.log.error({ err: error }, 'unexpected error')
  return { status: 500, code: 'internal_error', detail: 'Something went wrong on our side. The request id finds it in our log.' }
}

/** For Fastify's `frameworkErrors`: what fails before any route, such as a path with a broken escape. */
export function answerFrameworkError (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  sendProblem(request, reply, fromFastify(error, request))
}

const parserFaults: Record<string, { status: number, detail: string }> = {
  HPE_HEADER_OVERFLOW: { status: 431, detail: 'The headers are too large.' },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, detail: 'The request did not arrive in time.' }
}

/**
 * For Fastify's `clientErrorHandler`: bytes that are not HTTP have no request to answer, so the answer is written by hand. Behind a whole
 * request they wait until that has its answer, since answers go in order; into one that has begun nothing is written.
 */
export function answerClientError (error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return
  const answer = (socket as Socket & { _httpMessage?: ServerResponse | null })._httpMessage // as Node's own handler asks
  if (answer?.req.complete === true) {
    answer.once('finish', () => { setImmediate(answerClientError, error, socket) })
    return
  }
  if (answer?.headersSent === true) {
    if (answer.writableEnded) socket.destroySoon()
    else socket.destroy()
    return
  }
  const { status, detail } = parserFaults[error.code ?? ''] ?? { status: 400, detail: 'This is not a well-formed HTTP request.' }
  answerByHand(socket, { status, code: 'malformed_request', detail })
}

/** For a server's 'connect': CONNECT asks for a tunnel, and comes with a bare socket instead of an answer to write. */
export function answerConnect (socket: Socket): void {
  socket.on('error', () => {}) // the client may be gone already
  answerByHand(socket, { status: 405, code: 'method_not_allowed', detail: 'There are no tunnels here. Send the request itself.' }, 'Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n')
}

function answerByHand (socket: Socket, problem: Problem, headers = ''): void {
  const { status } = problem
  const body = JSON.stringify(problemBody(problem, 'none'))
  if (socket.writable) socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nContent-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}Connection: close\r\n\r\n${body}`)
  socket.destroySoon()
}

/** Fastify's own codes in our spelling: `FST_ERR_CTP_INVALID_JSON_BODY` -> `invalid_json_body`. */
function codeOf (error: FastifyError): string {
  return (error.code ?? 'bad_request').replace(/^FST_(ERR_)?(CTP_)?/, '').toLowerCase()
}
