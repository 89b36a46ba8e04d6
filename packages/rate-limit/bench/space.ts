import type { RedisConnection } from '@keygate/rate-limit'
import { makeKnown, type Contender } from './contenders.ts'
import { median, scriptCost } from './redis.ts'

/** Bytes in Redis of one key that has used up its limit. */
export async function memory (connection: RedisConnection, contender: Contender, limit: number): Promise<number> {
  const { client } = connection
  await client.flushall()
  await makeKnown(connection, ['key_1'])
  const ask = { keyId: 'key_1', limit, windowSeconds: 3600 }
  // The others hold the same for one as for a hundred thousand.
  const isOurs = contender.name.startsWith('ours')
  for (let admitted = 0; admitted < limit; admitted += isOurs ? 1000 : limit) await contender.decide({ ...ask, cost: isOurs ? Math.min(1000, limit - admitted) : 1 })
  let bytes = 0
  for (const key of await client.keys(`${contender.keys(ask).replaceAll(/[[\]*?\\]/g, '\\$&')}*`)) bytes += Number(await client.call('MEMORY', 'USAGE', key, 'SAMPLES', '0'))
  return bytes
}

export interface Stall { name: string, medianMicros: number, worstMicros: number }

/** What one call costs Redis when so many entries leave the window at once. Times are given, so nobody waits for them. */
export async function stalls (connection: RedisConnection, { decide }: Contender, entries: number): Promise<Stall[]> {
  const cases = [
    { name: `all of ${entries} expire`, early: entries, late: 0 },
    { name: `all but one of ${entries} expire`, early: entries - 1, late: 1 },
    { name: `half of ${entries} expire`, early: entries / 2, late: entries / 2 }
  ]
  const found: Stall[] = []
  for (const { name, early, late } of cases) {
    const costs: number[] = []
    for (let round = 0; round < 9; round++) {
      await connection.client.flushall()
      const ask = { keyId: 'key_1', limit: entries, windowSeconds: 3600 }
      const begin = 1_700_000_000_000_000
      await decide({ ...ask, cost: early }, begin)
      if (late > 0) await decide({ ...ask, cost: late }, begin + 1_800_000_000)
      await scriptCost(connection)
      await decide(ask, begin + (late > 0 ? 3_600_000_000 : 7_200_000_000))
      costs.push((await scriptCost(connection)).micros)
    }
    found.push({ name, medianMicros: median(costs), worstMicros: Math.max(...costs) })
  }
  return found
}
