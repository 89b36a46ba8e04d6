/* global __ENV, open */
/** @import { Key } from './lib/types.ts' */
import exec from 'k6/execution'
import http from 'k6/http'
import { Counter } from 'k6/metrics'
import { tools } from './lib/k6-tools.js'
import { createKey, deleteKey } from './lib/keys.js'
import { readPlan, readSettings } from './lib/settings.js'
import { oneCall, thresholds, waitAndRetry } from './lib/shared-limit.js'

const settings = readSettings(__ENV, () => open(__ENV['KEYGATE_LOCAL'] ?? '../.keygate/local.json'))
const plan = readPlan(__ENV)

const counters = {
  admitted: new Counter('keygate_admitted'),
  limited: new Counter('keygate_limited'),
  other: new Counter('keygate_other')
}

export const options = {
  scenarios: {
    calls: {
      executor: 'constant-arrival-rate',
      rate: plan.ratePerSecond,
      timeUnit: '1s',
      duration: `${plan.durationSeconds}s`,
      preAllocatedVUs: 20,
      maxVUs: 100
    }
  },
  // The end waits for the window to pass.
  teardownTimeout: `${plan.windowSeconds + 30}s`,
  thresholds: { ...thresholds(plan), http_req_failed: ['rate==0'] }
}

// A 429 is what three of four calls must get.
http.setResponseCallback(http.expectedStatuses(200, 201, 204, 429))

export async function setup () {
  return await createKey(tools, settings, 'k6 shared-limit', { limit: plan.limit, windowSeconds: plan.windowSeconds })
}

/** @param {Key} key */
export default async function (key) {
  const outcome = await oneCall(tools, settings, plan, key, exec.scenario.iterationInTest)
  // Zeros too: k6 judges no threshold of a metric that has no sample.
  for (const [name, counter] of Object.entries(counters)) counter.add(name === outcome ? 1 : 0)
}

/** @param {Key} key */
export async function teardown (key) {
  await waitAndRetry(tools, settings, plan, key)
  await deleteKey(tools, settings, key)
}
