/** A request that is answered with rows, and the parameters of it that are tried. */
export interface Target {
  name: string
  url: string
  parameters: string[]
  /** Python by which sqlmap makes what is sent of the parameters that it has chosen. */
  wrap?: string
}

/** What the service answers to the operator's token; rejects when the status is not the wanted one. */
export type Call = <T>(method: string, path: string, body?: unknown, status?: number) => Promise<T>

interface Document { paths: Record<string, Record<string, { operationId: string, parameters?: Array<{ name: string, in: string }> }>> }
interface Page { data: Array<Record<string, string>>, nextCursor: string }

/** Every GET of the service's own API document that takes a query, with values that find rows; beside them the text in a cursor, and the ids of a path. */
export async function targetsOf (call: Call, base: string): Promise<Target[]> {
  const ids = await makeRows(call)
  const values = await valuesOf(call, ids)
  const { paths } = await call<Document>('GET', '/openapi.json')
  const targets: Target[] = []
  for (const [template, { get }] of Object.entries(paths)) {
    const parameters = (get?.parameters ?? []).filter(({ in: place }) => place === 'query').map(({ name }) => name)
    if (get === undefined || parameters.length === 0) continue
    const path = fill(template, ids)
    const query = new URLSearchParams(parameters.filter(name => name !== 'cursor').map((name): [string, string] => [name, valueOf(values, name)]))
    if (parameters.includes('cursor')) query.set('cursor', (await call<Page>('GET', `${path}?${query.toString()}`)).nextCursor)
    targets.push({ name: get.operationId, url: `${base}${path}?${query.toString()}`, parameters })
  }
  const project = `${base}/v1/projects/${ids.projectId}`
  return [
    ...targets,
    {
      name: 'listKeys, inside of the cursor',
      url: `${project}/keys?sort=name&limit=1&cursor=Key`,
      parameters: ['cursor'],
      wrap: `import base64, json; cursor = base64.urlsafe_b64encode(json.dumps(['name', cursor, '${ids.keyId}']).encode()).decode().rstrip('=')`
    },
    // sqlmap tries what a star follows, and calls it #1*, #2*.
    { name: 'getKeyLimit, path', url: `${project}*/keys/${ids.keyId}*/limit`, parameters: ['#1*', '#2*'] }
  ]
}

interface Ids { projectId: string, keyId: string }

/** Two of everything that is listed, so that each first page of one row has a next. */
async function makeRows (call: Call): Promise<Ids> {
  const [project] = [await call<{ id: string }>('POST', '/v1/projects', { name: 'Key' }, 201), await call('POST', '/v1/projects', { name: 'Other' }, 201)]
  const path = `/v1/projects/${project.id}`
  await call('POST', `${path}/roles`, { name: 'Readers' }, 201)
  const newKey = async () => await call<{ id: string }>('POST', `${path}/keys`, { name: 'Key', allowedForAll: true, role: 'Readers' }, 201)
  const [key] = [await newKey(), await newKey()]
  for (const action of ['disable', 'enable']) await call('POST', `${path}/keys/${key.id}/${action}`)
  for (const name of ['one', 'two']) {
    await call('POST', `${path}/members`, { email: `${name}@example.org`, name, role: 'viewer' }, 201)
    await call('POST', '/v1/operators', { email: `${name}@example.org` }, 201)
  }
  return { projectId: project.id, keyId: key.id }
}

/** By the parameter's name. */
async function valuesOf (call: Call, { projectId, keyId }: Ids): Promise<Record<string, string>> {
  const { data: [event] } = await call<{ data: Array<{ actor: { id: string } }> }>('GET', `/v1/projects/${projectId}/audit-events?limit=1`)
  const { apis: [api] } = await call<{ apis: Array<{ scopes: Array<{ name: string }> }> }>('GET', '/v1/catalogue')
  const { cursor } = await call<{ cursor: string }>('GET', '/v1/changes')
  return {
    search: 'Key',
    status: 'active',
    scope: api?.scopes[0]?.name ?? '',
    role: 'Readers',
    sort: 'name',
    limit: '1',
    action: 'key.',
    actorId: event?.actor.id ?? '',
    keyId,
    from: '2000-01-01T00:00:00Z',
    until: '2999-01-01T00:00:00Z',
    after: cursor
  }
}

function valueOf (values: Record<string, string>, name: string): string {
  const value = values[name]
  if (value === undefined || value === '') throw new Error(`No value is known for the parameter ${name}. Add one in security/targets.ts.`)
  return value
}

function fill (template: string, ids: Ids): string {
  return template.replace(/\{(\w+)\}/g, (_all, name: string) => valueOf({ ...ids }, name))
}
