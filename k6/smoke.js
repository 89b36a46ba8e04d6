/* global __ENV, open */
import http from 'k6/http'
import { tools } from './lib/k6-tools.js'
import { readSettings } from './lib/settings.js'
import { smoke } from './lib/smoke.js'

const settings = readSettings(__ENV, () => open(__ENV['KEYGATE_LOCAL'] ?? '../.keygate/local.json'))

export const options = {
  vus: 1,
  iterations: 1,
  thresholds: { checks: ['rate==1'], http_req_failed: ['rate==0'] }
}

// A 401 is what some steps ask for.
http.setResponseCallback(http.expectedStatuses(200, 201, 204, 401))

export default async function () {
  await smoke(tools, settings)
}
