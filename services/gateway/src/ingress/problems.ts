import { ProblemError } from '@keygate/service-kit'
import { methods } from '../routing/table.ts'

/** The methods that are let in, as the field `Allow` lists them. */
export const allowed = methods.join(', ')

export function bad (code: string, detail: string): ProblemError {
  return new ProblemError({ status: 400, code, detail })
}

/** Where two readers may see the request end in two places, the connection ends with the answer (RFC 9112 section 6.1). */
export function doubt (code: string, detail: string): ProblemError {
  return new ProblemError({ status: 400, code, detail }, { connection: 'close' })
}

/** What is answered to a method that nothing here has. */
export function methodFault (): ProblemError {
  return new ProblemError({ status: 405, code: 'method_not_allowed', detail: `The method is none of ${allowed}.` }, { allow: allowed })
}

/** Whoever sends more ahead sends it again on another connection (RFC 9112 section 9.3.2). */
export function tooManyPipelined (): ProblemError {
  return new ProblemError({ status: 503, code: 'too_many_pipelined', detail: 'Too many requests of this connection wait for the answers before theirs. Send the rest again.' }, { connection: 'close', 'retry-after': '1' })
}
