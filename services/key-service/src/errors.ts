import { ProblemError, type FieldError } from '@keygate/service-kit'

/** The answer is the same for no token, a wrong one and an expired one: which tokens exist is nobody's business. */
export function unauthenticated (): ProblemError {
  return new ProblemError({ status: 401, code: 'unauthenticated', detail: 'Send a valid service token: "Authorization: Bearer kgs_...".' }, { 'www-authenticate': 'Bearer' })
}

export function forbidden (permission: string): ProblemError {
  return new ProblemError({ status: 403, code: 'forbidden', detail: `This token lacks the permission ${permission}.` })
}

export function boundTokenMakesNoProject (): ProblemError {
  return new ProblemError({ status: 403, code: 'forbidden', detail: 'This token is bound to one project and cannot create another.' })
}

/** Also for a project that the caller may not see: who asks learns nothing about other projects. */
export function projectNotFound (): ProblemError {
  return new ProblemError({ status: 404, code: 'project_not_found', detail: 'There is no such project.' })
}

/** Also for a key of another project, and for a key in a project that does not exist. */
export function keyNotFound (): ProblemError {
  return new ProblemError({ status: 404, code: 'key_not_found', detail: 'There is no such key in this project.' })
}

export function conflict (code: string, detail: string): ProblemError {
  return new ProblemError({ status: 409, code, detail })
}

export function cursorTooOld (): ProblemError {
  return new ProblemError({ status: 410, code: 'cursor_too_old', detail: 'Changes since this cursor are no longer kept. Forget what was derived from older answers and start from a new cursor.' })
}

export function invalidCursor (): ProblemError {
  return new ProblemError({ status: 400, code: 'invalid_cursor', detail: 'The cursor is not one of this list in this order. Start again without it.', errors: [{ pointer: '/cursor', message: 'is not a cursor of this list' }] })
}

/** A request that is well-formed and still cannot be accepted, with all its faults at once. */
export function unacceptable (errors: FieldError[]): ProblemError {
  return new ProblemError({ status: 422, code: 'invalid_request', detail: `The request is not acceptable: ${errors.map(({ pointer, message }) => `${pointer} ${message}`).join('; ')}.`, errors })
}
