import type { PolicyBody } from '@keygate/contracts'
import type { FieldError } from '@keygate/service-kit'
import { unacceptable } from '../errors.ts'
import { acceptPolicies } from '../policies/accept-policies.ts'
import { faultOfText, parseName } from '../text.ts'
import { canonicalHost } from './allowed-hosts.ts'
import { parseExpiry } from './expiry.ts'
import type { EditKey } from './schemas.ts'

/** What a key is set to, as it is stored. */
export interface KeySettings {
  name: string
  description: string | null
  scopes: string[]
  allowedForAll: boolean
  expiresAt: Date | null
  allowedHosts: string[] | null
  policies: PolicyBody[] | null
}

export interface Surroundings {
  /** The database's clock, in Unix milliseconds. */
  now: number
  /** Every scope of the catalogue. */
  knownScopes: ReadonlySet<string>
}

/**
 * Judges the values of a well-formed body and brings them into their stored form; fields that are absent stay absent.
 *
 * @throws {ProblemError} 422 with all faults at once.
 */
export function acceptSettings (body: EditKey, { now, knownScopes }: Surroundings): Partial<KeySettings> {
  const faults: FieldError[] = []
  const settings: Partial<KeySettings> = {}
  if (body.name !== undefined) {
    const parsed = parseName(body.name)
    if ('fault' in parsed) faults.push({ pointer: '/name', message: parsed.fault })
    else settings.name = parsed.name
  }
  if (body.description !== undefined) {
    const fault = body.description === null ? undefined : faultOfText(body.description)
    if (fault !== undefined) faults.push({ pointer: '/description', message: fault })
    settings.description = body.description
  }
  if (body.scopes !== undefined) {
    settings.scopes = [...new Set(body.scopes)].sort()
    body.scopes.forEach((scope, index) => {
      if (!knownScopes.has(scope)) faults.push({ pointer: `/scopes/${index}`, message: 'is not a scope of the catalogue' })
    })
  }
  if (body.allowedForAll !== undefined) settings.allowedForAll = body.allowedForAll
  if (body.expiresAt === null) settings.expiresAt = null
  if (typeof body.expiresAt === 'string') {
    const parsed = parseExpiry(body.expiresAt, now)
    if ('fault' in parsed) faults.push({ pointer: '/expiresAt', message: parsed.fault })
    else settings.expiresAt = parsed.at
  }
  if (body.allowedHosts !== undefined) settings.allowedHosts = acceptHosts(body.allowedHosts, faults)
  if (body.policies !== undefined) {
    const accepted = body.policies === null ? { policies: null, faults: [] } : acceptPolicies(body.policies)
    faults.push(...accepted.faults)
    settings.policies = accepted.policies
  }
  if (faults.length > 0) throw unacceptable(faults)
  return settings
}

function acceptHosts (hosts: string[] | null, faults: FieldError[]): string[] | null {
  if (hosts === null) return null
  const accepted = hosts.flatMap((host, index) => {
    const canonical = canonicalHost(host)
    if (canonical === undefined) faults.push({ pointer: `/allowedHosts/${index}`, message: 'must be an IPv4 or IPv6 address or a CIDR, without port or zone' })
    return canonical ?? []
  })
  return [...new Set(accepted)]
}
