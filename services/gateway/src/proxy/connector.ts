import type { Socket } from 'node:net'
import { buildConnector } from 'undici'
import { guardedLookup, type AddressRules } from './addresses.ts'

export interface ConnectorOptions extends AddressRules {
  /** Deadline of a connection, milliseconds. */
  timeoutMs: number
}

/** Connects to upstreams, where they may be. */
export function upstreamConnector ({ timeoutMs, ...rules }: ConnectorOptions): buildConnector.connector {
  const connect = buildConnector({ timeout: timeoutMs, lookup: guardedLookup(rules) })
  return (options, callback) => {
    connect(options, (...result) => {
      const [, socket] = result
      ;(socket as Socket | null | undefined)?.prependListener('error', nameReset)
      callback(...result)
    })
  }
}

/**
 * undici takes a reset (ECONNRESET) for the regular end of a body that the end of its connection ends: for half of an answer to be taken
 * for all of it. It also fails what waits for a connection that was reset while nothing was sent on it. Under undici's own name it does neither.
 */
function nameReset (error: NodeJS.ErrnoException): void {
  if (error.code === 'ECONNRESET') error.code = 'UND_ERR_SOCKET'
}
