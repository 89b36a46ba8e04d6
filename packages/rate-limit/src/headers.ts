import type { Decision, PolicyDecision } from './decision.ts'

/**
 * RateLimit fields as draft-ietf-httpapi-ratelimit-headers-07 writes them, number for number as seed 001 prints them:
 *
 *   RateLimit-Policy: 20;w=60
 *   RateLimit: limit=20, remaining=19, reset=60
 *   Retry-After: 13             (only when denied)
 *
 * Seconds are rounded up, so that a client which waits them is never early.
 */
export function draft7Headers (decision: Decision): Record<string, string> {
  const { policy, remaining, resetMs } = decision
  const headers: Record<string, string> = {
    'ratelimit-policy': quotaPolicies(decision).map(p => `${p.policy.limit};w=${p.policy.windowSeconds}`).join(', '),
    ratelimit: `limit=${policy.limit}, remaining=${remaining}, reset=${wholeSeconds(resetMs)}`
  }
  if (decision.outcome === 'limited' && decision.retryAfterMs > 0) headers['retry-after'] = String(wholeSeconds(decision.retryAfterMs))
  return headers
}

/** Milliseconds as the seconds of a header: whole, rounded up, at least 1. */
export function wholeSeconds (ms: number): number {
  return Math.max(1, Math.ceil(ms / 1000))
}

/** The policies to list, the shown one among them: two with equal quotas MUST NOT stand in one list (draft-7 section 4). */
function quotaPolicies (decision: Decision): PolicyDecision[] {
  const byLimit = new Map<number, PolicyDecision>()
  for (const p of decision.policies) {
    if (!byLimit.has(p.policy.limit) || p.policy === decision.policy) byLimit.set(p.policy.limit, p)
  }
  return [...byLimit.values()]
}
