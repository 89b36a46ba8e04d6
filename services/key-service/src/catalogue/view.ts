import type { Api, Catalogue } from '@keygate/api-catalog'
import type { CatalogueView } from './schemas.ts'

type ApiView = CatalogueView['apis'][number]

/**
 * The catalogue as people choose from it. `search` is looked for anywhere in a scope's name, in any case, as it is written; APIs
 * stay in the list also when none of their scopes has it.
 */
export function viewCatalogue ({ apis }: Catalogue, search = ''): CatalogueView {
  const wanted = search.toLowerCase()
  return { apis: apis.map(api => viewApi(api, scope => scope.toLowerCase().includes(wanted))) }
}

function viewApi (api: Api, isWanted: (scope: string) => boolean): ApiView {
  const { name, prefix, publicUrl, policies, anonymousPolicies } = api
  const scopes = api.scopes.filter(isWanted).map(scope => ({
    name: scope,
    optIn: api.optInScopes.includes(scope),
    operations: api.operations
      .filter(operation => operation.access === 'key' && operation.scopes.includes(scope))
      .map(({ id, method, path }) => ({ id, method, path }))
  }))
  return { name, prefix, publicUrl, scopes, policies, anonymousPolicies }
}
