import { createHash } from 'node:crypto'

/** W3C Trace Context section 3.2: version 00, with neither id all zeroes. */
const valid = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

/**
 * The trace that a request belongs to: the client's if it brings a valid one (`continues`, then its `tracestate` stands as well), else
 * one that begins here, not sampled, whose id is the request's: so a log line and a trace find each other.
 */
export function traceparentOf (given: unknown, requestId: string): { traceparent: string, continues: boolean } {
  if (typeof given === 'string' && valid.test(given)) return { traceparent: given, continues: true }
  const id = uuid.test(requestId)
    ? requestId.slice(0, 8) + requestId.slice(9, 13) + requestId.slice(14, 18) + requestId.slice(19, 23) + requestId.slice(24)
    : createHash('sha256').update(requestId).digest('hex').slice(0, 32)
  return { traceparent: `00-${id}-${id.slice(8, 24)}-00`, continues: false }
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/
