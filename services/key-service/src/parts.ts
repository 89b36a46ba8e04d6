import { loadCatalogue, type Catalogue } from '@keygate/api-catalog'
import { connectRedis, type RedisConnection } from '@keygate/rate-limit'
import { StartError } from '@keygate/service-kit'
import type { FastifyBaseLogger } from 'fastify'
import type { Config } from './config.ts'
import { openDatabase, type Database } from './db/database.ts'
import { isUnavailable } from './db/failures.ts'
import { migrate } from './db/migrate.ts'
import { reasonOf } from './db/reason.ts'
import { patiently, refusal, waitForDatabase, type Patience } from './db/wait.ts'
import { firstOperatorText, prepareFirstOperator } from './people/first-operator.ts'
import { publicUrlOf } from './people/public-url.ts'
import { putFileTokens } from './service-tokens/put-file-tokens.ts'
import { readTokensFile } from './service-tokens/tokens-file.ts'
import { checkKeysPresent } from './vault/keys-present.ts'
import { createPeppers, type Peppers } from './vault/peppers.ts'
import { createVault, type Vault } from './vault/vault.ts'

/** What the app works with; whoever builds the app owns it, and the app closes it. `vault` undefined: nothing can be revealed. */
export interface Parts { database: Database, redis: RedisConnection, catalogue: Catalogue, vault: Vault | undefined, peppers: Peppers }

/** How long a start waits for PostgreSQL, and again when that goes away in the middle, in milliseconds. */
const patienceMs = 30_000

/**
 * Opens everything the service needs: files first, because their faults need no waiting, then PostgreSQL with schema and tokens.
 *
 * Redis is not waited for: without it changes are answered `pending`, and the relay delivers them later.
 *
 * @param print takes what only whoever starts the service may see: standard output.
 * @throws {ConfigError | CatalogueError | StartError} with what to do about it.
 */
export async function openParts (config: Config, log: FastifyBaseLogger, print: (text: string) => void = text => { process.stdout.write(text) }): Promise<Parts> {
  const tokens = config.serviceTokensFile === undefined ? undefined : readTokensFile(config.serviceTokensFile)
  const catalogue = await loadCatalogue(config.apisFile)
  const vault = config.encryptionKeys === undefined ? undefined : createVault(config.encryptionKeys)
  const peppers = createPeppers(config.peppers)
  const redis = connectRedis(config.redisUrl, { timeoutMs: config.redisTimeoutMs })
  const database = openDatabase(config.databaseUrl, { timeoutMs: config.databaseTimeoutMs })
  const patience: Patience = { patienceMs, onWait: reason => { log.warn({ reason }, 'waiting for PostgreSQL') } }
  try {
    await waitForDatabase(database, patience)
    await patiently(async () => await migrate(config.databaseUrl, async () => {
      await database.transaction(async tx => { await checkKeysPresent(tx, vault, peppers) })
      if (tokens !== undefined) await database.transaction(async tx => { await putFileTokens(tx, tokens) })
      const email = config.operatorEmail
      const link = await database.transaction(async tx => await prepareFirstOperator(tx, { email, publicUrl: publicUrlOf(config) }))
      if (link !== undefined) print(firstOperatorText(email, link))
    }), patience).catch((error: Error) => { throw asStartError(error) })
  } catch (error) {
    await Promise.all([database.close(), redis.close()])
    throw error
  }
  return { database, redis, catalogue, vault, peppers }
}

function asStartError (error: Error & { code?: unknown }): Error {
  if (isUnavailable(error)) return new StartError(`PostgreSQL went away while the schema was made: ${reasonOf(error)}. Start it, then this service again.`)
  if (error.code === '42501') return new StartError(`The user of DATABASE_URL may not make the schema: ${error.message}. Make it the owner of the database.`)
  return refusal(error) ?? error
}
