import cookie from '@fastify/cookie'
import { createRegistry, createServer, health, problem, telemetry, type Service } from '@keygate/service-kit'
import { sql } from 'drizzle-orm'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import { auditRoutes } from './audit/routes.ts'
import { catalogueRoutes } from './catalogue/routes.ts'
import { changesRoutes } from './changes/routes.ts'
import type { Config } from './config.ts'
import { isUnavailable } from './db/failures.ts'
import { healthRoutes } from './health/routes.ts'
import { createOnce } from './idempotency/once.ts'
import { createUpkeep } from './idempotency/upkeep.ts'
import { createKeyCommands } from './keys/commands.ts'
import { knownScopesOf } from './keys/known-scopes.ts'
import { createLastUse } from './keys/last-use.ts'
import { createReveal } from './keys/reveal.ts'
import { keyRoutes } from './keys/routes.ts'
import { limitRoutes } from './limits/routes.ts'
import { createOutboxMetrics } from './outbox/metrics.ts'
import { createChangeMaker } from './outbox/make-change.ts'
import { createRelay } from './outbox/relay.ts'
import type { Parts } from './parts.ts'
import { createGuessLimit } from './people/guess-limit.ts'
import { meRoutes } from './people/me-routes.ts'
import { memberRoutes } from './people/member-routes.ts'
import { createMemberCommands } from './people/members.ts'
import { operatorRoutes } from './people/operator-routes.ts'
import { createOperatorCommands } from './people/operators.ts'
import { publicUrlOf } from './people/public-url.ts'
import { signInRoutes } from './people/sign-in-routes.ts'
import { createSignIn } from './people/sign-in.ts'
import { mayComeInClear } from './people/transport.ts'
import { addressLimit, createRequestsLimiter } from './plugins/address-limit.ts'
import { apiDocument } from './plugins/api-document.ts'
import { authentication } from './plugins/authentication.ts'
import { bodyParsers, mediaTypes } from './plugins/body-parsers.ts'
import { createSameSiteCheck } from './plugins/cross-site.ts'
import { neverStored, securityHeaders } from './plugins/security-headers.ts'
import { strictRequests } from './plugins/strict-requests.ts'
import { createProjectCommands } from './projects/commands.ts'
import { createErasure } from './projects/erasure.ts'
import { projectRoutes } from './projects/routes.ts'
import { requestLogRoutes } from './request-log/routes.ts'
import { createRoleCommands } from './roles/commands.ts'
import { roleRoutes } from './roles/routes.ts'
import { createServiceTokenCommands } from './service-tokens/commands.ts'
import { serviceTokenRoutes } from './service-tokens/routes.ts'
import { callerRoutes } from './usage/callers-routes.ts'
import { usageRoutes } from './usage/routes.ts'
import { createUsage } from './usage/usage.ts'
import { createPepperUpkeep } from './vault/pepper-upkeep.ts'
import { verificationRoutes } from './verification/routes.ts'

/** Larger than any acceptable body: a thousand scopes and a hundred hosts fit. */
const bodyLimit = 256 * 1024
/** How long what verifications notice may wait to be written, in milliseconds. */
const upkeepMs = 5000

/** A table of contents: what a request meets, in this order. Closing the app closes the parts. */
export async function buildApp (config: Config, open: (log: FastifyBaseLogger) => Promise<Parts>): Promise<Service> {
  const app: FastifyInstance = createServer({ service: 'key-service', logLevel: config.logLevel, trustProxy: config.trustProxy, fastify: { bodyLimit } })
  const registry = createRegistry('key-service')
  const { database, redis, catalogue, vault, peppers } = await open(app.log)
  const knownScopes = knownScopesOf(catalogue)

  const relay = createRelay({ database, redis, log: app.log, metrics: createOutboxMetrics(registry, database), intervalMs: config.relayIntervalMs })
  const makeChange = createChangeMaker(database, relay)
  const lastUse = createLastUse({ database, log: app.log, intervalMs: upkeepMs })
  const answerUpkeep = createUpkeep({ database, log: app.log })
  const erasure = createErasure({ database, log: app.log })
  const usage = createUsage({ database, redisUrl: config.redisUrl, lastUse, log: app.log, registry, intervalMs: config.usageIntervalMs, lateMs: config.usageLateMs, silentMs: config.usageSilentMs, logRetentionDays: config.logRetentionDays })
  const pepperUpkeep = createPepperUpkeep({ database, peppers, log: app.log, intervalMs: upkeepMs })
  app.addHook('onReady', async () => {
    relay.start()
    answerUpkeep.start()
    erasure.start()
    usage.start()
  })
  app.addHook('onClose', async () => {
    await usage.stop() // which notes the last uses
    await Promise.all([relay.stop(), answerUpkeep.stop(), erasure.stop(), lastUse.close(), pepperUpkeep.close()])
    await Promise.all([redis.close(), database.close()])
  })

  await app.register(problem, { isUnavailable, mediaTypes })
  await app.register(securityHeaders)
  await app.register(health, { checks: { postgres: async () => await database.run(async db => await db.execute(sql`SELECT 1`)) } })
  await app.register(telemetry, { registry })
  await app.register(apiDocument)

  app.decorate('mayComeInClear', mayComeInClear(config.publicUrl))
  await app.register(cookie)

  const isSameSite = createSameSiteCheck(config.publicUrl)
  const sessionLimits = { idleMs: config.sessionIdleMs, absoluteMs: config.sessionMs }
  const requests = createRequestsLimiter(redis)
  const signIn = createSignIn({ database, sessionLimits, guesses: createGuessLimit(redis) })

  // A scope of its own, because nobody need be known here: whatever is registered below cannot be open by oversight.
  await app.register(async open => {
    await open.register(neverStored)
    await open.register(addressLimit, { limiter: requests, limit: config.requestsLimit })
    await open.register(bodyParsers)
    await open.register(strictRequests)
    await open.register(signInRoutes, { database, commands: signIn, isSameSite })
  }, { prefix: '/v1' })

  await app.register(async v1 => {
    await v1.register(neverStored)
    await v1.register(addressLimit, { limiter: requests, limit: config.requestsLimit })
    await v1.register(authentication, { database, sessionLimits, isSameSite })
    await v1.register(bodyParsers)
    await v1.register(strictRequests)
    await v1.register(meRoutes, { database, commands: signIn })
    await v1.register(memberRoutes, { database, commands: createMemberCommands({ database, publicUrl: publicUrlOf(config) }) })
    await v1.register(operatorRoutes, { database, commands: createOperatorCommands(database) })
    await v1.register(serviceTokenRoutes, { database, commands: createServiceTokenCommands(database) })
    await v1.register(projectRoutes, { database, commands: createProjectCommands(makeChange, erasure) })
    await v1.register(keyRoutes, {
      database,
      endpoints: catalogue.apis.map(({ name, publicUrl }) => ({ api: name, url: publicUrl })),
      runOnce: createOnce({ database, relay, vault }),
      commands: createKeyCommands({
        makeChange,
        knownScopes,
        secretOptions: { peppers, vault, prefix: config.keyPrefix },
        importForms: config.importForms,
        maxDays: config.keyMaxDays
      }),
      reveal: createReveal({ database, vault }),
      coveredScopes: knownScopes.covered
    })
    await v1.register(roleRoutes, { database, commands: createRoleCommands({ makeChange, knownScopes }) })
    await v1.register(limitRoutes, { database, redis, catalogue })
    await v1.register(usageRoutes, { database })
    await v1.register(callerRoutes, { database })
    await v1.register(requestLogRoutes, { database })
    await v1.register(auditRoutes, { database })
    await v1.register(catalogueRoutes, { catalogue })
    await v1.register(healthRoutes, { database, redis })
    await v1.register(verificationRoutes, { database, peppers, pepperUpkeep, registry })
    await v1.register(changesRoutes, { database })
  }, { prefix: '/v1' })

  return { app, registry }
}
