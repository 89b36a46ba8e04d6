import { isValidPrefix } from '@keygate/api-key'
import { loadConfig, urlFault, type Environment } from '@keygate/service-kit'
import { Type, type Static } from 'typebox'

const port = { minimum: 0, maximum: 65535 }

const Variables = Type.Object({
  KEYGATE_HOST: Type.String({ default: '127.0.0.1', description: 'the address to listen on' }),
  KEYGATE_PORT: Type.Integer({ ...port, default: 8082, description: 'the port to listen on; 0 takes a free one' }),
  KEYGATE_METRICS_PORT: Type.Optional(Type.Integer({ ...port, description: 'the port of /metrics; unset: none' })),
  DATABASE_URL: Type.String({ secret: true, description: 'postgres://user:password@host:5432/database' }),
  REDIS_URL: Type.String({ secret: true, description: 'redis://host:6379' }),
  KEYGATE_APIS: Type.String({ description: 'the path of the API catalogue, apis.yaml' }),
  KEYGATE_PEPPER: Type.String({ secret: true, minLength: 32, description: 'at least 32 random characters, the same for ever: with another one no secret is found any more' }),
  KEYGATE_SERVICE_TOKENS_FILE: Type.Optional(Type.String({ description: 'the path of a JSON file with the first service tokens' })),
  KEYGATE_KEY_PREFIX: Type.String({ default: 'kg', description: 'what new secrets begin with' }),
  KEYGATE_RELAY_INTERVAL_MS: Type.Integer({ minimum: 10, maximum: 60_000, default: 500, description: 'how often undelivered changes are tried again, in milliseconds' }),
  KEYGATE_REDIS_TIMEOUT_MS: Type.Integer({ minimum: 10, maximum: 30_000, default: 100, description: 'how long the delivery of a change to Redis may take before it is answered as pending, in milliseconds' }),
  KEYGATE_DATABASE_TIMEOUT_MS: Type.Integer({ minimum: 50, maximum: 60_000, default: 2000, description: 'how long PostgreSQL may take to connect or for a statement, in milliseconds' }),
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
  pepper: string
  serviceTokensFile: string | undefined
  keyPrefix: string
  relayIntervalMs: number
  redisTimeoutMs: number
  databaseTimeoutMs: number
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
      pepper: variables.KEYGATE_PEPPER,
      serviceTokensFile: variables.KEYGATE_SERVICE_TOKENS_FILE,
      keyPrefix: variables.KEYGATE_KEY_PREFIX,
      relayIntervalMs: variables.KEYGATE_RELAY_INTERVAL_MS,
      redisTimeoutMs: variables.KEYGATE_REDIS_TIMEOUT_MS,
      databaseTimeoutMs: variables.KEYGATE_DATABASE_TIMEOUT_MS,
      logLevel: variables.LOG_LEVEL
    }
  }
}

/** What a schema cannot say. An address that the drivers cannot read would be quoted by their own errors, password included. */
function faultsOf ({ DATABASE_URL: database, REDIS_URL: redis, KEYGATE_KEY_PREFIX: prefix }: Partial<Static<typeof Variables>>): string[] {
  return [
    database === undefined ? undefined : urlFault('DATABASE_URL', database, ['postgres', 'postgresql']),
    redis === undefined ? undefined : urlFault('REDIS_URL', redis, ['redis', 'rediss']),
    prefix === undefined || isValidPrefix(prefix) ? undefined : `KEYGATE_KEY_PREFIX must be 2 to 16 lower case letters or digits, a letter first, and not "key", but is ${JSON.stringify(prefix)}`
  ].filter(fault => fault !== undefined)
}
