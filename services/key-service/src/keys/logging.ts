import type { FieldError } from '@keygate/service-kit'
import { parseExpiry } from './expiry.ts'

/** How long something is logged. */
export type Until = Date | 'forever'

/** Whose requests are written down: those of every scope, those of single ones. What is absent is not logged. */
export interface KeyLogging { all: Until | null, scopes: ReadonlyMap<string, Until> }

/** RFC 7396: what is absent stays, null ends it. */
export interface LoggingPatch { all?: string | null, scopes?: Record<string, string | null> }

/** What a key may call, as far as logging asks. */
export interface Selection { allowedForAll: boolean, scopes: readonly string[], role: { scopes: readonly string[] } | null }

export const notLogged: KeyLogging = { all: null, scopes: new Map() }

/** @param now the database's clock, in Unix milliseconds: logging ends in the future, or it has ended. */
export function patchLogging (present: KeyLogging, { all, scopes = {} }: LoggingPatch, now: number): { logging: KeyLogging, faults: FieldError[] } {
  const faults: FieldError[] = []
  const read = (until: string | null, pointer: string): Until | null => {
    if (until === null || until === 'forever') return until
    const parsed = parseExpiry(until, now)
    if ('at' in parsed) return parsed.at
    faults.push({ pointer, message: `${parsed.fault}; without an end it is "forever"` })
    return null
  }
  const end = all === undefined ? present.all : read(all, '/logging/all')
  const merged = new Map(present.scopes)
  for (const [scope, until] of Object.entries(scopes)) {
    const endOfScope = read(until, pointerTo(scope))
    if (endOfScope === null) merged.delete(scope)
    else merged.set(scope, endOfScope)
  }
  return { logging: { all: end, scopes: merged }, faults }
}

/**
 * Nothing is logged that the key may not call: seed 003 offers the check boxes only then.
 *
 * @param logging and selection as they would be after the change.
 * @param changed the fields that the request names: the one that brings about the fault is pointed at.
 * @param covered the scopes that `allowedForAll` stands for.
 */
export function faultsOfLogging (logging: KeyLogging, selection: Selection, changed: { logging?: LoggingPatch }, covered: ReadonlySet<string>): FieldError[] {
  const faults: FieldError[] = []
  if (logging.all !== null && !selection.allowedForAll) {
    faults.push(typeof changed.logging?.all === 'string'
      ? { pointer: '/logging/all', message: 'needs "allowedForAll": true; log single scopes otherwise' }
      : { pointer: '/allowedForAll', message: 'is logged; end that in the same request with "logging": { "all": null }' })
  }
  for (const scope of logging.scopes.keys()) {
    if (isSelected(scope, selection, covered)) continue
    faults.push(typeof changed.logging?.scopes?.[scope] === 'string'
      ? { pointer: pointerTo(scope), message: 'is not a scope that this key may call; select it, or do not log it' }
      : { pointer: takenAwayBy(changed), message: `takes away ${JSON.stringify(scope)}, which is logged; end that in the same request with "logging": ${JSON.stringify({ scopes: { [scope]: null } })}` })
  }
  return faults
}

/** As answers, records and the audit trail show it. */
export function writeLogging ({ all, scopes }: KeyLogging): { all: string | null, scopes: Record<string, string> } {
  return { all: all === null ? null : writeUntil(all), scopes: Object.fromEntries([...scopes].map(([scope, until]) => [scope, writeUntil(until)])) }
}

export function readLogging ({ all, scopes }: { all: string | null, scopes: Record<string, string> }): KeyLogging {
  return { all: all === null ? null : readUntil(all), scopes: new Map(Object.entries(scopes).map(([scope, until]) => [scope, readUntil(until)])) }
}

function isSelected (scope: string, { allowedForAll, scopes, role }: Selection, covered: ReadonlySet<string>): boolean {
  return scopes.includes(scope) || (role?.scopes.includes(scope) ?? false) || (allowedForAll && covered.has(scope))
}

function takenAwayBy (changed: object): string {
  return `/${['scopes', 'role', 'allowedForAll'].find(field => field in changed) ?? 'logging'}`
}

/** RFC 6901: a name may hold a slash. */
function pointerTo (scope: string): string {
  return `/logging/scopes/${scope.replaceAll('~', '~0').replaceAll('/', '~1')}`
}

function writeUntil (until: Until): string {
  return until === 'forever' ? until : until.toISOString()
}

function readUntil (text: string): Until {
  return text === 'forever' ? text : new Date(text)
}
