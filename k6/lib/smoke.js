/** @import { Policy, Settings, Tools } from './types.ts' */
import { basic, call, header } from './calls.js'
import { admittedChecks, rateLimitOf, unauthorizedChecks } from './checks.js'
import { createKey, deleteKey } from './keys.js'

/** @type {Policy} */
const policy = { limit: 20, windowSeconds: 60 }

/**
 * Once along the whole path: no key, a new key by Basic and by header through every gateway, one count, and the end of the key.
 *
 * @param {Tools} tools
 * @param {Settings} settings
 */
export async function smoke (tools, settings) {
  for (const gateway of settings.gateways) {
    tools.check(await call(tools, settings, gateway, {}), unauthorizedChecks)
  }
  const key = await createKey(tools, settings, 'k6 smoke', policy)
  const ways = [basic(tools, settings, key), header(key)]
  let remaining = policy.limit
  for (const gateway of settings.gateways) {
    for (const credentials of ways) {
      remaining--
      const left = remaining
      tools.check(await call(tools, settings, gateway, credentials), {
        ...admittedChecks(policy, settings),
        ...!settings.alone && { 'the gateways count together': answer => rateLimitOf(answer)?.remaining === left }
      })
    }
  }
  await deleteKey(tools, settings, key)
  // Without Redis nobody tells the gateway; it promises to know within a second.
  if (settings.alone) await tools.sleep(1)
  for (const gateway of settings.gateways) {
    for (const credentials of ways) tools.check(await call(tools, settings, gateway, credentials), unauthorizedChecks)
  }
}
