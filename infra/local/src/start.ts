import { join } from 'node:path'
import { alreadyRunning, banner } from './banner.ts'
import { demoKey } from './demo-project.ts'
import { createKeyServiceClient } from './key-service-client.ts'
import { LocalError } from './local-error.ts'
import { readLocalRun, stateDir, writeLocalRun } from './local-file.ts'
import { takeLock } from './lock.ts'
import { localPorts } from './ports.ts'
import { bold, print, printFailure } from './print.ts'
import { findRedisServer, NoRedisServer, type RedisServer } from './redis-server.ts'
import { checkRedisUrl } from './redis-url.ts'
import { startStack, type Stack, type StackOptions } from './stack.ts'

const logDir = join(stateDir, 'logs')

/** Starts everything, says how to use it, and waits until it is told to stop (0) or a part ends by itself (1). */
async function main (stopping: AbortSignal): Promise<number> {
  const lock = takeLock(join(stateDir, 'lock'))
  if ('heldBy' in lock) throw new LocalError(alreadyRunning(lock.heldBy, readLocalRun()))
  try {
    const stack = await start(stopping)
    const ended = await Promise.race([firstToEnd(stack), aborted(stopping)])
    print(ended === undefined ? '\nStopping ...' : `\nThe ${ended} ended by itself; stopping the rest. Its last words are in ${join(logDir, ended)}.log`)
    await stack.stop()
    print('Stopped.')
    return ended === undefined ? 0 : 1
  } catch (error) {
    if (!stopping.aborted) throw error
    print('\nStopped before everything had started.')
    return 0
  } finally {
    lock.release()
  }
}

async function start (signal: AbortSignal): Promise<Stack> {
  const earlier = readLocalRun()
  const redis = await chooseRedis(signal)
  const alone = 'missing' in redis
  const ports = await localPorts(earlier, print, !alone)
  print(`Starting PostgreSQL, ${alone ? '' : 'Redis, '}the demo API, key-service and ${alone ? 'one gateway' : 'two gateways'}`)
  const stack = await startStack({
    dir: stateDir,
    logDir,
    signal,
    ports,
    ...(process.env['LOG_LEVEL'] !== undefined && { logLevel: process.env['LOG_LEVEL'] }),
    ...redisOptions(redis, ports.redis),
    onReady: (part, seconds) => print(`  ${part.padEnd(12)} ${seconds.toFixed(1)} s`)
  })
  try {
    const { how, ...key } = await demoKey(createKeyServiceClient(stack.keyService.url, stack.tokens.operator), earlier)
    const run = {
      keyService: stack.keyService.url,
      gateways: stack.gateways.map(gateway => gateway.url),
      upstream: stack.upstream.url,
      ...key,
      operatorToken: stack.tokens.operator,
      dashboard: null,
      redis: alone ? null : stack.redisUrl,
      postgres: stack.postgres.url,
      example: `/app/api/v1/forms/${key.projectId}`
    }
    writeLocalRun(run)
    if (!signal.aborted) print(banner(run, how, stateDir))
    return stack
  } catch (error) {
    await stack.stop()
    throw error
  }
}

type RedisChoice = { url: string } | { server: RedisServer } | { missing: true }

/** A Redis that the user names, or that is here but does not work, is an error; none at all is not. */
async function chooseRedis (signal: AbortSignal): Promise<RedisChoice> {
  const url = process.env['REDIS_URL']
  if (url !== undefined && url !== '') {
    await checkRedisUrl(url)
    print('Using the Redis that REDIS_URL names')
    return { url }
  }
  try {
    return { server: await findRedisServer({ signal, log: print }) }
  } catch (error) {
    if (!(error instanceof NoRedisServer)) throw error
    print(bold('No Redis here, so ONE gateway will count alone:'))
    for (const line of error.tried) print(`  - ${line}`)
    return { missing: true }
  }
}

/** Without a Redis the services are given an address at which nothing listens: they work as they do while Redis is down. */
function redisOptions (choice: RedisChoice, port: number): Pick<StackOptions, 'redis' | 'redisUrl' | 'gateways' | 'env'> {
  if ('url' in choice) return { redisUrl: choice.url }
  if ('server' in choice) return { redis: { server: choice.server, port, dir: join(stateDir, 'redis'), args: ['--appendonly', 'yes'] } }
  return { redisUrl: `redis://127.0.0.1:${port}`, gateways: 1, env: { gateway: { KEYGATE_REPLICAS: '1' } } }
}

// The name is also that of its log.
async function firstToEnd (stack: Stack): Promise<string> {
  return await Promise.race([
    stack.postgres.ended.then(() => 'postgres'),
    ...(stack.redis === null ? [] : [stack.redis.ended.then(() => 'redis')]),
    stack.upstream.exited.then(() => 'upstream'),
    stack.keyService.exited.then(() => 'key-service'),
    ...stack.gateways.map(async (gateway, index) => await gateway.exited.then(() => `gateway-${index + 1}`))
  ])
}

async function aborted (signal: AbortSignal): Promise<undefined> {
  if (!signal.aborted) await new Promise(resolve => { signal.addEventListener('abort', resolve, { once: true }) })
  return undefined
}

// A Ctrl-C arrives twice under npm (from the terminal and from npm): the second one changes nothing. One that comes later is
// impatience: we go at once, and every child ends because we are gone.
function listenForStop (): AbortSignal {
  const controller = new AbortController()
  let first: number | undefined
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      first ??= Date.now()
      if (Date.now() - first > 5_000) process.exit(1)
      controller.abort()
    })
  }
  return controller.signal
}

process.stdout.on('error', () => {}) // the reader of our output may go before us
process.exitCode = await main(listenForStop()).catch((error: unknown) => {
  printFailure(error)
  return 1
})
