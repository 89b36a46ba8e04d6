import type { Catalogue } from '@keygate/api-catalog'

/** Every scope of the catalogue, and those that `allowedForAll` stands for. */
export interface KnownScopes { all: ReadonlySet<string>, covered: ReadonlySet<string> }

/** A name that is opt-in in one API and not in another is covered: the key may call it in the other. */
export function knownScopesOf ({ apis }: Catalogue): KnownScopes {
  return {
    all: new Set(apis.flatMap(api => api.scopes)),
    covered: new Set(apis.flatMap(api => api.scopes.filter(scope => !api.optInScopes.includes(scope))))
  }
}
