import type { House } from './house.ts'
import type { Operation } from './measure.ts'

interface Page { data: Array<{ id: string }>, nextCursor: string | null }

/** The project that is measured, and digests of secrets of its keys. */
export interface Subject { projectId: string, keys: number, digests: string[] }

/**
 * Everything that people and gateways wait for. The orders and states are those that the service's own API document names. Where a
 * search would find less than a page among few keys, it asks for a shorter page: both measure as many rows.
 */
export async function operationsOn ({ call }: House, { projectId, keys, digests }: Subject): Promise<Operation[]> {
  const path = `/v1/projects/${projectId}/keys`
  const list = async (query: Record<string, string>): Promise<Page> => await call<Page>('GET', `${path}?${new URLSearchParams(query).toString()}`)
  const page = (name: string, query: Record<string, string>): Operation => ({ name, call: async () => await list(query) })
  const { sorts, statuses } = await choices(call)
  const ids = (await list({ limit: '100' })).data.map(({ id }) => id)

  /** The cursor after which the second half begins. */
  async function middle (sort: string): Promise<string> {
    let cursor: string | null = null
    for (let seen = 0; seen < keys / 2; seen += 100) {
      const query: Record<string, string> = { sort, limit: '100', ...cursor !== null && { cursor } }
      cursor = (await list(query)).nextCursor
    }
    return cursor ?? ''
  }

  const middles = new Map<string, string>()
  // One direction per column: the way there takes a call per hundred keys.
  for (const sort of sorts.filter(sort => !sort.startsWith('-'))) middles.set(sort, await middle(sort))

  return [
    { name: 'create', call: async turn => await call('POST', path, { name: `Bench ${turn}`, description: 'made by the bench', scopes: ['submissions'] }, 201) },
    { name: 'verify', call: async turn => await call('POST', '/v1/verifications', { digest: digests[turn * 7 % digests.length] }) },
    { name: 'verify, unknown', call: async turn => await call('POST', '/v1/verifications', { digest: (digests[turn * 7 % digests.length] as string).split('').reverse().join('').slice(1, 43) + 'A' }) },
    { name: 'get', call: async turn => await call('GET', `${path}/${ids[turn % ids.length]}`) },
    ...sorts.map(sort => page(`first page by ${sort}`, { sort })),
    ...[...middles].map(([sort, cursor]) => page(`middle page by ${sort}`, { sort, cursor })),
    ...statuses.map(status => page(`status ${status}`, { status })),
    page('status revoked by name', { status: 'revoked', sort: 'name' }),
    page('scope of many', { scope: 'submissions' }),
    page('scope of many by name', { scope: 'submissions', sort: 'name' }),
    page('search, one hit', { search: '00731' }),
    page('search, one hit by name', { search: '00731', sort: 'name' }),
    page('search, no hit', { search: 'zebra crossing' }),
    page('search, every tenth key', { search: 'export' }),
    page('search, every tenth key by name', { search: 'export', sort: 'name' }),
    page('search, every tenth key, revoked', { search: 'export', status: 'revoked', limit: '1' }),
    page('search, every fiftieth key', { search: 'kelowna', limit: '10' }),
    page('search in descriptions', { search: 'night shift' }),
    page('prefix of 2, every tenth key', { search: 're' }),
    page('prefix of 2, every fortieth key', { search: 'le', limit: '10' }),
    page('prefix of 2, no hit', { search: 'zz' })
  ]
}

interface Parameter { name: string, schema: { enum?: string[], anyOf?: Array<{ const?: string }> } }

async function choices (call: House['call']): Promise<{ sorts: string[], statuses: string[] }> {
  const { paths } = await call<{ paths: Record<string, Record<string, { operationId?: string, parameters?: Parameter[] }>> }>('GET', '/openapi.json')
  const parameters = Object.values(paths).flatMap(path => Object.values(path)).find(({ operationId }) => operationId === 'listKeys')?.parameters ?? []
  const of = (wanted: string): string[] => {
    const schema = parameters.find(({ name }) => name === wanted)?.schema
    return schema?.enum ?? schema?.anyOf?.flatMap(choice => choice.const ?? []) ?? []
  }
  return { sorts: of('sort'), statuses: of('status') }
}
