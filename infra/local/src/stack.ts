import { join } from 'node:path'
import { localApis, resolveApis } from './apis.ts'
import { freePort } from './free-port.ts'
import { startPostgres, type Postgres } from './postgres.ts'
import { startService, type Env, type Service, type ServiceName, type ServiceOptions } from './process.ts'
import { startRedis, type Redis, type RedisOptions } from './redis.ts'
import { localSecrets } from './secrets.ts'
import { writePrivate } from './write-file.ts'

export interface StackOptions {
  /** Everything that it writes is in here: PostgreSQL's data, secrets, the catalogue. */
  dir: string
  /** How many. Default 2. */
  gateways?: number
  /** Each part appends to a file of its own in here. Default: the parts' output is only kept for messages. */
  logDir?: string
  logLevel?: string
  /** The catalogue's text; the addresses of apis.yaml (8080: first gateway, 4000: upstream) are replaced in it by the real ones. */
  apis?: string
  /** Variables that go beyond, or against, those the stack gives to a service. */
  env?: { gateway?: Env | ((index: number) => Env), keyService?: Env, upstream?: Env }
  /** For the node of a gateway: a preloaded module, say. */
  gatewayNodeArgs?: (index: number) => string[]
  /** Wanted ports; any free one otherwise. A taken one is an error. */
  ports?: { gateways?: number[], keyService?: number, upstream?: number, postgres?: number }
  /** A Redis that runs already; none is started. */
  redisUrl?: string
  /** For the Redis that is started. */
  redis?: RedisOptions
  /** For tests: PostgreSQL flushes nothing to the disk, and its data goes with `stop`. */
  ephemeral?: boolean
  /** Gives up between two steps and ends what was started. */
  signal?: AbortSignal
  /** Told when a part is ready, with the seconds it took. */
  onReady?: (part: string, seconds: number) => void
}

export interface Stack {
  postgres: Postgres
  /** Null when `redisUrl` was given. */
  redis: Redis | null
  redisUrl: string
  upstream: Service
  keyService: Service
  gateways: Service[]
  /** `operator` has every permission, `gateway` only `keys:verify`. */
  tokens: { operator: string, gateway: string }
  /** The resolved catalogue's path. */
  apisFile: string
  /** Starts another process in the place of a gateway (same port, same variables) that has ended. */
  startGateway: (index: number, env?: Env, options?: ServiceOptions) => Promise<Service>
  startKeyService: (env?: Env, options?: ServiceOptions) => Promise<Service>
  /** Ends all in order: gateways, key-service, upstream, Redis, PostgreSQL. */
  stop: () => Promise<void>
}

/** Starts the whole house with real parts. When one cannot start, or `signal` fires, those that did are ended and it rejects. */
export async function startStack (options: StackOptions): Promise<Stack> {
  const pending = new Map<Layer, Array<Promise<Stoppable>>>(layers.map(layer => [layer, []]))
  const part: Part = async (layer, name, start) => {
    options.signal?.throwIfAborted()
    const begin = performance.now()
    const started = start()
    pending.get(layer)?.push(started)
    const value = await started
    options.onReady?.(name, (performance.now() - begin) / 1000)
    return value
  }
  const stop = async () => {
    for (const layer of layers) {
      // one that is still starting (another failed) is waited for, so that it too can be ended in order
      const started = await Promise.allSettled(pending.get(layer)?.splice(0) ?? [])
      await Promise.all(started.map(async result => { if (result.status === 'fulfilled') await result.value.stop() }))
    }
  }
  try {
    return { ...await assemble(options, part), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

// The order of ending: who calls ends before who is called.
const layers = ['gateways', 'key-service', 'upstream', 'stores'] as const
type Layer = typeof layers[number]
interface Stoppable { stop: () => Promise<void> }
type Part = <T extends Stoppable> (layer: Layer, name: string, start: () => Promise<T>) => Promise<T>

async function assemble (options: StackOptions, part: Part): Promise<Omit<Stack, 'stop'>> {
  const { dir, logDir } = options
  const logFile = (name: string) => logDir === undefined ? {} : { logFile: join(logDir, `${name}.log`) }
  const secrets = localSecrets(join(dir, 'secrets'))
  const ports = await choosePorts(options)
  const url = (port: number) => `http://127.0.0.1:${port}`

  const [postgres, redis, upstream] = await Promise.all([
    part('stores', 'PostgreSQL', async () => await startPostgres(join(dir, 'postgres'), {
      ...(options.ports?.postgres !== undefined && { port: options.ports.postgres }), ephemeral: options.ephemeral ?? false, ...logFile('postgres')
    })),
    options.redisUrl === undefined ? part('stores', 'Redis', async () => await startRedis({ ...logFile('redis'), ...options.redis })) : null,
    part('upstream', 'upstream', async () => await startService('upstream', { PORT: String(ports.upstream), ...options.env?.upstream }, logFile('upstream')))
  ])
  const redisUrl = options.redisUrl ?? (redis as Redis).url

  const apisFile = join(dir, 'apis.yaml')
  writePrivate(apisFile, resolveApis(options.apis ?? localApis(), { gateway: url(ports.gateways[0] as number), upstream: upstream.url }))

  const shared = { REDIS_URL: redisUrl, KEYGATE_APIS: apisFile, KEYGATE_METRICS_PORT: '0', LOG_LEVEL: options.logLevel ?? 'info' }
  const launch = async (layer: Layer, label: string, name: ServiceName, env: Env, extra?: ServiceOptions) =>
    await part(layer, label, async () => await startService(name, { ...shared, ...env }, { ...logFile(label), ...extra }))

  const startKeyService = async (env?: Env, extra?: ServiceOptions) => await launch('key-service', 'key-service', 'key-service', {
    KEYGATE_PORT: String(ports.keyService),
    DATABASE_URL: postgres.url,
    KEYGATE_PEPPER_FILE: secrets.pepperFile,
    KEYGATE_ENCRYPTION_KEY_FILE: secrets.encryptionKeyFile,
    KEYGATE_SERVICE_TOKENS_FILE: secrets.tokensFile,
    ...options.env?.keyService,
    ...env
  }, extra)
  const startGateway = async (index: number, env?: Env, extra?: ServiceOptions) => await launch('gateways', `gateway-${index + 1}`, 'gateway', {
    KEYGATE_PORT: String(ports.gateways[index]),
    KEYGATE_KEY_SERVICE_URL: url(ports.keyService),
    KEYGATE_SERVICE_TOKEN: secrets.tokens.gateway,
    KEYGATE_ALLOW_PRIVATE_UPSTREAM: 'true', // all of it is on this machine
    KEYGATE_DRAIN_DELAY_MS: '0', // and no balancer has to learn that it goes
    KEYGATE_SHUTDOWN_TIMEOUT_MS: '10000', // before whoever stops it loses patience
    ...overrides(options.env?.gateway, index),
    ...env
  }, { nodeArgs: options.gatewayNodeArgs?.(index) ?? [], ...extra })

  const [keyService, ...gateways] = await Promise.all([startKeyService(), ...ports.gateways.map(async (_, index) => await startGateway(index))])
  return { postgres, redis, redisUrl, upstream, keyService: keyService as Service, gateways, tokens: secrets.tokens, apisFile, startGateway, startKeyService }
}

// All ports are known before anything starts: the parts can start side by side and the catalogue can name them.
async function choosePorts ({ ports = {}, gateways = 2 }: StackOptions) {
  const used = new Set<number>()
  const choose = async (wanted: number | undefined) => {
    const port = wanted ?? await freePort(undefined, used)
    used.add(port)
    return port
  }
  const chosen: number[] = []
  for (let index = 0; index < gateways; index++) chosen.push(await choose(ports.gateways?.[index]))
  return { gateways: chosen, keyService: await choose(ports.keyService), upstream: await choose(ports.upstream) }
}

function overrides (env: Env | ((index: number) => Env) | undefined, index: number): Env {
  return typeof env === 'function' ? env(index) : env ?? {}
}
