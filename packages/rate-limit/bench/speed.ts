import type { RedisConnection } from '@keygate/rate-limit'
import { makeKnown, type Ask, type Contender } from './contenders.ts'
import { lowerQuartile, median, scriptCost, serverMicros } from './redis.ts'

export interface Speed { perSecond: number, scriptMicros: number, serverMicros: number, nodeMicros: number, admitted: number }

/** What kind of requests: all admitted, all denied, or more than the limit all the time, so that entries leave as others come. */
export interface Mix { name: string, limit: number, windowSeconds: number, keys: number, before: number, rounds: number, batch: number }

export const mixes: Mix[] = [
  { name: 'all admitted', limit: 1000, windowSeconds: 3600, keys: 100, before: 0, rounds: 11, batch: 2000 },
  { name: 'all denied', limit: 20, windowSeconds: 3600, keys: 100, before: 20, rounds: 11, batch: 2000 },
  { name: 'at the limit, window 1 s', limit: 200, windowSeconds: 1, keys: 50, before: 0, rounds: 3, batch: 40_000 }
]

const atOnce = 64

/** Contenders take turns, so that a busy machine is as busy for each. Of the rounds, costs are the lower quartile, the others medians. */
export async function speed (connection: RedisConnection, all: Contender[], mix: Mix): Promise<Map<string, Speed>> {
  await connection.client.flushall()
  const asks = Array.from({ length: mix.keys }, (_, i): Ask => ({ keyId: `key_${i}`, limit: mix.limit, windowSeconds: mix.windowSeconds }))
  await makeKnown(connection, asks.map(({ keyId }) => keyId))
  for (const contender of all) await run(contender, asks, Math.max(mix.before * mix.keys, 200))
  const found = new Map(all.map(({ name }) => [name, [] as Speed[]]))
  for (let round = 0; round < mix.rounds; round++) {
    for (const contender of all) found.get(contender.name)?.push(await once(connection, contender, asks, mix.batch))
  }
  const middle = (name: string, of: (speed: Speed) => number): number => median((found.get(name) ?? []).map(of))
  const low = (name: string, of: (speed: Speed) => number): number => lowerQuartile((found.get(name) ?? []).map(of))
  return new Map(all.map(({ name }) => [name, {
    perSecond: middle(name, s => s.perSecond),
    scriptMicros: low(name, s => s.scriptMicros),
    serverMicros: low(name, s => s.serverMicros),
    nodeMicros: low(name, s => s.nodeMicros),
    admitted: middle(name, s => s.admitted)
  }]))
}

async function once (connection: RedisConnection, contender: Contender, asks: Ask[], batch: number): Promise<Speed> {
  await scriptCost(connection)
  const server = await serverMicros(connection)
  const node = process.cpuUsage()
  const begun = performance.now()
  const admitted = await run(contender, asks, batch)
  const took = performance.now() - begun
  const { user, system } = process.cpuUsage(node)
  const used = await serverMicros(connection) - server
  const { calls, micros } = await scriptCost(connection)
  return { perSecond: batch / took * 1000, scriptMicros: micros / calls, serverMicros: used / batch, nodeMicros: (user + system) / batch, admitted: admitted / batch }
}

async function run ({ decide }: Contender, asks: Ask[], count: number): Promise<number> {
  let next = 0
  let admitted = 0
  await Promise.all(Array.from({ length: atOnce }, async () => {
    while (next < count) if (await decide(asks[next++ % asks.length] as Ask)) admitted++
  }))
  return admitted
}
