import { randomBytes } from 'node:crypto'
import type { Catalogue } from '@keygate/api-catalog'
import { RedisStore, connectRedis } from '@keygate/rate-limit'
import { createRegistry, createServer, health, problem, telemetry, type Service } from '@keygate/service-kit'
import { Records } from './admission/records.ts'
import type { Config } from './config.ts'
import { createKeyServiceClient } from './key-service/client.ts'
import { createMetrics } from './metrics.ts'
import { admission } from './plugins/admission.ts'
import { credentials } from './plugins/credentials.ts'
import { ingress } from './plugins/ingress.ts'
import { proxy } from './plugins/proxy.ts'
import { refusals } from './plugins/refusals.ts'
import { routes } from './plugins/routes.ts'

export interface AppOptions {
  config: Config
  catalogue: Catalogue
  /** The time given to the limiter's script, in microseconds. Tests set it; `server.ts` never does. */
  nowMicros?: () => number
}

export async function buildApp ({ config, catalogue, nowMicros }: AppOptions): Promise<Service> {
  const app = createServer({
    service: 'gateway',
    logLevel: config.LOG_LEVEL,
    trustProxy: config.trustProxy,
    // Node would answer a missing Host by itself, without a body: the ingress says what is wrong.
    fastify: { routerOptions: { maxParamLength: 1000 }, http: { requireHostHeader: false } }
  })
  const registry = createRegistry('gateway')
  const metrics = createMetrics(registry)

  const connection = connectRedis(config.REDIS_URL)
  connection.on('state', state => { app.log.info({ state }, 'redis') })
  const store = new RedisStore(connection, { nowMicros })
  const keyService = createKeyServiceClient({ url: config.KEYGATE_KEY_SERVICE_URL, token: config.KEYGATE_SERVICE_TOKEN, timeoutMs: config.KEYGATE_VERIFY_TIMEOUT_MS })
  const records = new Records({ keyService: counted(keyService, metrics), connection, recordTtlMs: config.KEYGATE_RECORD_TTL_SECONDS * 1000 })
  app.addHook('onClose', async () => {
    await keyService.close()
    await connection.close()
  })

  await app.register(problem, { onNotFound: async (_request, reply) => await reply.refuse('not_found') })
  await app.register(telemetry, { registry })

  // A request meets these in the order they are registered.
  await app.register(ingress)
  await app.register(refusals, { store, metrics, limit: config.KEYGATE_REFUSALS_LIMIT, realm: config.KEYGATE_REALM })
  await app.register(credentials, { realm: config.KEYGATE_REALM, prefix: config.KEYGATE_KEY_PREFIX })
  await app.register(admission, { records, store, metrics, bootId: randomBytes(12).toString('base64url') })
  await app.register(proxy, { timeoutMs: config.KEYGATE_UPSTREAM_TIMEOUT_MS })

  await app.register(health, { checks: { redis: async () => await connection.call(async client => await client.ping()) } })
  await app.register(routes, { catalogue })
  return { app, registry }
}

function counted (client: ReturnType<typeof createKeyServiceClient>, metrics: ReturnType<typeof createMetrics>): typeof client {
  return {
    ...client,
    verify: async digest => await client.verify(digest).then(
      answer => { metrics.verifications.inc({ result: answer.outcome }); return answer },
      error => { metrics.verifications.inc({ result: 'failed' }); throw error }
    )
  }
}
