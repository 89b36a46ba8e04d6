import type { PolicyBody } from '@keygate/contracts'
import { createRandom, type Random } from './random.ts'
import { occasions, owners, places, purposes, stages, systems } from './words.ts'

/** What is stored of a seeded key, except its ids and its secret. Times in Unix milliseconds. */
export interface SeededKey {
  name: string
  description: string | null
  status: 'active' | 'disabled' | 'revoked'
  allowedForAll: boolean
  scopes: string[]
  allowedHosts: string[]
  policies: PolicyBody[]
  createdAt: number
  expiresAt: number | null
  lastUsedAt: number | null
}

export interface Source {
  /** Another one gives other keys; the same one the same. */
  seed: number
  /** Unix milliseconds. */
  now: number
  /** Of the catalogue. */
  scopes: readonly string[]
}

const minute = 60_000
const day = 24 * 60 * minute

/** The key at a place in the row of keys that a seed stands for. The number in its name makes it one that can be searched for. */
export function makeKey (index: number, { seed, now, scopes }: Source): SeededKey {
  const random = createRandom(Math.imul(seed, 0x01000193) ^ Math.imul(index, 0x85ebca6b))
  const createdAt = now - random.below(730 * day)
  const allowedForAll = random.percent(15)
  return {
    name: `${random.pick(systems)} ${random.pick(purposes)}, ${random.pick(places)} ${String(index).padStart(5, '0')}`,
    description: random.percent(30) ? null : `${random.pick(stages)}, for ${random.pick(owners)}. ${random.pick(occasions)}`,
    status: random.percent(5) ? 'disabled' : random.percent(4) ? 'revoked' : 'active',
    allowedForAll,
    scopes: allowedForAll ? [] : someOf(random, scopes, 4),
    allowedHosts: random.percent(10) ? hosts(random) : [],
    policies: random.percent(8) ? [policy(random)] : [],
    createdAt,
    expiresAt: random.percent(20) ? expiry(random, createdAt, now) : null,
    lastUsedAt: random.percent(70) ? lastUse(random, createdAt, now) : null
  }
}

/** A third of those that end have ended. */
function expiry (random: Random, createdAt: number, now: number): number {
  return random.below(3) === 0 ? createdAt + random.below(Math.max(1, now - createdAt)) : now + day + random.below(365 * day)
}

/** In steps of a minute, as the service writes it, and never before there was the key. */
function lastUse (random: Random, createdAt: number, now: number): number {
  return Math.max(createdAt, Math.floor((now - random.below(60 * day)) / minute) * minute)
}

/** At least one, if there is any. */
function someOf (random: Random, list: readonly string[], most: number): string[] {
  if (list.length === 0) return []
  return [...new Set(Array.from({ length: 1 + random.below(most) }, () => random.pick(list)))].sort()
}

/** Of the networks for documentation (RFC 5737): they are nobody's. */
function hosts (random: Random): string[] {
  const single = `198.51.100.${1 + random.below(254)}`
  return random.percent(50) ? [single] : [single, '203.0.113.0/24']
}

function policy (random: Random): PolicyBody {
  return { name: 'default', limit: random.pick([20, 60, 600]), windowSeconds: random.pick([60, 3600]), algorithm: 'sliding', partition: 'key' }
}
