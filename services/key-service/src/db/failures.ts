import { DrizzleQueryError } from 'drizzle-orm'

/** What a client of PostgreSQL meets when the server, or the way to it, is away. */
const lostConnection = new Set([
  'NO_ANSWER', 'CONNECT_TIMEOUT', 'CONNECTION_CLOSED', 'CONNECTION_ENDED', 'CONNECTION_DESTROYED',
  'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'
])

/** SQLSTATE classes that say "not now": connection, resources, operator intervention (also statement_timeout), system. */
const classesOfTrouble = new Set(['08', '53', '57', '58'])
/** Single states: read-only (a replica was reached), idle in transaction too long, lock_timeout. */
const statesOfTrouble = new Set(['25006', '25P03', '55P03'])
/** Two transactions got in each other's way, and this one was rolled back: the same work may simply be done again. */
const statesToRepeat = new Set(['40001', '40P01'])

/**
 * The driver's own error out of drizzle's wrapping.
 *
 * `DrizzleQueryError.message` holds the statement with its parameters, digests among them: it must reach neither a log nor an answer.
 */
export function unwrap (error: unknown): unknown {
  return error instanceof DrizzleQueryError ? error.cause ?? new Error('a query failed') : error
}

/** True when the database cannot answer at present: 503, never 500. */
export function isUnavailable (error: Error): boolean {
  const code = codeOf(error)
  return lostConnection.has(code) || (isSqlState(code) && (classesOfTrouble.has(code.slice(0, 2)) || statesOfTrouble.has(code))) || statesToRepeat.has(code)
}

/** True when the connection that it came over is of no more use, or will not be in a moment. */
export function endsConnection (error: unknown): boolean {
  return error instanceof Error && (lostConnection.has(codeOf(error)) || ['FATAL', 'PANIC'].includes((error as { severity?: string }).severity ?? ''))
}

export function connectionLost (): Error {
  return Object.assign(new Error('the connection was lost in the middle of the work'), { code: 'CONNECTION_CLOSED' })
}

export function noAnswer (ms: number): Error {
  return Object.assign(new Error(`PostgreSQL did not answer in ${ms} ms`), { code: 'NO_ANSWER' })
}

export function isRepeatable (error: unknown): boolean {
  return error instanceof Error && (statesToRepeat.has(codeOf(error)) || isOutdatedPlan(error))
}

/** The schema has changed under a prepared statement. The driver has let go of it: the next time it is prepared anew. */
function isOutdatedPlan (error: Error): boolean {
  return codeOf(error) === '0A000' && (error as { routine?: string }).routine === 'RevalidateCachedQuery'
}

/** Login, password or database are wrong: waiting does not mend that. */
export function isRefusal (error: Error): boolean {
  return ['28P01', '28000', '3D000'].includes(codeOf(error))
}

export function codeOf (error: Error): string {
  const { code } = error as { code?: unknown }
  return typeof code === 'string' ? code : ''
}

function isSqlState (code: string): boolean {
  return /^[0-9A-Z]{5}$/.test(code)
}
