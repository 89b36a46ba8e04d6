import type { Catalogue } from '@keygate/api-catalog'
import { createRandom, type Random } from './random.ts'

/** One operation that a key calls, and how. `seed` is for the draws that PostgreSQL makes of it. */
export interface Strand {
  /** Of the key in the row of keys. */
  place: number
  seed: number
  keyId: string
  secretId: string
  api: string
  operation: string
  method: string
  scope: string
  /** Requests in a minute that has some, on average. */
  pace: number
  /** Besides one hour of each day that is always in use: how likely each other hour is, before the rhythm; 1 or more: all. */
  hours: number
  /** In an hour that is in use, besides one minute: how likely each other minute is. */
  minutes: number
  /** From so many places the key is called. */
  callers: number
  logged: boolean
}

/** What a key can be used for. */
export interface Target { api: string, operation: string, method: string, scope: string }

export interface KeyAtPlace { place: number, keyId: string, secretId: string }

/** How much is going on, by kind of key. Together they come to hours at 10 % and minutes at 1 %. */
const hot = { strands: 2, hours: 100, minutes: 0.9, pace: [40, 200], callers: 40 } as const
const busy = { strands: 1, hours: 0.5, minutes: 0.2, pace: [3, 20], callers: 8 } as const
const quiet = { strands: 1, hours: 0.045, minutes: 0.05, pace: [1, 6], callers: 4 } as const

/**
 * What a key is used for: of a thousand keys one is hot, twenty are busy, and a tenth of the others do two things. The same seed gives the
 * same, whatever ids the keys have.
 */
export function strandsOf ({ place, keyId, secretId }: KeyAtPlace, targets: readonly Target[], seed: number): Strand[] {
  const random = createRandom(Math.imul(seed, 0x01000193) ^ Math.imul(place, 0x85ebca6b) ^ 0x5f3759df)
  const kind = place % 1000 === 0 ? hot : place % 50 === 1 ? busy : quiet
  const count = kind === quiet && random.percent(10) ? 2 : kind.strands
  const callers = kind === quiet && random.percent(60) ? 0 : 1 + random.below(kind.callers)
  const logged = kind === hot || place % 100 === 2
  return chosen(random, targets, count).map(target => ({
    place,
    seed: random.below(2 ** 31),
    keyId,
    secretId,
    ...target,
    pace: kind.pace[0] + random.below(kind.pace[1]),
    hours: kind.hours,
    minutes: kind.minutes,
    callers,
    logged
  }))
}

/** Neighbours in the list: so none comes twice. */
function chosen (random: Random, targets: readonly Target[], count: number): Target[] {
  const first = random.below(targets.length)
  return Array.from({ length: Math.min(count, targets.length) }, (_, i) => targets[(first + i) % targets.length] as Target)
}

/** What keys are used for most: the first operations of each API that are open to keys. */
export function targetsOf ({ apis }: Pick<Catalogue, 'apis'>): Target[] {
  return apis.flatMap(({ name, operations }) => operations.filter(({ access }) => access === 'key').slice(0, operationsOfApi).map(({ id, method, scopes }) => ({
    api: name, operation: id, method, scope: scopes[0] ?? ''
  })))
}

/** As many as a list of them shows. */
const operationsOfApi = 20

const hourMs = 3_600_000
const dayMs = 24 * hourMs
const yearMs = 365 * dayMs

/** How much goes on in an hour or on a day (UTC), 1 on average: offices work on weekdays, and it grows by the year. */
export interface Beat { slot: number, rhythm: number }

/** @param from Unix milliseconds at the beginning of an hour; each hour from there to before `until` and to that of `nowMs`. */
export function hoursBetween (from: number, until: number, nowMs: number): Beat[] {
  const beats: Beat[] = []
  for (let ms = from; ms < until && ms <= nowMs; ms += hourMs) beats.push({ slot: ms / hourMs, rhythm: ofDay(ms) * ofHour(ms) * ofYear(ms, nowMs) })
  return beats
}

/** @param from Unix milliseconds at the beginning of a day. */
export function daysBetween (from: number, until: number, nowMs: number): Beat[] {
  const beats: Beat[] = []
  for (let ms = from; ms < until && ms <= nowMs; ms += dayMs) beats.push({ slot: ms / dayMs, rhythm: ofDay(ms) * ofYear(ms, nowMs) })
  return beats
}

function ofDay (ms: number): number {
  const day = new Date(ms).getUTCDay()
  return day === 0 ? 0.35 : day === 6 ? 0.45 : 1.25
}

function ofHour (ms: number): number {
  const hour = new Date(ms).getUTCHours()
  return hour >= 8 && hour < 18 ? 1.8 : hour >= 6 && hour < 22 ? 0.7 : 0.3
}

function ofYear (ms: number, nowMs: number): number {
  return Math.max(0.1, 1.3 - 0.6 * (nowMs - ms) / yearMs)
}
