import { importForms, type ImportForm } from '@keygate/api-key'
import { cidrFault, loadConfig, urlFault, type Environment } from '@keygate/service-kit'
import { Type, type Static } from 'typebox'

/** Everything that may be configured; the names are the variables' names. */
const Variables = Type.Object({
  KEYGATE_HOST: Type.String({ default: '127.0.0.1', description: 'address to listen on' }),
  KEYGATE_PORT: Type.Integer({ default: 8080, minimum: 0, maximum: 65535, description: 'port to listen on, 0 for a free one' }),
  KEYGATE_METRICS_PORT: Type.Optional(Type.Integer({ minimum: 0, maximum: 65535, description: 'port of /metrics, 0 for a free one; not set: no metrics' })),
  KEYGATE_APIS: Type.String({ minLength: 1, description: 'path of apis.yaml, the catalogue of APIs behind this gateway' }),
  KEYGATE_KEY_SERVICE_URL: Type.String({ description: 'where key-service answers, such as http://127.0.0.1:8082' }),
  KEYGATE_SERVICE_TOKEN: Type.String({ minLength: 16, secret: true, description: 'service token with the permission keys:verify' }),
  KEYGATE_KEY_PREFIX: Type.String({ default: 'kg', pattern: '^[a-z][a-z0-9]{1,15}$', description: 'prefix of issued secrets, 2 to 16 lower-case letters or digits, the same as key-service\'s' }),
  KEYGATE_IMPORT_FORMS: Type.String({ default: '', description: `forms of other systems' secrets that keys were imported with, separated by commas, the same as key-service's: ${importForms.join(', ')}` }),
  KEYGATE_REALM: Type.String({ default: 'Keygate', pattern: '^[\\x20\\x21\\x23-\\x5b\\x5d-\\x7e]+$', description: 'realm of the Basic challenge' }),
  KEYGATE_RECORD_TTL_SECONDS: Type.Integer({ default: 60, minimum: 1, maximum: 3600, description: 'a record is asked again after so many seconds' }),
  KEYGATE_REFUSALS_LIMIT: Type.Integer({ default: 100, minimum: 1, maximum: 100_000, description: 'refusals per address and minute before they answer 429' }),
  KEYGATE_REDIS_TIMEOUT_MS: Type.Integer({ default: 100, minimum: 10, maximum: 30_000, description: 'deadline of a decision by Redis' }),
  KEYGATE_VERIFY_TIMEOUT_MS: Type.Integer({ default: 1000, minimum: 10, maximum: 30_000, description: 'deadline of a call to key-service' }),
  KEYGATE_UPSTREAM_TIMEOUT_MS: Type.Integer({ default: 30_000, minimum: 10, maximum: 600_000, description: 'deadline for an upstream\'s headers, and between two parts of its body' }),
  KEYGATE_REPLICAS: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, description: 'how many gateways share a limit while Redis is away; not set: as many as were seen in the last minute' })),
  KEYGATE_MAX_UNCONFIRMED: Type.Integer({ default: 300, minimum: 0, maximum: 86_400, description: 'seconds that a record goes on while neither Redis nor key-service answers, 0 to refuse' }),
  KEYGATE_TRUST_PROXY: Type.String({ default: '', description: 'addresses or CIDRs of proxies whose X-Forwarded-For is believed, separated by commas' }),
  REDIS_URL: Type.String({ secret: true, description: 'the Redis that all gateways share, such as redis://127.0.0.1:6379' }),
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
function faultsOf ({ REDIS_URL: redis, KEYGATE_KEY_SERVICE_URL: keyService, KEYGATE_TRUST_PROXY: proxies, KEYGATE_IMPORT_FORMS: forms, KEYGATE_SERVICE_TOKEN: token }: Partial<Static<typeof Variables>>): string[] {
  return [
    redis === undefined ? undefined : urlFault('REDIS_URL', redis, ['redis', 'rediss']) ?? databaseFault(redis),
    keyService === undefined ? undefined : urlFault('KEYGATE_KEY_SERVICE_URL', keyService, ['http', 'https']),
    proxies === undefined ? undefined : cidrFault('KEYGATE_TRUST_PROXY', listOf(proxies)),
    forms === undefined ? undefined : formsFault(listOf(forms)),
    token === undefined || /^[\x21-\x7e]+$/.test(token) ? undefined : 'KEYGATE_SERVICE_TOKEN has a space, a line break or another character that no header can carry'
  ].filter(fault => fault !== undefined)
}

function formsFault (forms: string[]): string | undefined {
  const unknown = forms.filter(form => !importForms.includes(form as ImportForm))
  return unknown.length === 0 ? undefined : `KEYGATE_IMPORT_FORMS names ${unknown.map(form => JSON.stringify(form)).join(', ')}; there is ${importForms.join(', ')}`
}

/** The driver asks for the database after it has connected, when nobody waits for the answer any more. */
function databaseFault (url: string): string | undefined {
  return /^\/?\d*$/.test(new URL(url).pathname) ? undefined : 'REDIS_URL may end with the number of a database, as in redis://host:6379/0, and with nothing else'
}
