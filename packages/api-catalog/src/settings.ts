import { isAbsolute, join } from 'node:path'
import type { Api, Policy } from './catalogue.ts'
import { quote, type Faults } from './fault.ts'
import { readChoice, readName, readPrefix, readText, readUrl, refuseUnknown } from './fields.ts'
import { defaultAnonymousPolicies, defaultPolicies, readPolicies } from './policies.ts'
import { readCors } from './cors.ts'
import { child, isObject, isUrl, items, members, type Located } from './source.ts'

export const scopeSources = ['tags', 'x-scope', 'path'] as const
export type ScopeSource = typeof scopeSources[number]

/** One entry of `apis.yaml`. What had a fault is undefined or has its default; the fault is already noted. */
export interface ApiSettings extends Pick<Api, 'publicUrl' | 'projectParameter' | 'unlisted' | 'otherSchemes' | 'cors' | 'policies' | 'anonymousPolicies'> {
  at: Located
  name: string | undefined
  prefix: string | undefined
  upstream: string | undefined
  /** File or URL of the OpenAPI document, ready to be read. */
  openapi: string | undefined
  scopes: ScopeSource
  optInScopes: Located[]
  operations: OperationSettings[]
}

/** What `operations:` says about one operation, not yet matched to it. */
export interface OperationSettings {
  at: Located
  /** An operationId, or `GET /path`. */
  key: string
  policies: Policy[]
}

const settingsOfApi = ['name', 'prefix', 'publicUrl', 'upstream', 'openapi', 'project', 'scopes', 'unlisted', 'otherSchemes', 'cors',
  'policies', 'anonymousPolicies', 'optInScopes', 'operations']

/** Reads `apis.yaml`, without the documents that it names. */
export function readSettings (root: Located, folder: string, faults: Faults): ApiSettings[] {
  const apis = child(root, 'apis')
  if (!isObject(root.value) || !Array.isArray(apis.value) || apis.value.length === 0) {
    faults.add(isObject(root.value) ? apis : root, 'must hold a list "apis" with at least one API. Begin with "apis:" and "  - name: ...".')
    return []
  }
  refuseUnknown(root, ['apis'], 'a setting of this file', faults)
  return items(apis).flatMap(at => {
    if (isObject(at.value)) return [readApi(at, folder, faults)]
    faults.add(at, `must be an API with name, prefix, upstream and openapi, not ${quote(at.value)}.`)
    return []
  })
}

function readApi (at: Located, folder: string, faults: Faults): ApiSettings {
  refuseUnknown(at, settingsOfApi, 'a setting of an API', faults)
  const location = readText(child(at, 'openapi'), 'openapi: ./forms.openapi.yaml', faults)
  return {
    at,
    name: readName(child(at, 'name'), faults),
    prefix: readPrefix(child(at, 'prefix'), faults),
    publicUrl: readPublicUrl(child(at, 'publicUrl'), faults),
    upstream: readUrl(child(at, 'upstream'), 'upstream: http://127.0.0.1:4000/app/api/v1', faults),
    openapi: location === undefined || isUrl(location) || isAbsolute(location) ? location : join(folder, location),
    projectParameter: readProject(child(at, 'project'), faults),
    scopes: readChoice(at, 'scopes', scopeSources, 'tags', faults),
    unlisted: readChoice(at, 'unlisted', ['deny', 'forward'], 'deny', faults),
    otherSchemes: readChoice(at, 'otherSchemes', ['refuse', 'forward'], 'refuse', faults),
    cors: readCors(child(at, 'cors'), faults),
    policies: readPoliciesOr(child(at, 'policies'), defaultPolicies, faults),
    anonymousPolicies: readPoliciesOr(child(at, 'anonymousPolicies'), defaultAnonymousPolicies, faults, 'address'),
    optInScopes: readOptInScopes(child(at, 'optInScopes'), faults),
    operations: readOperations(child(at, 'operations'), faults)
  }
}

function readPublicUrl (at: Located, faults: Faults): string | null {
  return at.value === undefined || at.value === null ? null : readUrl(at, 'publicUrl: https://api.example.org/app/api/v1', faults) ?? null
}

function readProject (at: Located, faults: Faults): string | null {
  if (at.value === undefined) return null
  const example = 'project: { pathParameter: formId }'
  if (!isObject(at.value)) {
    faults.add(at, `must name a path parameter, not ${quote(at.value)}. Write for example "${example}".`)
    return null
  }
  refuseUnknown(at, ['pathParameter'], 'a setting of a project', faults)
  return readText(child(at, 'pathParameter'), example, faults) ?? null
}

function readPoliciesOr (at: Located, otherwise: readonly Policy[], faults: Faults, only?: Policy['partition']): Policy[] {
  return at.value === undefined ? otherwise.map(policy => ({ ...policy })) : readPolicies(at, faults, only)
}

function readOptInScopes (at: Located, faults: Faults): Located[] {
  if (at.value !== undefined && !Array.isArray(at.value)) {
    faults.add(at, `must be a list of scopes, not ${quote(at.value)}. Write for example "optInScopes: [files]".`)
  }
  return items(at).filter(scope => readText(scope, 'optInScopes: [files]', faults) !== undefined)
}

function readOperations (at: Located, faults: Faults): OperationSettings[] {
  const example = 'operations: { exportSubmissions: { policies: [{ name: export, limit: 5, window: 60s }] } }'
  if (at.value !== undefined && !isObject(at.value)) {
    faults.add(at, `must name operations by operationId or "GET /path", not be ${quote(at.value)}. Write for example "${example}".`)
  }
  return members(at).map(([key, entry]) => {
    if (!isObject(entry.value)) faults.add(entry, `must hold the settings of one operation, not ${quote(entry.value)}. Write for example "${example}".`)
    refuseUnknown(entry, ['policies'], 'a setting of an operation', faults)
    return { at: entry, key, policies: readPoliciesOr(child(entry, 'policies'), [], faults) }
  })
}
