import type { Policy } from './catalogue.ts'
import { Faults, quote, suggest } from './fault.ts'
import { child, isObject, items, pathText, type Located } from './source.ts'

const algorithms = ['sliding', 'fixed'] as const
const partitions = ['key', 'project', 'address'] as const
const whenStoreIsDown = ['local', 'open', 'closed'] as const
const settings = ['name', 'limit', 'window', 'windowSeconds', 'algorithm', 'partition', 'whenStoreIsDown']
const secondsPer = { s: 1, m: 60, h: 3600 } as const

/** A sliding policy keeps one stamp per admitted request; beyond this the log costs more than its exactness is worth. */
const slidingLimit = 100_000
/** RFC 9651 section 3.3.1: a header cannot carry a longer Integer. */
const highestLimit = 999_999_999_999_999
/** A leap year. What is longer than that is no rate. */
const longestWindowSeconds = 366 * 24 * 3600

/** What an API without `policies` gets. */
export const defaultPolicies: readonly Policy[] = [
  { name: 'default', limit: 120, windowSeconds: 60, algorithm: 'sliding', partition: 'key' }
]

/** What an API without `anonymousPolicies` gets. */
export const defaultAnonymousPolicies: readonly Policy[] = [
  { name: 'anonymous', limit: 500, windowSeconds: 60, algorithm: 'sliding', partition: 'address' }
]

/**
 * Reads a list of policies as a person writes it: `limit` with `windowSeconds` (a number) or `window` (`60s`, `1m`, `1h`).
 *
 * `algorithm` defaults to `sliding`, `partition` to `key`, `whenStoreIsDown` to `local`, which is left out. With faults, `policies` holds only those without one.
 *
 * @param input the parsed list.
 * @param at the name of the setting, e.g. `KEYGATE_POLICIES`; every fault begins with it.
 */
export function parsePolicies (input: unknown, at: string): { policies: Policy[], faults: string[] } {
  const faults = new Faults()
  const source = { name: at, place: (path: ReadonlyArray<string | number>) => at + (typeof path[0] === 'string' ? '.' : '') + pathText(path) }
  const policies = readPolicies({ value: input, source, path: [] }, faults)
  return { policies, faults: faults.list }
}

/** As `parsePolicies`, for a list inside a file. `only` names the one partition that makes sense there. */
export function readPolicies (list: Located, faults: Faults, only?: Policy['partition']): Policy[] {
  if (!Array.isArray(list.value)) {
    faults.add(list, `must be a list of policies, not ${quote(list.value)}. Write for example [{ name: default, limit: 120, window: 60s }].`)
    return []
  }
  if (list.value.length === 0) {
    faults.add(list, 'is an empty list, which would limit nothing. Leave the setting out, or name a policy.')
  }
  const names = new Set<string>()
  const policies: Policy[] = []
  for (const item of items(list)) {
    const policy = readPolicy(item, faults, only)
    if (policy === undefined) continue
    if (names.has(policy.name)) faults.add(child(item, 'name'), `${quote(policy.name)} is used twice in this list. Give each policy its own name.`)
    names.add(policy.name)
    policies.push(policy)
  }
  return policies
}

function readPolicy (item: Located, faults: Faults, only?: Policy['partition']): Policy | undefined {
  if (!isObject(item.value)) {
    faults.add(item, `must be a policy, not ${quote(item.value)}. Write for example { name: default, limit: 120, window: 60s }.`)
    return undefined
  }
  for (const key of Object.keys(item.value)) {
    if (!settings.includes(key)) faults.add(child(item, key), `is not a setting of a policy; ${suggest(key, settings)}`)
  }
  const name = readName(child(item, 'name'), faults)
  const algorithm = readChoice(child(item, 'algorithm'), algorithms, 'sliding', faults)
  const partition = readChoice(child(item, 'partition'), only === undefined ? partitions : [only], only ?? 'key', faults)
  const whenDown = readChoice(child(item, 'whenStoreIsDown'), whenStoreIsDown, 'local', faults)
  const limit = readLimit(child(item, 'limit'), algorithm, faults)
  const windowSeconds = readWindow(item, faults)
  if (name === undefined || algorithm === undefined || partition === undefined || whenDown === undefined || limit === undefined || windowSeconds === undefined) return undefined
  return { name, limit, windowSeconds, algorithm, partition, ...(whenDown !== 'local' && { whenStoreIsDown: whenDown }) }
}

function readName (at: Located, faults: Faults): string | undefined {
  // Printable ASCII: the name is written into a header as a String of RFC 9651 section 3.3.3.
  if (typeof at.value === 'string' && /^[\x20-\x7e]{1,64}$/.test(at.value)) return at.value
  faults.add(at, missingOr(at, 'must be a text of 1 to 64 printable ASCII characters') + ' Write for example "name: default".')
}

function readLimit (at: Located, algorithm: Policy['algorithm'] | undefined, faults: Faults): number | undefined {
  if (!isWhole(at.value, highestLimit)) {
    faults.add(at, missingOr(at, `must be a whole number from 1 to ${highestLimit}`) + ' Write for example "limit: 120".')
    return undefined
  }
  if (algorithm === 'sliding' && at.value > slidingLimit) {
    faults.add(at, `${at.value} is more than a sliding policy may have (${slidingLimit}). Add "algorithm: fixed", or lower the limit.`)
    return undefined
  }
  return at.value
}

function readWindow (item: Located, faults: Faults): number | undefined {
  const text = child(item, 'window')
  const seconds = child(item, 'windowSeconds')
  if (text.value !== undefined && seconds.value !== undefined) {
    faults.add(text, 'is given beside "windowSeconds". Remove one of the two.')
    return undefined
  }
  if (seconds.value !== undefined) {
    if (isWhole(seconds.value, longestWindowSeconds)) return seconds.value
    faults.add(seconds, missingOr(seconds, `must be a whole number of seconds from 1 to ${longestWindowSeconds}`) + ' Write for example "windowSeconds: 60".')
    return undefined
  }
  const parts = typeof text.value === 'string' ? /^([1-9]\d{0,8})([smh])$/.exec(text.value) : null
  const window = parts === null ? undefined : Number(parts[1]) * secondsPer[parts[2] as keyof typeof secondsPer]
  if (window !== undefined && window <= longestWindowSeconds) return window
  faults.add(text, missingOr(text, `must be a time of at most ${longestWindowSeconds / 86400} days in seconds, minutes or hours`) +
    ' Write for example "window: 60s", "1m" or "1h".')
}

function readChoice<T extends string> (at: Located, choices: readonly T[], otherwise: T, faults: Faults): T | undefined {
  if (at.value === undefined) return otherwise
  if (choices.includes(at.value as T)) return at.value as T
  faults.add(at, `must be ${choices.map(quote).join(' or ')}, not ${quote(at.value)}.`)
}

function isWhole (value: unknown, highest: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= highest
}

function missingOr (at: Located, wanted: string): string {
  return at.value === undefined ? 'is missing.' : `${wanted}, not ${quote(at.value)}.`
}
