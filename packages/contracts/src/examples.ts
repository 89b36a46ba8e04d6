import type { ChangesPage } from './changes.ts'
import type { UsageBatch } from './usage.ts'
import type { KeyRecord, VerificationOutcome, VerificationRequest } from './verification.ts'

const projectId = '5f1c2c1e-8a55-4b1e-9d6b-0d1f4c8b2a10'

const record: KeyRecord = {
  projectId,
  keyId: 'key_9fK2mQ4xT7aB1cD3eF5gH6',
  keyVersion: 3,
  projectVersion: 1,
  status: 'active',
  scopes: ['submissions'],
  allowedForAll: false,
  allowedHosts: ['192.0.2.0/24', '2001:db8::1'],
  notAfterMs: 1_801_440_000_000,
  policies: { owner: 'key', list: [{ name: 'default', limit: 20, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }] },
  logging: { all: null, scopes: { submissions: '2027-01-31T00:00:00Z', files: 'forever' } },
  secretId: 'sec_2nB8vR1yL6pW3sJ9kZ5uC4',
  secretState: 'current',
  secretNotAfterMs: null,
  secretRetiredAtMs: null
}

/** The same key seen through the secret that a rotation is replacing. */
const retiring: KeyRecord = {
  ...record,
  secretId: 'sec_7cD5eF3gH1iJ9kL8mN6oP4',
  secretState: 'retiring',
  secretNotAfterMs: 1_796_083_200_000,
  secretRetiredAtMs: 1_795_478_400_000
}

const [hour, minute] = [494_322, 29_659_320]
const of = { projectId, keyId: record.keyId }
const where = { api: 'forms', operation: 'listSubmissions', scope: 'submissions' }
const who = { secretId: record.secretId, address: '192.0.2.7', client: 'curl/8.5.0' }

const usage: UsageBatch = {
  version: 1,
  bootId: 'V3Jk0pZq8sT1uW2x',
  seq: 41,
  atMs: 1_779_559_212_345,
  replica: 'gateway-1',
  lines: [{ projectId, hour, admitted: 21, finished: 20, unanswered: 0 }],
  incarnations: [{ projectId, incarnation: 'q83vEjRWeJASNFZ4kBI0Vg', minute }],
  keys: [{
    ...of,
    secrets: [{ secretId: record.secretId, lastUsedMs: 1_779_559_212_001 }],
    sums: [{ ...where, minute, admitted: 20, limited: 5, refused: 0, upstreamErrors: 1, admittedLocally: 0 }],
    callers: [{ ...who, lastSeenMs: 1_779_559_212_001, counts: [{ hour, count: 25 }] }]
  }],
  rows: [{ ...of, ...where, ...who, atMs: 1_779_559_212_001, requestId: '01JX8Q5D8N', method: 'GET', outcome: 'upstream_error', code: null, status: 502, ms: 12, bytes: 187 }]
}

/** One valid example of each body, used by both services' tests and by the API document. */
export const examples = {
  verificationRequest: { digest: 'LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564', projectId } satisfies VerificationRequest,
  found: { outcome: 'found', record, cursor: '741' } satisfies VerificationOutcome,
  foundRetiring: { outcome: 'found', record: retiring, cursor: '741' } satisfies VerificationOutcome,
  unknown: { outcome: 'unknown', cursor: '741' } satisfies VerificationOutcome,
  changes: { data: [{ projectId, keyId: record.keyId, version: 3 }, { projectId, keyId: '*', version: 2 }], cursor: '742' } satisfies ChangesPage,
  usage
}
