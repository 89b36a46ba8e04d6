import { randomBytes } from 'node:crypto'
import { Heartbeat, Limiter, MemoryStore, RedisStore, connectRedis } from '@keygate/rate-limit'
import { StartError, createRegistry, createServer, health, problem, telemetry, type Service } from '@keygate/service-kit'
import { OurSecrets } from './admission/our-secrets.ts'
import { Records } from './admission/records.ts'
import type { Config } from './config.ts'
import { originForm } from './ingress/target.ts'
import { ChangeFeed } from './key-service/change-feed.ts'
import { createKeyServiceClient, type KeyServiceClient } from './key-service/client.ts'
import { createMetrics, type Metrics } from './metrics.ts'
import { admission } from './plugins/admission.ts'
import { authorizeForProxy } from './plugins/authorize.ts'
import { cors } from './plugins/cors.ts'
import { credentials } from './plugins/credentials.ts'
import { ingress } from './plugins/ingress.ts'
import { me } from './plugins/me.ts'
import { openStreams } from './plugins/open-streams.ts'
import { ownFields } from './plugins/own-fields.ts'
import { overload } from './plugins/overload.ts'
import { proxy } from './plugins/proxy.ts'
import { published } from './plugins/published.ts'
import { refusals } from './plugins/refusals.ts'
import { routes } from './plugins/routes.ts'
import { usage } from './plugins/usage.ts'
import type { LiveCatalogue } from './routing/live-catalogue.ts'
import { reloader } from './routing/reload.ts'
import { addressHash } from './usage/address-hash.ts'
import { UsageRecorder, noDecisionLog } from './usage/recorder.ts'
import { createUsageStream } from './usage/stream.ts'

export interface AppOptions {
  config: Config
  live: LiveCatalogue
  /** The time given to the limiter's script, in microseconds. Tests set it; `server.ts` never does. */
  nowMicros?: () => number
}

export async function buildApp ({ config, live, nowMicros }: AppOptions): Promise<Service> {
  const secrets = new OurSecrets({ prefix: config.KEYGATE_KEY_PREFIX, importForms: config.importForms })
  const app = createServer({
    service: 'gateway',
    logLevel: config.LOG_LEVEL,
    trustProxy: config.trustProxy,
    refusesRequestId: id => secrets.isInField(id),
    // Node would answer a missing Host by itself, without a body: the ingress says what is wrong.
    fastify: {
      requestTimeout: config.KEYGATE_REQUEST_TIMEOUT_MS,
      rewriteUrl: originForm,
      http: { requireHostHeader: false, headersTimeout: config.KEYGATE_HEADERS_TIMEOUT_MS, connectionsCheckingInterval: Math.min(5000, config.KEYGATE_HEADERS_TIMEOUT_MS), maxHeaderSize: 16 * 1024 }
    }
  })
  const registry = createRegistry('gateway')
  const metrics = createMetrics(registry)

  const bootId = randomBytes(12).toString('base64url')
  const connection = connectRedis(config.REDIS_URL, { timeoutMs: config.KEYGATE_REDIS_TIMEOUT_MS })
  if (await connection.opened === 'refused') {
    await connection.close()
    throw new StartError('Redis refuses the user or password of REDIS_URL. Mend it there: without them no limit could be shared.')
  }
  const heartbeat = new Heartbeat({ connection, name: '', replicas: config.KEYGATE_REPLICAS })
  const limiter = new Limiter({
    store: new RedisStore(connection, { nowMicros }),
    memory: new MemoryStore(nowMicros === undefined ? {} : { nowMicros }),
    replicas: () => heartbeat.replicas,
    onChange: state => {
      app.log.warn({ state, replicas: heartbeat.replicas }, state === 'alone' ? 'Redis does not answer: this replica counts its share of each limit' : 'Redis answers again: limits are shared')
    }
  })

  connection.on('state', () => { limiter.notice() })
  limiter.notice()
  const recorder = !config.KEYGATE_USAGE
    ? null
    : new UsageRecorder({
      stream: createUsageStream(connection, config.KEYGATE_USAGE_STREAM_BYTES, bootId),
      bootId,
      nowMs: () => limiter.nowMs(),
      log: app.log,
      flushMs: config.KEYGATE_USAGE_FLUSH_MS
    })
  metrics.observe({ replicas: () => heartbeat.replicas, isAlone: () => limiter.isAlone, dropped: () => recorder?.dropped ?? { requests: 0, rows: 0 } })

  const keyService = createKeyServiceClient({ url: config.KEYGATE_KEY_SERVICE_URL, token: config.KEYGATE_SERVICE_TOKEN, timeoutMs: config.KEYGATE_VERIFY_TIMEOUT_MS })
  const recordTtlMs = config.KEYGATE_RECORD_TTL_SECONDS * 1000
  const maxUnconfirmedMs = config.KEYGATE_MAX_UNCONFIRMED * 1000
  const records = new Records({ keyService: { verify: counted(keyService.verify, metrics) }, connection, recordTtlMs })
  const feed = new ChangeFeed({
    fetch: keyService.changes,
    oldestCursor: () => records.oldestCursor(performance.now() - Math.max(maxUnconfirmedMs, recordTtlMs)),
    onGone: () => { records.clear() }
  })
  app.addHook('onListen', async () => { heartbeat.announce(bootId) })
  app.addHook('onClose', async () => {
    feed.stop()
    await recorder?.stop()
    await heartbeat.leave()
    await keyService.close()
    await connection.close()
  })

  await app.register(problem, { onNotFound: async (_request, reply) => await reply.refuse('not_found') })
  await app.register(telemetry, { registry })

  // A request meets these in the order they are registered.
  await app.register(overload, { maxEventLoopDelayMs: config.KEYGATE_MAX_EVENT_LOOP_DELAY_MS })
  await app.register(ingress, { underscores: config.KEYGATE_UNDERSCORE_HEADERS })
  await app.register(ownFields)
  await app.register(refusals, { limiter, metrics, limit: config.KEYGATE_REFUSALS_LIMIT, realm: config.KEYGATE_REALM })
  await app.register(credentials, { secrets, live })
  await app.register(usage, { recorder, hashAddress: config.KEYGATE_USAGE_ADDRESSES === 'hashed' ? addressHash(config.KEYGATE_SERVICE_TOKEN) : null, hasSecret: text => secrets.mayStandIn(text) || secrets.isInBasic(text) })
  const admitting = { records, limiter, feed, metrics, bootId, maxUnconfirmedMs, usage: recorder ?? noDecisionLog }
  await app.register(admission, admitting)
  await app.register(cors)
  await app.register(published, { live })
  await app.register(openStreams, { metrics, everyMs: config.KEYGATE_STREAM_CHECK_MS })
  await app.register(proxy, {
    connectTimeoutMs: config.KEYGATE_UPSTREAM_CONNECT_TIMEOUT_MS,
    headersTimeoutMs: config.KEYGATE_UPSTREAM_TIMEOUT_MS,
    idleTimeoutMs: config.KEYGATE_UPSTREAM_IDLE_TIMEOUT_MS,
    connections: config.KEYGATE_UPSTREAM_CONNECTIONS,
    queue: config.KEYGATE_UPSTREAM_QUEUE,
    allowsPrivate: config.KEYGATE_ALLOW_PRIVATE_UPSTREAM
  })

  await app.register(health, { checks: {}, helpers: { redis: async () => await connection.call(async client => await client.ping()) } })
  await app.register(me, { live, ...admitting })
  await app.register(authorizeForProxy, { live })
  await app.register(routes, { live })
  return { app, registry, reload: reloader(live, { log: app.log, metrics }) }
}

function counted (verify: KeyServiceClient['verify'], metrics: Metrics): KeyServiceClient['verify'] {
  return async digest => await verify(digest).then(
    answer => { metrics.verifications.inc({ result: answer.outcome }); return answer },
    error => { metrics.verifications.inc({ result: 'failed' }); throw error }
  )
}
