import { importForms, isValidPrefix, type ImportForm } from '@keygate/api-key'
import { ConfigError, cidrFault, loadConfig, urlFault, type Environment } from '@keygate/service-kit'
import { Type, type Static } from 'typebox'
import { canonicalEmail, parseEmail } from './people/email.ts'
import { parseEncryptionKeys, parsePeppers, type EncryptionKeys, type PepperSet } from './vault/keyring.ts'

const port = { minimum: 0, maximum: 65535 }

const Variables = Type.Object({
  KEYGATE_HOST: Type.String({ default: '127.0.0.1', description: 'the address to listen on' }),
  KEYGATE_PORT: Type.Integer({ ...port, default: 8082, description: 'the port to listen on; 0 takes a free one' }),
  KEYGATE_METRICS_PORT: Type.Optional(Type.Integer({ ...port, description: 'the port of /metrics; unset: none' })),
  DATABASE_URL: Type.String({ secret: true, description: 'postgres://user:password@host:5432/database' }),
  REDIS_URL: Type.String({ secret: true, description: 'redis://host:6379' }),
  KEYGATE_APIS: Type.String({ description: 'the path of the API catalogue, apis.yaml' }),
  KEYGATE_PUBLIC_URL: Type.Optional(Type.String({ description: 'where people reach this service, such as https://keys.example.org; stands in the links it prints' })),
  KEYGATE_TRUST_PROXY: Type.String({ default: '', description: 'addresses or CIDRs of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, separated by commas' }),
  KEYGATE_PEPPER: Type.String({ secret: true, minLength: 32, description: 'at least 32 random characters that secrets are digested with; kept in KEYGATE_PREVIOUS_PEPPERS when it is replaced' }),
  KEYGATE_PEPPER_ID: Type.String({ default: '1', description: 'the name of KEYGATE_PEPPER; a new pepper gets a new one' }),
  KEYGATE_PREVIOUS_PEPPERS: Type.Optional(Type.String({ secret: true, description: 'earlier peppers as id:pepper, separated by commas or line breaks' })),
  KEYGATE_ENCRYPTION_KEY: Type.Optional(Type.String({ secret: true, description: '32 random bytes as base64, under which secrets are kept for revealing; unset: none can be revealed' })),
  KEYGATE_ENCRYPTION_KEY_ID: Type.String({ default: '1', description: 'the name of KEYGATE_ENCRYPTION_KEY; a new key gets a new one' }),
  KEYGATE_PREVIOUS_ENCRYPTION_KEYS: Type.Optional(Type.String({ secret: true, description: 'earlier encryption keys as id:base64, separated by commas or line breaks' })),
  KEYGATE_IMPORT_FORMS: Type.String({ default: '', description: `forms of other systems' secrets that may be imported, separated by commas: ${importForms.join(', ')}` }),
  KEYGATE_OPERATOR_EMAIL: Type.String({ default: 'operator@localhost', description: 'who becomes the first operator' }),
  KEYGATE_SESSION_IDLE_MINUTES: Type.Integer({ minimum: 1, maximum: 10_080, default: 60, description: 'a session that is not used for so long ends' }),
  KEYGATE_SESSION_HOURS: Type.Integer({ minimum: 1, maximum: 720, default: 12, description: 'a session ends after so many hours in any case' }),
  KEYGATE_REQUESTS_LIMIT: Type.Integer({ minimum: 1, maximum: 100_000, default: 600, description: 'requests per address and minute; look-ups of gateways are not counted' }),
  KEYGATE_SERVICE_TOKENS_FILE: Type.Optional(Type.String({ description: 'the path of a JSON file with the first service tokens' })),
  KEYGATE_KEY_PREFIX: Type.String({ default: 'kg', description: 'what new secrets begin with' }),
  KEYGATE_KEY_MAX_DAYS: Type.Optional(Type.Integer({ minimum: 1, maximum: 36_500, description: 'how many days ahead a key\'s expiry may lie, which every new key then needs; unset: any or none' })),
  KEYGATE_RELAY_INTERVAL_MS: Type.Integer({ minimum: 10, maximum: 60_000, default: 500, description: 'how often undelivered changes are tried again, in milliseconds' }),
  KEYGATE_REDIS_TIMEOUT_MS: Type.Integer({ minimum: 10, maximum: 30_000, default: 100, description: 'how long the delivery of a change to Redis may take before it is answered as pending, in milliseconds' }),
  KEYGATE_DATABASE_TIMEOUT_MS: Type.Integer({ minimum: 50, maximum: 60_000, default: 2000, description: 'how long PostgreSQL may take to connect or for a statement, in milliseconds' }),
  KEYGATE_USAGE_INTERVAL_MS: Type.Integer({ minimum: 10, maximum: 60_000, default: 1000, description: 'how long the next look for usage in Redis waits when all of it was fetched, in milliseconds' }),
  KEYGATE_USAGE_LATE_MS: Type.Integer({ minimum: 100, maximum: 3_600_000, default: 30_000, description: 'usage that another replica fetched and has not stored after so long is stored by this one, in milliseconds' }),
  KEYGATE_USAGE_SILENT_MS: Type.Integer({ minimum: 1000, maximum: 86_400_000, default: 120_000, description: 'a gateway without heartbeat that sent nothing for so long has ended, and what it had not sent is settled, in milliseconds' }),
  KEYGATE_LOG_RETENTION_DAYS: Type.Optional(Type.Integer({ minimum: 1, maximum: 36_500, description: 'rows of the request log are dropped after so many days; unset: never' })),
  LOG_LEVEL: Type.Unsafe<'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent'>({
    type: 'string', enum: ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], default: 'info', description: 'fatal, error, warn, info, debug, trace or silent'
  })
})

export interface Config {
  host: string
  port: number
  metricsPort: number | undefined
  databaseUrl: string
  redisUrl: string
  apisFile: string
  publicUrl: string | undefined
  trustProxy: string[]
  peppers: PepperSet
  /** Undefined: nothing can be revealed, and every key is sealed. */
  encryptionKeys: EncryptionKeys | undefined
  importForms: ImportForm[]
  operatorEmail: string
  sessionIdleMs: number
  sessionMs: number
  requestsLimit: number
  serviceTokensFile: string | undefined
  keyPrefix: string
  keyMaxDays: number | undefined
  relayIntervalMs: number
  redisTimeoutMs: number
  databaseTimeoutMs: number
  usageIntervalMs: number
  usageLateMs: number
  usageSilentMs: number
  logRetentionDays: number | undefined
  logLevel: string
}

/**
 * The settings of this service.
 *
 * @throws {ConfigError} with all faults at once.
 */
export function readConfig (env: Environment): { config: Config, warnings: string[] } {
  const { config: variables, warnings } = loadConfig(Variables, env, faultsOf)
  return {
    warnings,
    config: {
      host: variables.KEYGATE_HOST,
      port: variables.KEYGATE_PORT,
      metricsPort: variables.KEYGATE_METRICS_PORT,
      databaseUrl: variables.DATABASE_URL,
      redisUrl: variables.REDIS_URL,
      apisFile: variables.KEYGATE_APIS,
      publicUrl: variables.KEYGATE_PUBLIC_URL?.replace(/\/+$/, ''),
      trustProxy: listOf(variables.KEYGATE_TRUST_PROXY),
      peppers: orThrow(peppersOf(variables)),
      encryptionKeys: orThrow(encryptionKeysOf(variables)),
      importForms: listOf(variables.KEYGATE_IMPORT_FORMS) as ImportForm[],
      operatorEmail: canonicalEmail(variables.KEYGATE_OPERATOR_EMAIL),
      sessionIdleMs: variables.KEYGATE_SESSION_IDLE_MINUTES * 60_000,
      sessionMs: variables.KEYGATE_SESSION_HOURS * 3_600_000,
      requestsLimit: variables.KEYGATE_REQUESTS_LIMIT,
      serviceTokensFile: variables.KEYGATE_SERVICE_TOKENS_FILE,
      keyPrefix: variables.KEYGATE_KEY_PREFIX,
      keyMaxDays: variables.KEYGATE_KEY_MAX_DAYS,
      relayIntervalMs: variables.KEYGATE_RELAY_INTERVAL_MS,
      redisTimeoutMs: variables.KEYGATE_REDIS_TIMEOUT_MS,
      databaseTimeoutMs: variables.KEYGATE_DATABASE_TIMEOUT_MS,
      usageIntervalMs: variables.KEYGATE_USAGE_INTERVAL_MS,
      usageLateMs: variables.KEYGATE_USAGE_LATE_MS,
      usageSilentMs: variables.KEYGATE_USAGE_SILENT_MS,
      logRetentionDays: variables.KEYGATE_LOG_RETENTION_DAYS,
      logLevel: variables.LOG_LEVEL
    }
  }
}

type Values = Partial<Static<typeof Variables>>

const peppersOf = ({ KEYGATE_PEPPER: current = '', KEYGATE_PEPPER_ID: currentId = '1', KEYGATE_PREVIOUS_PEPPERS: previous }: Values) =>
  parsePeppers({ current, currentId, previous })

const encryptionKeysOf = ({ KEYGATE_ENCRYPTION_KEY: current, KEYGATE_ENCRYPTION_KEY_ID: currentId = '1', KEYGATE_PREVIOUS_ENCRYPTION_KEYS: previous }: Values) =>
  parseEncryptionKeys({ current, currentId, previous })

function orThrow<T> (parsed: { value: T } | { faults: string[] }): T {
  if ('faults' in parsed) throw new ConfigError(parsed.faults)
  return parsed.value
}

function faultsIn (parsed: { faults: string[] } | object): string[] {
  return 'faults' in parsed ? parsed.faults : []
}

function listOf (text: string): string[] {
  return text.split(',').map(part => part.trim()).filter(part => part !== '')
}

/** What a schema cannot say. An address that the drivers cannot read would be quoted by their own errors, password included. */
function faultsOf (values: Values): string[] {
  const { DATABASE_URL: database, REDIS_URL: redis, KEYGATE_KEY_PREFIX: prefix, KEYGATE_TRUST_PROXY: proxies, KEYGATE_PUBLIC_URL: publicUrl, KEYGATE_IMPORT_FORMS: forms, KEYGATE_OPERATOR_EMAIL: operator } = values
  return [
    database === undefined ? undefined : urlFault('DATABASE_URL', database, ['postgres', 'postgresql']),
    redis === undefined ? undefined : urlFault('REDIS_URL', redis, ['redis', 'rediss']),
    publicUrl === undefined ? undefined : urlFault('KEYGATE_PUBLIC_URL', publicUrl, ['http', 'https']),
    proxies === undefined ? undefined : cidrFault('KEYGATE_TRUST_PROXY', listOf(proxies)),
    forms === undefined ? undefined : formsFault(listOf(forms)),
    operator === undefined ? undefined : operatorFault(operator),
    prefix === undefined || isValidPrefix(prefix) ? undefined : `KEYGATE_KEY_PREFIX must be 2 to 16 lower case letters or digits, a letter first, and not "key", but is ${JSON.stringify(prefix)}`,
    ...faultsIn(peppersOf(values)),
    ...faultsIn(encryptionKeysOf(values))
  ].filter(fault => fault !== undefined)
}

function operatorFault (email: string): string | undefined {
  const parsed = parseEmail(email)
  return 'fault' in parsed ? `KEYGATE_OPERATOR_EMAIL ${parsed.fault}, but is ${JSON.stringify(email)}` : undefined
}

function formsFault (forms: string[]): string | undefined {
  const unknown = forms.filter(form => !importForms.includes(form as ImportForm))
  return unknown.length === 0 ? undefined : `KEYGATE_IMPORT_FORMS names ${unknown.map(form => JSON.stringify(form)).join(', ')}; there is ${importForms.join(', ')}`
}
