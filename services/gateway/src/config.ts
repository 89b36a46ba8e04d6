import { isIP } from 'node:net'
import { importForms, type ImportForm } from '@keygate/api-key'
import { cidrFault, loadConfig, urlFault, type Environment } from '@keygate/service-kit'
import { Type, type Static } from 'typebox'

/** Everything that may be configured; the names are the variables' names. */
export const Variables = Type.Object({
  KEYGATE_HOST: Type.String({ default: '127.0.0.1', description: 'address to listen on' }),
  KEYGATE_PORT: Type.Integer({ default: 8080, minimum: 0, maximum: 65535, description: 'port to listen on, 0 for a free one' }),
  KEYGATE_METRICS_PORT: Type.Optional(Type.Integer({ minimum: 0, maximum: 65535, description: 'port of /metrics, 0 for a free one; not set: no metrics' })),
  KEYGATE_APIS: Type.String({ minLength: 1, description: 'path of apis.yaml, the catalogue of APIs behind this gateway' }),
  KEYGATE_KEY_SERVICE_URL: Type.String({ description: 'where key-service answers, such as http://127.0.0.1:8082' }),
  KEYGATE_SERVICE_TOKEN: Type.String({ minLength: 16, secret: true, description: 'service token with the permission keys:verify' }),
  KEYGATE_KEY_PREFIX: Type.String({ default: 'kg', pattern: '^[a-z][a-z0-9]{1,15}$', description: 'prefix of issued secrets, 2 to 16 lower-case letters or digits, the same as key-service\'s' }),
  KEYGATE_IMPORT_FORMS: Type.String({ default: '', description: `forms of other systems' secrets that keys were imported with, separated by commas, the same as key-service's: ${importForms.join(', ')}` }),
  KEYGATE_REALM: Type.String({ default: 'Keygate', pattern: '^[\\x20\\x21\\x23-\\x5b\\x5d-\\x7e]+$', description: 'realm of the challenges of a 401' }),
  KEYGATE_RECORD_TTL_SECONDS: Type.Integer({ default: 60, minimum: 1, maximum: 3600, description: 'a record is asked again after so many seconds' }),
  KEYGATE_REFUSALS_LIMIT: Type.Integer({ default: 100, minimum: 1, maximum: 100_000, description: 'refusals per address and minute before they answer 429' }),
  KEYGATE_REDIS_TIMEOUT_MS: Type.Integer({ default: 100, minimum: 10, maximum: 30_000, description: 'deadline of a decision by Redis' }),
  KEYGATE_VERIFY_TIMEOUT_MS: Type.Integer({ default: 1000, minimum: 10, maximum: 30_000, description: 'deadline of a call to key-service' }),
  KEYGATE_UPSTREAM_CONNECT_TIMEOUT_MS: Type.Integer({ default: 2000, minimum: 10, maximum: 60_000, description: 'deadline of a connection to an upstream' }),
  KEYGATE_UPSTREAM_TIMEOUT_MS: Type.Integer({ default: 30_000, minimum: 10, maximum: 600_000, description: 'deadline for an upstream\'s headers' }),
  KEYGATE_UPSTREAM_IDLE_TIMEOUT_MS: Type.Integer({ default: 300_000, minimum: 10, maximum: 86_400_000, description: 'most time between two parts of a body, down or up, and until a client reads on' }),
  KEYGATE_UPSTREAM_CONNECTIONS: Type.Integer({ default: 256, minimum: 1, maximum: 65_535, description: 'most connections to one upstream' }),
  KEYGATE_UPSTREAM_QUEUE: Type.Integer({ default: 1024, minimum: 0, maximum: 1_000_000, description: 'most requests that wait for a connection to one upstream' }),
  KEYGATE_ALLOW_PRIVATE_UPSTREAM: Type.Boolean({ default: false, description: 'true lets upstreams be on this machine and in private networks' }),
  KEYGATE_REQUEST_TIMEOUT_MS: Type.Integer({ default: 300_000, minimum: 0, maximum: 86_400_000, description: 'deadline for a request with its whole body to arrive, 0 for none' }),
  KEYGATE_HEADERS_TIMEOUT_MS: Type.Integer({ default: 20_000, minimum: 100, maximum: 300_000, description: 'deadline for a request\'s headers to arrive' }),
  KEYGATE_STREAM_CHECK_MS: Type.Integer({ default: 10_000, minimum: 10, maximum: 3_600_000, description: 'a key is judged again so often while an answer to it is open' }),
  KEYGATE_DRAIN_DELAY_MS: Type.Integer({ default: 5000, minimum: 0, maximum: 600_000, description: 'how long after SIGTERM requests are still taken, while /readyz says that no more should come' }),
  KEYGATE_SHUTDOWN_TIMEOUT_MS: Type.Integer({ default: 25_000, minimum: 100, maximum: 3_600_000, description: 'when, counted from SIGTERM, what is still open is cut' }),
  KEYGATE_MAX_EVENT_LOOP_DELAY_MS: Type.Integer({ default: 1000, minimum: 0, maximum: 600_000, description: 'a gateway that is behind by more than this answers 503 to new requests, 0 for never' }),
  KEYGATE_UNDERSCORE_HEADERS: Type.Unsafe<'drop' | 'refuse'>({ type: 'string', enum: ['drop', 'refuse'], default: 'drop', description: 'what becomes of headers with an underscore in their name: drop or refuse' }),
  KEYGATE_REPLICAS: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, description: 'how many gateways share a limit while Redis is away; not set: as many as were seen in the last minute' })),
  KEYGATE_MAX_UNCONFIRMED: Type.Integer({ default: 300, minimum: 0, maximum: 86_400, description: 'seconds that a record goes on while neither Redis nor key-service answers, 0 to refuse' }),
  KEYGATE_TRUST_PROXY: Type.String({ default: '', description: 'addresses or CIDRs of proxies whose X-Forwarded-For is believed, separated by commas' }),
  REDIS_URL: Type.String({ secret: true, description: 'the Redis that all gateways share, such as redis://127.0.0.1:6379' }),
  KEYGATE_USAGE: Type.Boolean({ default: true, description: 'false records no usage: no sums, no log of requests, no last use' }),
  KEYGATE_USAGE_FLUSH_MS: Type.Integer({ default: 200, minimum: 10, maximum: 60_000, description: 'how often usage is sent on its way' }),
  KEYGATE_USAGE_STREAM_BYTES: Type.Integer({ default: 64 * 1024 * 1024, minimum: 1024 * 1024, maximum: 1024 ** 4, description: 'most memory of Redis that usage may take until key-service has it, and never more than an eighth of maxmemory' }),
  KEYGATE_USAGE_ADDRESSES: Type.Unsafe<'plain' | 'hashed'>({ type: 'string', enum: ['plain', 'hashed'], default: 'plain', description: 'how the addresses of callers are written down: plain, or hashed with a key made of KEYGATE_SERVICE_TOKEN' }),
  LOG_LEVEL: Type.Unsafe<string>({ type: 'string', enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], default: 'info', description: 'trace, debug, info, warn, error, fatal or silent' })
})

export type Config = Readonly<Static<typeof Variables>> & { trustProxy: string[], importForms: ImportForm[] }

/** @throws {ConfigError} with all faults at once. */
export function readConfig (env: Environment): { config: Config, warnings: string[] } {
  const { config, warnings } = loadConfig(Variables, env, faultsOf)
  return { config: { ...config, trustProxy: listOf(config.KEYGATE_TRUST_PROXY), importForms: listOf(config.KEYGATE_IMPORT_FORMS) as ImportForm[] }, warnings }
}

function listOf (text: string): string[] {
  return text.split(',').map(part => part.trim()).filter(part => part !== '')
}

/** What a schema cannot say. */
function faultsOf (values: Partial<Static<typeof Variables>>): string[] {
  const { REDIS_URL: redis, KEYGATE_KEY_SERVICE_URL: keyService, KEYGATE_TRUST_PROXY: proxies, KEYGATE_IMPORT_FORMS: forms, KEYGATE_SERVICE_TOKEN: token, KEYGATE_HOST: host } = values
  return [
    host === undefined ? undefined : hostFault(host),
    drainFault(values),
    redis === undefined ? undefined : urlFault('REDIS_URL', redis, ['redis', 'rediss']) ?? databaseFault(redis),
    keyService === undefined ? undefined : urlFault('KEYGATE_KEY_SERVICE_URL', keyService, ['http', 'https']),
    proxies === undefined ? undefined : cidrFault('KEYGATE_TRUST_PROXY', listOf(proxies)),
    forms === undefined ? undefined : formsFault(listOf(forms)),
    token === undefined || /^[\x21-\x7e]+$/.test(token) ? undefined : 'KEYGATE_SERVICE_TOKEN has a space, a line break or another character that no header can carry'
  ].filter(fault => fault !== undefined)
}

/** Any other text may be the name of a host; whether it is one is known when it is listened on. */
function hostFault (host: string): string | undefined {
  if (isIP(host) !== 0 || !/^[\d.]+$|[:[\]]/.test(host)) return undefined
  return `KEYGATE_HOST is ${JSON.stringify(host)}, which is no address: give one such as 127.0.0.1, 0.0.0.0 or ::1, without a port`
}

function drainFault ({ KEYGATE_DRAIN_DELAY_MS: delay, KEYGATE_SHUTDOWN_TIMEOUT_MS: timeout }: Partial<Static<typeof Variables>>): string | undefined {
  // What is no number is a fault of its own.
  if (typeof delay !== 'number' || typeof timeout !== 'number' || delay <= timeout) return undefined
  return `KEYGATE_DRAIN_DELAY_MS is ${delay} and KEYGATE_SHUTDOWN_TIMEOUT_MS is ${timeout}, so all would be cut while requests are still taken: set the first below the second`
}

function formsFault (forms: string[]): string | undefined {
  const unknown = forms.filter(form => !importForms.includes(form as ImportForm))
  return unknown.length === 0 ? undefined : `KEYGATE_IMPORT_FORMS names ${unknown.map(form => JSON.stringify(form)).join(', ')}; there is ${importForms.join(', ')}`
}

/** The driver asks for the database after it has connected, when nobody waits for the answer any more. */
function databaseFault (url: string): string | undefined {
  return /^\/?\d*$/.test(new URL(url).pathname) ? undefined : 'REDIS_URL may end with the number of a database, as in redis://host:6379/0, and with nothing else'
}
