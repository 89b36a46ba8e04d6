/** @import { Key, Outcome, Plan, Settings, Tools } from './types.ts' */
import { basic, call } from './calls.js'
import { admittedChecks, limitedChecks } from './checks.js'

/**
 * What must hold after the run, in k6's own words; the Node runner reads them too.
 *
 * @param {Plan} plan
 * @returns {Record<string, string[]>}
 */
export function thresholds ({ limit }) {
  return {
    keygate_admitted: [`count==${limit}`],
    keygate_limited: ['count>0'],
    keygate_other: ['count==0'],
    checks: ['rate==1']
  }
}

/**
 * One call; the calls of a run take the gateways in turn.
 *
 * @param {Tools} tools
 * @param {Settings} settings
 * @param {Plan} plan
 * @param {Key} key
 * @param {number} index which call of the run this is
 * @returns {Promise<Outcome>}
 */
export async function oneCall (tools, settings, plan, key, index) {
  const answer = await call(tools, settings, gatewayOf(settings, index), basic(tools, settings, key))
  if (answer.status === 200) {
    tools.check(answer, admittedChecks(plan, settings))
    return 'admitted'
  }
  if (answer.status === 429) {
    tools.check(answer, limitedChecks(plan, settings))
    return 'limited'
  }
  return 'other'
}

/**
 * After the run the key is at its limit: waiting as long as `Retry-After` says must be enough, on the other gateway too.
 *
 * @param {Tools} tools
 * @param {Settings} settings
 * @param {Plan} plan
 * @param {Key} key
 */
export async function waitAndRetry (tools, settings, plan, key) {
  const credentials = basic(tools, settings, key)
  const refused = await call(tools, settings, gatewayOf(settings, 0), credentials)
  if (!tools.check(refused, limitedChecks(plan, settings))) return
  await tools.sleep(Number(refused.headers['retry-after']))
  const again = await call(tools, settings, gatewayOf(settings, 1), credentials)
  tools.check(again, { 'waiting Retry-After is enough': answer => answer.status === 200 })
}

/**
 * @param {Settings} settings
 * @param {number} index
 */
function gatewayOf ({ gateways }, index) {
  return /** @type {string} */ (gateways[index % gateways.length])
}
