import { dirname } from 'node:path'
import type { Api, Catalogue } from './catalogue.ts'
import { openDocument, type OpenApiDocument } from './document.ts'
import { CatalogueError, Faults, quote, suggest } from './fault.ts'
import { readOperations } from './operations.ts'
import { refuseOverlaps } from './overlaps.ts'
import { carriersOf } from './security.ts'
import { readSettings, type ApiSettings } from './settings.ts'
import { child, readSource } from './source.ts'
import { parametersOf } from './templates.ts'

export interface LoadOptions {
  /** How long one document that is named by URL may take, headers and body together. Default 10 000. */
  fetchTimeoutMs?: number
}

/**
 * Reads `apis.yaml` and every OpenAPI document that it names into one frozen table.
 *
 * @param file path of `apis.yaml`; the documents' paths count from its folder.
 * @throws CatalogueError with all faults of all files at once; nothing is loaded in part.
 */
export async function loadCatalogue (file: string, options: LoadOptions = {}): Promise<Catalogue> {
  const faults = new Faults()
  const { root, faults: unparsed, unread } = await readSource(file)
  faults.list.push(...unparsed)
  if (unread !== null) faults.list.push(`${file}: ${unread}`)
  const settings = root === null ? [] : readSettings(root, dirname(file), faults)
  const apis = await Promise.all(settings.map(async entry => await readApi(entry, options)))
  for (const api of apis) faults.list.push(...api.faults.list)
  refuseOverlaps(settings, apis.map(({ api }) => api?.operations ?? []), faults)
  if (faults.list.length > 0) throw new CatalogueError(file, faults.list)
  return deepFreeze({ apis: apis.flatMap(({ api }) => api ?? []) })
}

/** Its own list of faults, so that the order does not depend on which document comes first over the network. */
async function readApi (settings: ApiSettings, options: LoadOptions): Promise<{ api: Api | undefined, faults: Faults }> {
  const faults = new Faults()
  const { name, prefix, upstream, openapi } = settings
  const document = openapi === undefined ? undefined : await openDocument(openapi, child(settings.at, 'openapi'), faults, options.fetchTimeoutMs)
  if (document === undefined) return { api: undefined, faults }

  const operations = readOperations(settings, document, faults)
  const scopes = [...new Set(operations.flatMap(operation => operation.scopes))].sort()
  checkNames(settings, document, scopes, faults)
  const { publicUrl, projectParameter, unlisted, otherSchemes, cors, policies, anonymousPolicies } = settings
  const api = {
    // An API without these has a fault, so the table is never handed out with the empty texts.
    name: name ?? '',
    prefix: prefix ?? '',
    publicUrl,
    upstream: upstream ?? '',
    upstreamPlace: settings.at.source.place([...settings.at.path, 'upstream']),
    projectParameter,
    scopes,
    optInScopes: [...new Set(settings.optInScopes.map(({ value }) => String(value)))],
    unlisted,
    otherSchemes,
    cors,
    policies,
    anonymousPolicies,
    carriers: carriersOf(operations),
    operations,
    document: document.whole
  }
  return { api, faults }
}

/** What `apis.yaml` names must be in the document. */
function checkNames (settings: ApiSettings, document: OpenApiDocument, scopes: string[], faults: Faults): void {
  for (const scope of settings.optInScopes) {
    if (!scopes.includes(String(scope.value))) {
      faults.add(scope, `${quote(scope.value)} is a scope of no operation (scopes: ${settings.scopes}); ${suggest(String(scope.value), scopes)}`)
    }
  }
  const parameters = [...new Set(document.listed.flatMap(({ template }) => parametersOf(template)))]
  if (settings.projectParameter !== null && !parameters.includes(settings.projectParameter)) {
    const at = child(child(settings.at, 'project'), 'pathParameter')
    faults.add(at, `${quote(settings.projectParameter)} is a parameter of no path in the document; ${suggest(settings.projectParameter, parameters)}`)
  }
}

function deepFreeze<T> (value: T): T {
  if (value === null || typeof value !== 'object' || Object.isFrozen(value)) return value
  Object.freeze(value)
  for (const member of Object.values(value)) deepFreeze(member)
  return value
}
