import type { PolicyBody } from '@keygate/contracts'
import type { FieldError } from '@keygate/service-kit'
import { acceptPolicies } from '../policies/accept-policies.ts'
import type { Role } from '../roles/repository.ts'
import { faultOfText, parseName } from '../text.ts'
import { canonicalHost } from './allowed-hosts.ts'
import { endOfDayIn, parseExpiry } from './expiry.ts'
import type { KnownScopes } from './known-scopes.ts'
import { faultsOfLogging, patchLogging, writeLogging, type KeyLogging } from './logging.ts'
import type { EditKey } from './schemas.ts'

/** What a key is set to. */
export interface KeySettings {
  name: string
  description: string | null
  scopes: string[]
  allowedForAll: boolean
  role: Role | null
  expiresAt: Date | null
  allowedHosts: string[] | null
  policies: PolicyBody[] | null
  logging: KeyLogging
  sealed: boolean
}

/** What of a key decides about the values that it may be given. */
export type KeyState = Pick<KeySettings, 'scopes' | 'allowedForAll' | 'role' | 'logging'>

export interface Surroundings {
  /** The database's clock, in Unix milliseconds. */
  now: number
  knownScopes: KnownScopes
  /** No key may be made to live longer than so many days from now; undefined: for ever, if wished. */
  maxDays: number | undefined
  /** The project's role of the name that the body gives; undefined: there is none. */
  role: Role | undefined
  /** The key before the change. */
  present: KeyState
  /** Why its secret cannot be revealed, whatever is asked for; undefined: it can. */
  sealedBecause: string | undefined
}

export interface AcceptedSettings { settings: Partial<KeySettings>, faults: FieldError[] }

/** Judges the values of a well-formed body and brings them into their stored form; fields that are absent stay absent. */
export function acceptSettings (body: EditKey, surroundings: Surroundings): AcceptedSettings {
  const faults: FieldError[] = []
  const settings: Partial<KeySettings> = {}
  acceptTexts(body, settings, faults)
  acceptSelection(body, surroundings, settings, faults)
  if (body.expiresAt !== undefined) settings.expiresAt = acceptExpiry(body.expiresAt, surroundings, faults)
  if (body.allowedHosts !== undefined) settings.allowedHosts = acceptHosts(body.allowedHosts, faults)
  if (body.policies !== undefined) {
    const accepted = body.policies === null ? { policies: null, faults: [] } : acceptPolicies(body.policies)
    faults.push(...accepted.faults)
    settings.policies = accepted.policies
  }
  if (body.sealed !== undefined) {
    if (!body.sealed && surroundings.sealedBecause !== undefined) faults.push({ pointer: '/sealed', message: surroundings.sealedBecause })
    settings.sealed = body.sealed
  }
  return { settings, faults }
}

/** As the audit trail shows them. */
export function describeSettings ({ role, logging, ...others }: Partial<KeySettings>): Record<string, unknown> {
  return { ...others, ...role !== undefined && { role: role?.name ?? null }, ...logging !== undefined && { logging: writeLogging(logging) } }
}

function acceptTexts (body: EditKey, settings: Partial<KeySettings>, faults: FieldError[]): void {
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
}

function acceptExpiry (expiresAt: string | null, { now, maxDays }: Surroundings, faults: FieldError[]): Date | null {
  const parsed = expiresAt === null ? { at: null } : parseExpiry(expiresAt, now)
  const last = maxDays === undefined ? undefined : endOfDayIn(maxDays, now)
  const fault = 'fault' in parsed
    ? parsed.fault
    : last !== undefined && (parsed.at === null || parsed.at > last)
      ? `must be given, and at or before ${last.toISOString()}: keys live at most ${maxDays} days here`
      : undefined
  if (fault !== undefined) faults.push({ pointer: '/expiresAt', message: fault })
  return 'fault' in parsed ? null : parsed.at
}

/** What the key may call, and what of that is logged: judged together, as they would be after the change. */
function acceptSelection (body: EditKey, { knownScopes, role, present, now }: Surroundings, settings: Partial<KeySettings>, faults: FieldError[]): void {
  if (body.scopes !== undefined) {
    settings.scopes = [...new Set(body.scopes)].sort()
    body.scopes.forEach((scope, index) => {
      if (!knownScopes.all.has(scope)) faults.push({ pointer: `/scopes/${index}`, message: 'is not a scope of the catalogue' })
    })
  }
  if (body.allowedForAll !== undefined) settings.allowedForAll = body.allowedForAll
  if (body.role !== undefined) {
    if (body.role !== null && role === undefined) faults.push({ pointer: '/role', message: 'is not the name of a role of this project' })
    settings.role = role ?? null
  }
  if (body.logging !== undefined) {
    const patched = patchLogging(present.logging, body.logging, now)
    faults.push(...patched.faults)
    settings.logging = patched.logging
  }
  const concernsLogging = ['scopes', 'allowedForAll', 'role', 'logging'].some(field => field in body)
  if (concernsLogging) faults.push(...faultsOfLogging(settings.logging ?? present.logging, { ...present, ...settings }, body, knownScopes.covered))
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
