import { isIP } from 'node:net'
import { ConfigError, loadConfig, type Environment } from '@keygate/service-kit'
import { Type, type Static } from 'typebox'

/** Everything that may be configured; the names are the variables' names. */
const Variables = Type.Object({
  KEYGATE_HOST: Type.String({ default: '127.0.0.1', description: 'address to listen on' }),
  KEYGATE_PORT: Type.Integer({ default: 8080, minimum: 0, maximum: 65535, description: 'port to listen on, 0 for a free one' }),
  KEYGATE_METRICS_PORT: Type.Optional(Type.Integer({ minimum: 0, maximum: 65535, description: 'port of /metrics, 0 for a free one; not set: no metrics' })),
  KEYGATE_APIS: Type.String({ minLength: 1, description: 'path of apis.yaml, the catalogue of APIs behind this gateway' }),
  KEYGATE_KEY_SERVICE_URL: Type.String({ pattern: '^https?://[^/]+/?$', description: 'where key-service answers, such as http://127.0.0.1:8082' }),
  KEYGATE_SERVICE_TOKEN: Type.String({ minLength: 16, secret: true, description: 'service token with the permission keys:verify' }),
  KEYGATE_KEY_PREFIX: Type.String({ default: 'kg', pattern: '^[a-z][a-z0-9]{1,15}$', description: 'prefix of issued secrets, 2 to 16 lower-case letters or digits, the same as key-service\'s' }),
  KEYGATE_REALM: Type.String({ default: 'Keygate', pattern: '^[\\x20\\x21\\x23-\\x5b\\x5d-\\x7e]+$', description: 'realm of the Basic challenge' }),
  KEYGATE_RECORD_TTL_SECONDS: Type.Integer({ default: 60, minimum: 1, maximum: 3600, description: 'a record is asked again after so many seconds' }),
  KEYGATE_REFUSALS_LIMIT: Type.Integer({ default: 100, minimum: 1, maximum: 100_000, description: 'refusals per address and minute before they answer 429' }),
  KEYGATE_VERIFY_TIMEOUT_MS: Type.Integer({ default: 1000, minimum: 10, maximum: 30_000, description: 'deadline of a call to key-service' }),
  KEYGATE_UPSTREAM_TIMEOUT_MS: Type.Integer({ default: 30_000, minimum: 10, maximum: 600_000, description: 'deadline for an upstream\'s headers, and between two parts of its body' }),
  KEYGATE_TRUST_PROXY: Type.String({ default: '', description: 'addresses or CIDRs of proxies whose X-Forwarded-For is believed, separated by commas' }),
  REDIS_URL: Type.String({ pattern: '^rediss?://', secret: true, description: 'the Redis that all gateways share, such as redis://127.0.0.1:6379' }),
  LOG_LEVEL: Type.Union(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'].map(level => Type.Literal(level)), { default: 'info', description: 'one of trace, debug, info, warn, error, fatal, silent' })
})

export type Config = Readonly<Static<typeof Variables>> & { trustProxy: string[] }

/** @throws {ConfigError} with all faults at once. */
export function readConfig (env: Environment): { config: Config, warnings: string[] } {
  const { config, warnings } = loadConfig(Variables, env)
  const trustProxy = config.KEYGATE_TRUST_PROXY.split(',').map(part => part.trim()).filter(part => part !== '')
  const wrong = trustProxy.filter(part => isIP(part.replace(/\/\d{1,3}$/, '')) === 0)
  if (wrong.length > 0) throw new ConfigError([`KEYGATE_TRUST_PROXY has ${wrong.join(', ')}: give addresses or CIDRs such as 10.0.0.0/8, separated by commas`])
  return { config: { ...config, trustProxy }, warnings }
}
