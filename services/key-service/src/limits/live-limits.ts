import { wholeSeconds, type KeyLimit, type RedisStore } from '@keygate/rate-limit'
import { isPerAddress } from './applicable.ts'
import type { LiveLimit } from './schemas.ts'

/** What a window strip can show. */
const shownAdmissions = 120

interface Reading { remaining: number, resetMs: number, admittedAgoMs: number[] }

/**
 * The limits as they stand, without counting anything: the numbers are those that the next request's answer would be made from.
 *
 * @throws {StoreUnavailableError} Redis cannot answer.
 */
export async function readLiveLimits (store: RedisStore, limits: KeyLimit[]): Promise<LiveLimit[]> {
  const readable = limits.filter(limit => !isPerAddress(limit))
  const readings = await read(store, readable)
  return limits.map(limit => view(limit, readings[readable.indexOf(limit)]))
}

async function read (store: RedisStore, limits: KeyLimit[]): Promise<Reading[]> {
  if (limits.length === 0) return []
  const { policies, nowMs } = await store.peek(limits)
  const admissions = await store.newestAdmissions(limits, shownAdmissions)
  return policies.map(({ policy, remaining, resetMs }, i) => {
    // Read a moment after the numbers: what was admitted in between is left out, as it is in them.
    const ages = (admissions[i] ?? []).map(at => nowMs - at)
    return { remaining, resetMs, admittedAgoMs: ages.filter(age => age >= 0 && age < policy.windowSeconds * 1000) }
  })
}

function view ({ policy, owner }: KeyLimit, reading: Reading | undefined): LiveLimit {
  const { name, limit, windowSeconds, algorithm, partition } = policy
  return {
    api: 'api' in owner ? owner.api : null,
    operation: 'operation' in owner ? owner.operation : null,
    owner: owner.kind,
    name,
    limit,
    windowSeconds,
    algorithm,
    partition,
    remaining: reading?.remaining ?? null,
    resetSeconds: reading === undefined ? null : wholeSeconds(reading.resetMs),
    admittedAgoMs: reading?.admittedAgoMs ?? []
  }
}
