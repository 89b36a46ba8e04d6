import type { Policy } from './policy.ts'

/** The limiter's answer for one policy. */
export interface PolicyDecision {
  policy: Policy
  remaining: number
  /**
   * Until the oldest counted request leaves the window, in milliseconds: 1 to the window's length, and up to twice that while a
   * clock that stepped back has not caught up.
   */
  resetMs: number
  /** Until this request could be admitted, in milliseconds; 0 unless this policy denied it, -1 if it costs more than the limit. */
  retryAfterMs: number
}

/** The limiter's answer for a request under all its policies. `policy`, `remaining` and `resetMs` are of the one to show. */
export interface Decision extends PolicyDecision {
  outcome: 'admitted' | 'limited'
  /** The store's clock (Redis's) at the decision, Unix milliseconds: usage is booked in this minute. */
  nowMs: number
  policies: PolicyDecision[]
}

/**
 * Chooses what to show of several policies: the one with the lowest remaining (draft-7 section 4: MUST), among equals the one
 * that resets last. `retryAfterMs` is the longest of those that denied; one that can never admit (-1) wins.
 */
export function combine (outcome: Decision['outcome'], nowMs: number, policies: PolicyDecision[]): Decision {
  const [first, ...rest] = policies
  if (first === undefined) throw new RangeError('a decision needs at least one policy')
  const shown = rest.reduce((a, b) => b.remaining < a.remaining || (b.remaining === a.remaining && b.resetMs > a.resetMs) ? b : a, first)
  const retryAfterMs = policies.some(p => p.retryAfterMs === -1) ? -1 : Math.max(...policies.map(p => p.retryAfterMs))
  return { outcome, nowMs, policies, policy: shown.policy, remaining: shown.remaining, resetMs: shown.resetMs, retryAfterMs }
}

/** Names of the policies that denied, for a problem's `violated-policies`. */
export function violatedPolicies (decision: Decision): string[] {
  return decision.policies.filter(p => p.retryAfterMs !== 0).map(p => p.policy.name)
}
