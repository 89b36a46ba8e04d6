import { join } from 'node:path'
import { alreadyRunning, banner } from './banner.ts'
import { demoKey } from './demo-project.ts'
import { createKeyServiceClient } from './key-service-client.ts'
import { LocalError } from './local-error.ts'
import { readLocalRun, stateDir, writeLocalRun } from './local-file.ts'
import { takeLock } from './lock.ts'
import { localPorts } from './ports.ts'
import { print, printFailure } from './print.ts'
import { findRedisServer, type RedisServer } from './redis-server.ts'
import { checkRedisUrl } from './redis-url.ts'
import { startStack, type Stack } from './stack.ts'

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
  const ports = await localPorts(earlier, print)
  print('Starting PostgreSQL, Redis, the demo API, key-service and two gateways')
  const stack = await startStack({
    dir: stateDir,
    logDir,
    signal,
    ports,
    ...(process.env['LOG_LEVEL'] !== undefined && { logLevel: process.env['LOG_LEVEL'] }),
    ...('url' in redis
      ? { redisUrl: redis.url }
      : { redis: { server: redis.server, port: ports.redis, dir: join(stateDir, 'redis'), args: ['--appendonly', 'yes'] } }),
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
      redis: stack.redisUrl,
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

async function chooseRedis (signal: AbortSignal): Promise<{ url: string } | { server: RedisServer }> {
  const url = process.env['REDIS_URL']
  if (url === undefined || url === '') return { server: await findRedisServer({ signal, log: print }) }
  await checkRedisUrl(url)
  print('Using the Redis that REDIS_URL names')
  return { url }
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
