/** How requests are counted. `limit` per `windowSeconds`, apart for each value of `partition`. */
export interface Policy {
  name: string
  limit: number
  windowSeconds: number
  /** `sliding`: the exact log (default everywhere). `fixed`: a window that the first request opens; up to 2 x limit - 1 around its edge. */
  algorithm: 'sliding' | 'fixed'
  partition: 'key' | 'project' | 'address'
  /** Without Redis: count this replica's share in memory (`local`, the default), admit uncounted (`open`) or refuse (`closed`). */
  whenStoreIsDown?: 'local' | 'open' | 'closed' | undefined
}

/** The longest log a sliding policy may keep; above it a single call could stall Redis. */
export const maximumSlidingLimit = 100_000

/**
 * Says what is wrong with a policy's numbers, or nothing.
 * A wrong number must fail at start: a limiter that ran with a text for its window would limit nothing.
 */
export function policyFault (policy: Policy): string | undefined {
  if (!Number.isSafeInteger(policy.limit) || policy.limit < 1) return `limit of policy "${policy.name}" must be a whole number of 1 or more, but is ${JSON.stringify(policy.limit)}`
  if (!Number.isSafeInteger(policy.windowSeconds) || policy.windowSeconds < 1) return `windowSeconds of policy "${policy.name}" must be a whole number of 1 or more, but is ${JSON.stringify(policy.windowSeconds)}`
  if (policy.algorithm === 'sliding' && policy.limit > maximumSlidingLimit) return `limit of policy "${policy.name}" is above ${maximumSlidingLimit}, the most for algorithm sliding; use algorithm: fixed`
  return undefined
}
