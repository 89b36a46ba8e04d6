import { createRegistry, createServer, health, problem, telemetry, type Service } from '@keygate/service-kit'
import { sql } from 'drizzle-orm'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import { changesRoutes } from './changes/routes.ts'
import type { Config } from './config.ts'
import { isUnavailable } from './db/failures.ts'
import { createKeyCommands } from './keys/commands.ts'
import { keyRoutes } from './keys/routes.ts'
import { createOutboxMetrics } from './outbox/metrics.ts'
import { createChangeMaker } from './outbox/make-change.ts'
import { createRelay } from './outbox/relay.ts'
import type { Parts } from './parts.ts'
import { apiDocument } from './plugins/api-document.ts'
import { authentication } from './plugins/authentication.ts'
import { bodyParsers } from './plugins/body-parsers.ts'
import { createProjectCommands } from './projects/commands.ts'
import { projectRoutes } from './projects/routes.ts'
import { verificationRoutes } from './verification/routes.ts'

/** Larger than any acceptable body: a thousand scopes and a hundred hosts fit. */
const bodyLimit = 256 * 1024

/** A table of contents: what a request meets, in this order. Closing the app closes the parts. */
export async function buildApp (config: Config, open: (log: FastifyBaseLogger) => Promise<Parts>): Promise<Service> {
  const app: FastifyInstance = createServer({ service: 'key-service', logLevel: config.logLevel, fastify: { bodyLimit } })
  const registry = createRegistry('key-service')
  const { database, redis, catalogue } = await open(app.log)

  const relay = createRelay({ database, redis, log: app.log, metrics: createOutboxMetrics(registry, database), intervalMs: config.relayIntervalMs })
  const makeChange = createChangeMaker(database, relay)
  app.addHook('onReady', async () => { relay.start() })
  app.addHook('onClose', async () => {
    await relay.stop()
    await Promise.all([redis.close(), database.close()])
  })

  await app.register(problem, { isUnavailable })
  await app.register(health, { checks: { postgres: async () => await database.run(async db => await db.execute(sql`SELECT 1`)) } })
  await app.register(telemetry, { registry })
  await app.register(apiDocument)

  await app.register(async v1 => {
    await v1.register(authentication, { database })
    await v1.register(bodyParsers)
    await v1.register(projectRoutes, { database, commands: createProjectCommands(makeChange) })
    await v1.register(keyRoutes, {
      database,
      endpoints: catalogue.apis.map(({ name, publicUrl }) => ({ api: name, url: publicUrl })),
      commands: createKeyCommands({
        makeChange,
        knownScopes: new Set(catalogue.apis.flatMap(api => api.scopes)),
        secretOptions: { pepper: config.peppers.current.value, prefix: config.keyPrefix }
      })
    })
    await v1.register(verificationRoutes, { database, pepper: config.peppers.current.value, registry })
    await v1.register(changesRoutes, { database })
  }, { prefix: '/v1' })

  return { app, registry }
}
