import type { RedisConnection } from '@keygate/rate-limit'

/** What Redis has spent on scripts since the last look: calls, and microseconds inside them. */
export async function scriptCost ({ client }: RedisConnection): Promise<{ calls: number, micros: number }> {
  const info = await client.info('commandstats')
  await client.config('RESETSTAT')
  const [, calls, micros] = /cmdstat_evalsha:calls=(\d+),usec=(\d+)/.exec(info) ?? []
  return { calls: Number(calls ?? 0), micros: Number(micros ?? 0) }
}

/** Processor time of the whole server so far, microseconds: also reading, writing and parsing. */
export async function serverMicros ({ client }: RedisConnection): Promise<number> {
  const info = await client.info('cpu')
  const seconds = (name: string): number => Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(info)?.[1])
  return (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1e6
}

export const median = (values: number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN

/** What something costs when nobody else disturbs it, as far as that can be had on a machine that others use too. */
export const lowerQuartile = (values: number[]): number => [...values].sort((a, b) => a - b)[values.length >> 2] ?? NaN
