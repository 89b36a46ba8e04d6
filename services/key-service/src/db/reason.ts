import { codeOf } from './failures.ts'

/** What happened, in words for whoever reads a terminal or a log; the driver's own for what it loses are `write CONNECTION_CLOSED …`, Node's `read ECONNRESET`. */
export function reasonOf (error: Error): string {
  // A refused connection to a name with several addresses is an AggregateError whose own message is empty.
  if (error.message === '') return codeOf(error) || error.name
  return error.message
    .replace(/^write CONNECT_TIMEOUT (.+)$/, 'no answer from $1')
    .replace(/^write CONNECTION_\w+ (.+)$/, 'the connection to $1 was lost')
    .replace(/^(?:read|write) E[A-Z]+$/, 'the connection was lost')
}
