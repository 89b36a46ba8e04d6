import { setTimeout as delay } from 'node:timers/promises'
import type { RedisConnection } from '@keygate/rate-limit'
import { makeKnown, type Ask, type Contender } from './contenders.ts'

/** So many tries at a moment, counted in windows from the beginning of one. */
interface Try { at: number, tries: number }
export interface Schedule { name: string, tries: Try[] }

const every = (from: number, to: number, step: number): Try[] => Array.from({ length: Math.floor((to - from) / step + 1e-9) + 1 }, (_, i) => ({ at: from + i * step, tries: 1 }))

/** Who tries as limiter.md 7.2 tells, to get the most out of one window. */
export function schedules (limit: number): Schedule[] {
  return [
    { name: 'burst at an edge', tries: [{ at: 0, tries: 1 }, { at: 0.97, tries: limit - 1 }, { at: 1.01, tries: limit }] },
    { name: 'one burst of 10 x limit', tries: [{ at: 0, tries: 10 * limit }] },
    { name: 'late burst, then a ramp', tries: [{ at: 0.97, tries: limit }, ...every(1.01, 1.99, 0.25 / limit)] },
    { name: 'a drip at the limit\'s pace', tries: every(0, 4, 1 / limit) },
    { name: 'burst, then ignoring every 429', tries: [{ at: 0, tries: limit }, ...every(0.01, 4, 0.5 / limit)] }
  ]
}

const windowSeconds = 60

/** The most that was admitted in any half-open window, with the time given; in real time, a window of a second, where it cannot be. */
export async function worstAdmitted (connection: RedisConnection, contender: Contender, { tries }: Schedule, limit: number): Promise<number> {
  await connection.client.flushall()
  await makeKnown(connection, ['key_1'])
  const ask = { keyId: 'key_1', limit, windowSeconds: contender.takesTime ? windowSeconds : 1 }
  const admitted = contender.takesTime ? await inGivenTime(contender, ask, tries) : await inRealTime(contender, ask, tries)
  return worstWindow(admitted, ask.windowSeconds * 1e6)
}

async function inGivenTime ({ decide }: Contender, ask: Ask, tries: Try[]): Promise<number[]> {
  const w = ask.windowSeconds * 1e6
  const begin = Math.floor(1_700_000_000_000_000 / w) * w // the beginning of a bucket, for those that have buckets
  const admitted: number[] = []
  for (const { at, tries: count } of tries) {
    const now = begin + Math.round(at * w)
    for (let i = 0; i < count; i++) if (await decide(ask, now)) admitted.push(now)
  }
  return admitted
}

async function inRealTime ({ decide }: Contender, ask: Ask, tries: Try[]): Promise<number[]> {
  const begin = performance.now()
  const admitted: number[] = []
  for (const { at, tries: count } of tries) {
    await delay(Math.max(0, begin + at * ask.windowSeconds * 1000 - performance.now()))
    await Promise.all(Array.from({ length: count }, async () => { if (await decide(ask)) admitted.push(performance.now() * 1000) }))
  }
  return admitted.sort((a, b) => a - b)
}

function worstWindow (times: number[], w: number): number {
  let worst = 0
  let from = 0
  for (const [i, time] of times.entries()) {
    while (time - (times[from] ?? time) >= w) from++
    worst = Math.max(worst, i - from + 1)
  }
  return worst
}
