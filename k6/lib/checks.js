/** @import { Answer, Checks, Policy, Settings } from './types.ts' */

/**
 * The numbers of `RateLimit: limit=20, remaining=19, reset=60`; undefined when the header is not exactly that.
 *
 * @param {Answer} answer
 */
export function rateLimitOf (answer) {
  const match = /^limit=(\d+), remaining=(\d+), reset=(\d+)$/.exec(answer.headers['ratelimit'] ?? '')
  return match === null ? undefined : { limit: Number(match[1]), remaining: Number(match[2]), reset: Number(match[3]) }
}

/**
 * What every answer that passed the limiter says about the limit, admitted or not.
 *
 * @param {Policy} policy
 * @param {Settings} settings
 * @returns {Checks}
 */
function limitIsTold ({ limit, windowSeconds }, { alone }) {
  if (alone) return { 'a gateway that counts alone claims no shared count': ({ headers }) => headers['ratelimit'] === undefined && headers['ratelimit-policy'] === undefined }
  return {
    'RateLimit-Policy names the policy': answer => answer.headers['ratelimit-policy'] === `${limit};w=${windowSeconds}`,
    'RateLimit is within the policy': answer => {
      const told = rateLimitOf(answer)
      return told !== undefined && told.limit === limit && told.remaining < limit && told.reset >= 1 && told.reset <= windowSeconds
    }
  }
}

/**
 * @param {Policy} policy
 * @param {Settings} settings
 * @returns {Checks}
 */
export function admittedChecks (policy, settings) {
  return {
    'an admitted call is a 200': answer => answer.status === 200,
    ...limitIsTold(policy, settings),
    'an admitted call has no Retry-After': answer => answer.headers['retry-after'] === undefined
  }
}

/**
 * @param {Policy} policy
 * @param {Settings} settings
 * @returns {Checks}
 */
export function limitedChecks (policy, settings) {
  /** @type {Checks} */
  const wait = settings.alone
    ? { 'Retry-After is within the window': ({ headers }) => Number(headers['retry-after']) >= 1 && Number(headers['retry-after']) <= policy.windowSeconds }
    : {
        'nothing remains': answer => rateLimitOf(answer)?.remaining === 0,
        'Retry-After is the reset': answer => Number(answer.headers['retry-after']) === rateLimitOf(answer)?.reset
      }
  return {
    'a call over the limit is a 429': answer => answer.status === 429,
    ...limitIsTold(policy, settings),
    ...wait,
    'a 429 is a problem': answer => (answer.headers['content-type'] ?? '').startsWith('application/problem+json')
  }
}

/** @type {Checks} */
export const unauthorizedChecks = {
  'without a valid key it is a 401': answer => answer.status === 401,
  'a 401 asks for Basic': answer => /^Basic realm=/.test(answer.headers['www-authenticate'] ?? ''),
  'a 401 tells no limit': answer => answer.headers['ratelimit'] === undefined
}
