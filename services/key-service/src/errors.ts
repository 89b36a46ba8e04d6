import { ProblemError, type FieldError } from '@keygate/service-kit'

/** The answer is the same for no token, a wrong one, an expired one and a session that is over: which there are is nobody's business. */
export function unauthenticated (): ProblemError {
  return new ProblemError({ status: 401, code: 'unauthenticated', detail: 'Sign in, or send a valid service token: "Authorization: Bearer kgs_...". An API key opens nothing here.' }, { 'www-authenticate': 'Bearer' })
}

/** @param grantedBy who can mend it, as a sentence. */
export function forbidden (permission: string, grantedBy: string): ProblemError {
  return new ProblemError({ status: 403, code: 'forbidden', detail: `You lack the permission ${permission} here. ${grantedBy}` })
}

export function onlyForPeople (): ProblemError {
  return new ProblemError({ status: 403, code: 'not_a_person', detail: 'Only a person who is signed in can do this; a service token has no session and no password.' })
}

/** @param reason why this caller cannot pass it on. */
export function cannotGrant (pointer: string, reason: string): ProblemError {
  return new ProblemError({ status: 403, code: 'cannot_grant', detail: `${pointer} ${reason}.`, errors: [{ pointer, message: reason }] })
}

export function crossSite (): ProblemError {
  return new ProblemError({ status: 403, code: 'cross_site', detail: 'This request did not come from our own pages. A program sends "Origin" with the address of this service, or uses a service token.' })
}

export function insecureTransport (): ProblemError {
  return new ProblemError({ status: 403, code: 'insecure_transport', detail: 'Passwords and sessions travel over https alone. Open the https address; if a proxy ends TLS before this service, put its address into KEYGATE_TRUST_PROXY and let it send X-Forwarded-Proto. On this machine itself http://localhost will do.' })
}

/** The same whether there is such a person, and whether the person has a password. */
export function signInFailed (): ProblemError {
  return new ProblemError({ status: 401, code: 'sign_in_failed', detail: 'E-mail or password is wrong.' }, { 'www-authenticate': 'Bearer' })
}

export function wrongPassword (pointer: string): ProblemError {
  return new ProblemError({ status: 403, code: 'wrong_password', detail: 'The password is wrong.', errors: [{ pointer, message: 'is not your password' }] })
}

export function confirmationRequired (): ProblemError {
  return new ProblemError({ status: 403, code: 'confirmation_required', detail: 'Give your password again first (POST /v1/me/confirm); a confirmation is good for 10 minutes.' })
}

/** @param waitMs after which one more guess may be made. */
export function tooManyGuesses (waitMs: number): ProblemError {
  const seconds = Math.ceil(waitMs / 1000)
  return new ProblemError({ status: 429, code: 'too_many_attempts', detail: `Too many wrong attempts from this address. Wait ${seconds} s, or ask for a new link.` }, { 'retry-after': String(seconds) })
}

export function busy (): ProblemError {
  return new ProblemError({ status: 503, code: 'busy', detail: 'Too many people sign in at this moment. Try again.' }, { 'retry-after': '2' })
}

/** The same for a link that never was, was used, was replaced, or is too old. */
export function linkNotValid (): ProblemError {
  return new ProblemError({ status: 422, code: 'link_not_valid', detail: 'This link does not work (any more). Ask whoever gave it to you for a new one.', errors: [{ pointer: '/token', message: 'is not of a link that works' }] })
}

export function memberNotFound (): ProblemError {
  return new ProblemError({ status: 404, code: 'member_not_found', detail: 'There is no such member in this project.' })
}

export function operatorNotFound (): ProblemError {
  return new ProblemError({ status: 404, code: 'operator_not_found', detail: 'There is no such operator.' })
}

export function tokenNotFound (): ProblemError {
  return new ProblemError({ status: 404, code: 'token_not_found', detail: 'There is no such service token.' })
}

/** Also for a project that the caller may not see: who asks learns nothing about other projects. */
export function projectNotFound (): ProblemError {
  return new ProblemError({ status: 404, code: 'project_not_found', detail: 'There is no such project.' })
}

/** Also for a key of another project, and for a key in a project that does not exist. */
export function keyNotFound (): ProblemError {
  return new ProblemError({ status: 404, code: 'key_not_found', detail: 'There is no such key in this project.' })
}

/** Also for a role of another project. */
export function roleNotFound (): ProblemError {
  return new ProblemError({ status: 404, code: 'role_not_found', detail: 'There is no such role in this project.' })
}

export function invalidPrecondition (): ProblemError {
  return new ProblemError({ status: 400, code: 'invalid_precondition', detail: 'If-Match must be an ETag in quotes as an earlier answer gave it, such as If-Match: "3", a list of them, or *.', errors: [{ pointer: '/if-match', message: 'must be an ETag in quotes, a list of them, or *' }] })
}

export function preconditionRequired (): ProblemError {
  return new ProblemError({ status: 428, code: 'precondition_required', detail: 'Send If-Match with the ETag of what you have read, such as If-Match: "3": then nothing is overwritten that you have not seen. If-Match: * overwrites whatever is there.', errors: [{ pointer: '/if-match', message: 'is required' }] })
}

/** @param etag of what there is now. */
export function versionConflict (etag: string): ProblemError {
  return new ProblemError({ status: 412, code: 'version_conflict', detail: `Somebody was faster: this is version ${etag} now, and nothing was changed. Read it again, then send If-Match: ${etag} with what is still wanted.` }, { etag })
}

/** @param errors the fields that stand in the way, if it is not the state of things alone. */
export function conflict (code: string, detail: string, errors?: FieldError[]): ProblemError {
  return new ProblemError({ status: 409, code, detail, ...errors !== undefined && { errors } })
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

/** Another replica has a pepper that this one lacks: what is not found here may be there. Never `unknown`, which would refuse a right secret. */
export function pepperMissing (): ProblemError {
  return new ProblemError({ status: 503, code: 'pepper_missing', detail: 'This replica lacks a pepper that secrets are stored under. Add it to KEYGATE_PREVIOUS_PEPPERS, start the replica again, then try again.' }, { 'retry-after': '1' })
}
