import { randomUUID } from 'node:crypto'
import { generateSecret, digestSecret } from '@keygate/api-key'
import { test, type Test } from 'tap'
import { peopleAdd } from '../src/cli/people-add.ts'
import type { Makers } from './fuzz/values.ts'
import { idOf } from './fuzz/world.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens, tokensFile, type Answer, type Sql, type TestApp } from './helper.ts'
import { follow, newPerson, onHost, ownPage, password, send, tablesOf, type Person } from './people-helper.ts'
import { routesOf } from './routes-of.ts'
import { createRequests, type ValidRequest } from './valid-requests.ts'

/** design.md section 8, written down once more by hand: whoever changes what is permitted changes it in two places. */
const table: Record<string, string> = {
  'projects:read': 'owner manager viewer operator',
  'keys:read': 'owner manager viewer operator',
  'usage:read': 'owner manager viewer operator',
  'catalogue:read': 'owner manager viewer operator',
  'keys:create': 'owner manager',
  'keys:update': 'owner manager',
  'keys:rotate': 'owner manager',
  'keys:revoke': 'owner manager operator',
  'keys:reveal': 'owner',
  'limits:reset': 'owner manager operator',
  'log:read': 'owner manager',
  'roles:write': 'owner manager',
  'audit:read': 'owner manager operator',
  'members:write': 'owner',
  'projects:update': 'owner',
  'projects:delete': 'owner',
  'projects:create': 'operator',
  'operators:write': 'operator',
  'tokens:write': 'owner operator',
  'keys:verify': ''
}
/** Where no project is named, everybody who is signed in sees what is theirs. */
const ofEveryone = ['projects:read', 'catalogue:read']

/**
 * What each route wants. A route that is not here fails the test. `open`: nobody need be known; `known`: whoever is; `person`: whoever
 * is signed in; `all`: the permission in all projects, so an operator's, or a token's that is bound to none.
 */
const written: Record<string, string> = {
  'POST /v1/sign-in': 'open',
  'POST /v1/set-password': 'open',
  'GET /v1/me': 'known',
  'POST /v1/sign-out': 'person',
  'POST /v1/me/password': 'person',
  'POST /v1/me/confirm': 'person',
  'POST /v1/projects': 'projects:create all',
  'GET /v1/projects': 'projects:read',
  'GET /v1/projects/:projectId': 'projects:read',
  'PATCH /v1/projects/:projectId': 'projects:update',
  'DELETE /v1/projects/:projectId': 'projects:delete',
  'GET /v1/projects/:projectId/members': 'projects:read',
  'POST /v1/projects/:projectId/members': 'members:write',
  'PATCH /v1/projects/:projectId/members/:userId': 'members:write',
  'DELETE /v1/projects/:projectId/members/:userId': 'members:write',
  'POST /v1/projects/:projectId/members/:userId/invitation': 'members:write',
  'GET /v1/projects/:projectId/audit-events': 'audit:read',
  'GET /v1/projects/:projectId/roles': 'keys:read',
  'POST /v1/projects/:projectId/roles': 'roles:write',
  'GET /v1/projects/:projectId/roles/:roleId': 'keys:read',
  'PATCH /v1/projects/:projectId/roles/:roleId': 'roles:write',
  'DELETE /v1/projects/:projectId/roles/:roleId': 'roles:write',
  'GET /v1/projects/:projectId/keys': 'keys:read',
  'POST /v1/projects/:projectId/keys': 'keys:create',
  'GET /v1/projects/:projectId/keys/attention': 'keys:read',
  'GET /v1/projects/:projectId/keys/:keyId': 'keys:read',
  'PATCH /v1/projects/:projectId/keys/:keyId': 'keys:update',
  'DELETE /v1/projects/:projectId/keys/:keyId': 'keys:revoke',
  'POST /v1/projects/:projectId/keys/:keyId/disable': 'keys:update',
  'POST /v1/projects/:projectId/keys/:keyId/enable': 'keys:update',
  'POST /v1/projects/:projectId/keys/:keyId/rotate': 'keys:rotate',
  'PATCH /v1/projects/:projectId/keys/:keyId/rotate': 'keys:rotate',
  'POST /v1/projects/:projectId/keys/:keyId/rotate/finish': 'keys:rotate',
  'POST /v1/projects/:projectId/keys/:keyId/revoke': 'keys:revoke',
  'POST /v1/projects/:projectId/keys/:keyId/reveal': 'keys:reveal',
  'GET /v1/projects/:projectId/keys/:keyId/limit': 'keys:read',
  'DELETE /v1/projects/:projectId/keys/:keyId/limit': 'limits:reset',
  'GET /v1/projects/:projectId/usage': 'usage:read',
  'GET /v1/projects/:projectId/usage/export': 'usage:read',
  'GET /v1/projects/:projectId/usage/keys': 'usage:read',
  'GET /v1/projects/:projectId/keys/:keyId/usage': 'usage:read',
  'GET /v1/projects/:projectId/keys/:keyId/usage/export': 'usage:read',
  'GET /v1/projects/:projectId/keys/:keyId/callers': 'usage:read',
  'GET /v1/projects/:projectId/log': 'log:read',
  'GET /v1/projects/:projectId/log/export': 'log:read',
  'GET /v1/projects/:projectId/keys/:keyId/log': 'log:read',
  'GET /v1/projects/:projectId/keys/:keyId/log/export': 'log:read',
  'GET /v1/operators': 'operators:write all',
  'POST /v1/operators': 'operators:write all',
  'DELETE /v1/operators/:userId': 'operators:write all',
  'GET /v1/service-tokens': 'tokens:write',
  'POST /v1/service-tokens': 'tokens:write',
  'DELETE /v1/service-tokens/:tokenId': 'tokens:write',
  'GET /v1/audit-events': 'audit:read all',
  'GET /v1/catalogue': 'catalogue:read',
  'GET /v1/health': 'catalogue:read',
  'POST /v1/verifications': 'keys:verify',
  'GET /v1/changes': 'keys:verify'
}
/** Whatever can be got, its head can be. */
const routes: Record<string, string> = Object.fromEntries(Object.entries(written).flatMap(([route, need]) => [[route, need], ...route.startsWith('GET ') ? [[route.replace('GET', 'HEAD'), need]] : []]))
const hasBody = (method: string) => !['GET', 'HEAD', 'DELETE'].includes(method)

interface Kind {
  name: string
  headers: Record<string, string>
  /** By project; of a person, with the email address that goes with them. */
  roles?: Record<string, string>
  email?: string
  isOperator?: boolean
  /** Of a service token; `boundTo` undefined: all projects. */
  permissions?: string[]
  boundTo?: string
}

type Expected = 'allowed' | 401 | 403 | 404

/** @param projectId the project in the path, if there is one. */
function expected (kind: Kind, need: string, projectId: string | undefined): Expected {
  const [permission = '', everywhere] = need.split(' ')
  if (need === 'open') return 'allowed'
  if (kind.permissions === undefined && kind.roles === undefined) return 401
  if (need === 'known') return 'allowed'
  if (need === 'person') return kind.roles === undefined ? 403 : 'allowed'
  if (kind.permissions !== undefined) {
    if (projectId !== undefined && kind.boundTo !== undefined && kind.boundTo !== projectId) return 404
    return kind.permissions.includes(permission) && (everywhere === undefined || kind.boundTo === undefined) ? 'allowed' : 403
  }
  const roles = kind.roles ?? {}
  const held = projectId === undefined ? everywhere === undefined ? Object.values(roles) : [] : [roles[projectId]].filter(role => role !== undefined)
  if (projectId !== undefined && held.length === 0 && kind.isOperator !== true) return 404
  const may = [...held, ...kind.isOperator === true ? ['operator'] : []].some(role => table[permission]?.split(' ').includes(role))
  return may || (projectId === undefined && ofEveryone.includes(permission)) ? 'allowed' : 403
}

/** The example of each route's body in the OpenAPI document: what a sender would really send. */
async function examplesOf ({ app }: TestApp): Promise<Map<string, object>> {
  const document = (await app.inject('/openapi.json')).json() as { paths: Record<string, Record<string, { requestBody?: { content: Record<string, { example?: object, examples?: Record<string, { value: object }>, schema: { examples?: object[] } }> } }>> }
  return new Map(Object.entries(document.paths).flatMap(([path, item]) => Object.entries(item).map(([method, { requestBody }]) => {
    const [content] = Object.values(requestBody?.content ?? {})
    const example = content?.example ?? Object.values(content?.examples ?? {})[0]?.value ?? content?.schema.examples?.[0] ?? {}
    return [`${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`, example] as const
  })))
}

/** One text for all that a refused request could have changed. What is written down of the refusal itself is left out, and when a session, a key or a token was used. */
async function stateOf (sql: Sql): Promise<string> {
  const names = (await sql`SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`).map(row => row['tablename'] as string)
  const left = ['audit_events', 'audit_chains', 'sessions', 'outbox']
  const parts = names.filter(name => !left.includes(name)).map(name => `SELECT '${name}' AS t, coalesce(md5(string_agg(x::text, '|' ORDER BY x::text)), '') AS h FROM (SELECT to_jsonb(row) - 'last_used_at' AS x FROM "${name}" row)`)
  return JSON.stringify([await sql.unsafe(parts.join(' UNION ALL ')), await sql`SELECT count(*) FROM sessions`])
}

interface Project { id: string, keyId: string, roleId: string, ownerId: string }

test('who may do what', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const config = configFor(t, url, house.redis.url)
  const app = await startApp(t, config)
  await redisIsReady(app)
  const sql = tablesOf(t, url)
  const operator = await follow(app, app.printed)
  const example = await examplesOf(app)

  async function newProject (name: string): Promise<Project & { owner: Person, secret: string }> {
    const { body: { id } } = await app.call('POST', '/projects', { name })
    const owner = await newPerson(app, config, { email: `owner-of-${name}@example.org`, project: id, role: 'owner' })
    const { body: key } = await app.call('POST', `/projects/${id}/keys`, { name: 'Key' })
    const { body: role } = await app.call('POST', `/projects/${id}/roles`, { name: 'Role', scopes: ['submissions'] })
    return { id, keyId: key.id, roleId: role.id, ownerId: owner.id, owner, secret: key.secret }
  }
  const [a, b] = [await newProject('a'), await newProject('b')]
  const [manager, viewer, outsider] = [await newPerson(app, config, { email: 'manager@example.org', project: a.id, role: 'manager' }), await newPerson(app, config, { email: 'viewer@example.org', project: a.id, role: 'viewer' }), await newPerson(app, config, { email: 'outsider@example.org' })]

  const both = await newPerson(app, config, { email: 'both@example.org', project: a.id, role: 'viewer' })
  await onHost(app, config, peopleAdd, { email: both.email, project: b.id, role: 'manager' })

  /** A token that no command would make: bound, and with permissions of the installation; or with none at all. */
  async function newToken (permissions: string[], projectId: string | null = null): Promise<Record<string, string>> {
    const token = generateSecret('kgs')
    await sql`INSERT INTO service_tokens (id, name, digest, permissions, project_id) VALUES (${`tok_${String(Math.random()).slice(2, 16).padEnd(22, '0')}`}, 'test', ${digestSecret(token)}, ${`{${permissions.join(',')}}`}, ${projectId})`
    return { authorization: `Bearer ${token}` }
  }
  const all = Object.keys(table)
  const as = ({ cookie, email }: Person) => ({ headers: { ...ownPage, cookie }, email })
  const kinds: Kind[] = [
    { name: 'owner of A', ...as(a.owner), roles: { [a.id]: 'owner' } },
    { name: 'manager of A', ...as(manager), roles: { [a.id]: 'manager' } },
    { name: 'viewer of A', ...as(viewer), roles: { [a.id]: 'viewer' } },
    { name: 'owner of B', ...as(b.owner), roles: { [b.id]: 'owner' } },
    { name: 'viewer of A and manager of B', ...as(both), roles: { [a.id]: 'viewer', [b.id]: 'manager' } },
    { name: 'operator', ...as(operator), roles: {}, isOperator: true },
    { name: 'signed in, of no project', ...as(outsider), roles: {} },
    { name: 'token with all', headers: { authorization: `Bearer ${tokens.all}` }, permissions: all },
    { name: 'token with all, bound to A', headers: await newToken(all, a.id), permissions: all, boundTo: a.id },
    { name: 'token with keys:read', headers: await newToken(['keys:read']), permissions: ['keys:read'] },
    { name: 'token with none', headers: await newToken([]), permissions: [] },
    { name: 'nobody', headers: {} },
    { name: 'A17 an API key as Bearer', headers: { authorization: `Bearer ${a.secret}` } },
    { name: 'A17 an API key as Basic', headers: { authorization: `Basic ${Buffer.from(`${a.id}:${a.secret}`).toString('base64')}` } },
    { name: 'A17 an API key as a header', headers: { 'x-api-key': a.secret } }
  ]
  const [fileToken] = await sql`SELECT id FROM service_tokens WHERE from_file LIMIT 1`

  function pathOf (route: string, project: Project): { method: string, path: string } {
    const [method = '', pattern = ''] = route.split(' /v1')
    const userId = pattern.includes('/operators/') ? operator.id : project.ownerId
    const values: Record<string, string> = { projectId: project.id, keyId: project.keyId, roleId: project.roleId, userId, tokenId: fileToken?.['id'] as string }
    return {
      method,
      path: pattern.replaceAll(/:(\w+)/g, (_all, name: string) => {
        const value = values[name]
        if (value === undefined) throw new Error(`the test knows no value for :${name} of ${route}`)
        return value
      })
    }
  }

  /** A call that changes nothing although it is allowed: its body is none, or nobody has its version, or the last owner, operator or a file's token stays. */
  async function probe (route: string, project: Project, kind: Kind): Promise<Answer> {
    const { method, path } = pathOf(route, project)
    return await send(app, method, path, { headers: { ...kind.headers, 'if-match': '"999"' }, ...hasBody(method) && { body: [] } })
  }

  /** What a sender would send, as the document's example has it. */
  async function attempt (route: string, project: Project, kind: Kind): Promise<Answer> {
    const { method, path } = pathOf(route, project)
    return await send(app, method, path, { headers: { ...kind.headers, 'if-match': '*' }, ...hasBody(method) && { body: example.get(route) ?? {} } })
  }

  const notThere = ['project_not_found', 'key_not_found']
  const isAllowed = ({ status, body }: Answer) => status < 500 && ![401, 403].includes(status) && !(status === 404 && (body === undefined || body.code === 'not_found' || notThere.includes(body.code)))
  const isDone = ({ status }: Answer) => status >= 200 && status < 300

  /** A project to be deleted, in which everybody has the role that they have in this one. */
  async function newLike ({ id }: Project): Promise<string> {
    const projectId = idOf(await app.call('POST', '/projects', { name: 'For a moment' }))
    for (const { email, roles } of kinds) if (roles?.[id] !== undefined) idOf(await app.call('POST', `/projects/${projectId}/members`, { email, role: roles[id] }))
    return projectId
  }
  const document = (await app.app.inject('/openapi.json')).json()
  const take = createRequests(document, (projectId, operationId) => ({
    app: app.app,
    call: app.call,
    projectId,
    newProject: async () => operationId === 'deleteProject' ? await newLike(projectId === a.id ? a : b) : projectId
  }))

  /** What a caller must say that others need not: of themselves, and of what they may give. */
  const own: Makers = {
    password: () => password,
    currentpassword: () => password,
    newpassword: () => password,
    permissions: () => ['projects:read'],
    owner: () => a.owner.email,
    'if-match': () => '*' // a project changes with what others do to it
  }

  /** For whom the host vouches, who may become an operator. */
  async function newAccount (): Promise<string> {
    const email = `${randomUUID()}@example.org`
    await onHost(app, config, peopleAdd, { email })
    return email
  }

  interface Cell { route: string, need: string, label: string, project: Project, wanted: Expected, valid: ValidRequest }

  /** Every route, in both projects where it names one; else in one where the caller has the right. */
  async function cellsOf (kind: Kind): Promise<Cell[]> {
    const cells: Cell[] = []
    for (const [route, need] of Object.entries(routes)) {
      const isInProject = route.includes(':projectId')
      const home = [a, b].find(({ id }) => expected(kind, need, id) === 'allowed') ?? a
      for (const project of isInProject ? [a, b] : [home]) {
        const wanted = expected(kind, need, isInProject ? project.id : undefined)
        const email = route === 'POST /v1/operators' && wanted === 'allowed' ? await newAccount() : undefined
        const values: Makers = need === 'open' ? {} : { ...own, ...email !== undefined && { email: () => email } }
        const label = `${route} in ${!isInProject ? '-' : project === a ? 'A' : 'B'}`
        cells.push({ route, need, label, project, wanted, valid: await take(route, project.id, values) })
      }
    }
    return cells
  }

  async function sendValid (kind: Kind, { project, valid }: Cell): Promise<Answer> {
    const { method, path, headers, body, projectId = project.id } = valid
    // A token that is bound to this project asks about another one: its like, which is bound to that.
    const { headers: caller } = kind.boundTo === project.id && projectId !== project.id ? { headers: await newToken(kind.permissions ?? [], projectId) } : kind
    return await send(app, method, path, { headers: { ...headers, ...caller }, body })
  }

  /** Undefined: refused as it should be. */
  function faultOf ({ need, wanted }: Cell, { method }: ValidRequest, { status, body }: Answer): string | undefined {
    if (status !== wanted) return `wanted ${wanted}, got ${status} ${body?.code}`
    if (method === 'HEAD') return undefined
    if (wanted === 404 && !notThere.includes(body.code)) return `404 for another reason: ${body.code}`
    if (wanted === 403 && need !== 'person' && !String(body.detail).includes(need.split(' ')[0] ?? '-')) return `the answer does not name ${need}`
  }

  async function everyCell (t: Test, kind: Kind): Promise<void> {
    const cells = await cellsOf(kind)
    const before = await stateOf(sql)
    const wrong: string[] = []
    for (const cell of cells) {
      if (cell.need === 'open') continue
      const { route, project, wanted, label } = cell
      if (wanted === 'allowed') {
        const answer = await probe(route, project, kind)
        if (!isAllowed(answer)) wrong.push(`${label}: got ${answer.status} ${answer.body?.code}`)
        continue
      }
      for (const answer of [await attempt(route, project, kind), await sendValid(kind, cell)]) {
        const fault = faultOf(cell, cell.valid, answer)
        if (fault !== undefined) wrong.push(`${label}: ${fault}`)
      }
    }
    t.same(wrong, [])
    t.equal(await stateOf(sql), before, 'nothing was changed')

    const refused: string[] = []
    for (const cell of cells) {
      const { need, wanted, valid, label } = cell
      if (wanted !== 'allowed') {
        valid.done(false)
        continue
      }
      // Whoever signs out, or in anew, ends the session that the others of these requests bear.
      const sessions = ['open', 'person'].includes(need) ? await sql`SELECT * FROM sessions` : []
      const answer = await sendValid(kind, cell)
      if (sessions.length > 0) await sql`INSERT INTO sessions ${sql(sessions)} ON CONFLICT DO NOTHING`
      if (!isDone(answer)) refused.push(`${label}: ${valid.method} ${valid.path} ${JSON.stringify(valid.body)} -> ${answer.status} ${answer.body?.code} ${answer.body?.detail}`)
      valid.done(isDone(answer) && need !== 'person') // which uses up the caller's own session, not what was lent
    }
    t.same(refused, [], 'what is allowed is done, if it is asked for well')
  }

  const found = routesOf(app)
  t.same(found.filter(route => routes[route] === undefined), [], 'GX-16 every route of the app has its expectation here')
  t.same(Object.keys(routes).filter(route => !found.includes(route)), [], 'GX-16 and no other')
  const named = Object.values(routes).map(need => need.split(' ')[0] ?? '').filter(need => !['open', 'known', 'person'].includes(need))
  t.same(named.filter(need => table[need] === undefined), [])

  for (const kind of kinds) await t.test(`GX-16 ${kind.name}: every route, in both projects`, async t => { await everyCell(t, kind) })

  await t.test('GX-19 a token that may only verify gets 403 on every other route', async t => {
    await everyCell(t, { name: 'verify', headers: { authorization: `Bearer ${tokens.verify}` }, permissions: ['keys:verify'] })
  })

  await t.test('K13 who does not own: create, read, reveal, delete, and nothing is changed', async t => {
    const at = `/projects/${a.id}/keys`
    const acts = { create: ['POST', at, { name: 'x' }], read: ['GET', `${at}/${a.keyId}`], reveal: ['POST', `${at}/${a.keyId}/reveal`, { reason: 'I lost it' }], delete: ['DELETE', `${at}/${a.keyId}`] } as const
    const before = await stateOf(sql)
    const may = { viewer: ['read'], outsider: [] as string[], 'owner of B': [] as string[], operator: ['read', 'delete'], manager: ['create', 'read', 'delete'] }
    for (const [who, person] of Object.entries({ viewer, outsider, 'owner of B': b.owner, operator, manager })) {
      for (const [act, [method, path, body]] of Object.entries(acts)) {
        if (may[who as keyof typeof may].includes(act)) continue
        t.equal((await person.call(method, path, body)).status, ['outsider', 'owner of B'].includes(who) ? 404 : 403, `${who}: ${act}`)
      }
    }
    t.match(await viewer.call('GET', `${at}/${a.keyId}`), { status: 200, body: { version: 1 } })
    t.equal(await stateOf(sql), before)
  })

  await t.test('GX-16 another project\'s ids in one\'s own path, and ids that cannot be', async t => {
    const before = await stateOf(sql)
    for (const route of Object.keys(routes).filter(route => /:(keyId|roleId|userId)/.test(route) && route.includes(':projectId'))) {
      for (const other of [{ ...b, id: a.id }, { ...a, keyId: 'x', roleId: 'x', ownerId: 'x' }, { ...a, keyId: '%00', roleId: '%00', ownerId: '%00' }, { ...a, keyId: a.keyId.slice(0, -1), roleId: a.roleId.slice(0, -1), ownerId: a.ownerId.slice(0, -1) }]) {
        for (const kind of kinds.filter(({ name }) => ['owner of A', 'token with all'].includes(name))) t.equal((await attempt(route, other, kind)).status, 404, `${kind.name}: ${route} ${other.keyId}`)
      }
    }
    for (const route of Object.keys(routes).filter(route => route.includes(':projectId'))) {
      for (const id of ['x', '%00', '11111111-2222-4333-8444-555555555555']) t.equal((await attempt(route, { ...a, id }, kinds[0] as Kind)).status, 404, `${route} ${id}`)
    }
    t.equal(await stateOf(sql), before)
  })

  await t.test('a refused permission is written down in the project\'s chain, with who asked', async t => {
    await viewer.call('DELETE', `/projects/${a.id}/keys/${a.keyId}`)
    const [last] = await sql`SELECT chain, project_id, key_id, actor_type, actor_id, details FROM audit_events WHERE action = 'permission.refused' ORDER BY id DESC LIMIT 1`
    t.match(last, { project_id: a.id, key_id: a.keyId, actor_type: 'person', actor_id: viewer.id, details: { permission: 'keys:revoke', method: 'DELETE' } })
  })
})

/** What an answer has told: ids, addresses and whatever opens something. */
interface Known { projectId: Set<string>, keyId: Set<string>, roleId: Set<string>, userId: Set<string>, tokenId: Set<string>, email: Set<string>, callers: Map<string, Record<string, string>> }

for (const withDeletions of [false, true]) {
  test(`no chain of routes leads an operator to a secret${withDeletions ? ', not even when it ends rights, its own among them' : ''}`, async t => {
    const house = await startHouse(t)
    const url = await house.database()
    const config = configFor(t, url, house.redis.url, { serviceTokensFile: tokensFile(t) })
    const app = await startApp(t, config)
    await redisIsReady(app)
    const operator = await follow(app, app.printed)
    const { body: project } = await app.call('POST', '/projects', { name: 'theirs' })
    await newPerson(app, config, { email: 'owner@example.org', project: project.id, role: 'owner' })
    const { body: key } = await app.call('POST', `/projects/${project.id}/keys`, { name: 'Key' })
    await app.call('POST', `/projects/${project.id}/members`, { email: 'invited@example.org', role: 'viewer' })
    const example = await examplesOf(app)
    const allRoutes = routesOf(app).filter(route => !/^HEAD|sign-out|me\/password|sign-in/.test(route) && (withDeletions || !route.startsWith('DELETE')))
    // Acts first, endings last: what can be reached with a right is looked for before the right ends.
    const order = allRoutes.toSorted((x, y) => Number(x.startsWith('DELETE')) - Number(y.startsWith('DELETE')))

    const known: Known = { projectId: new Set(), keyId: new Set(), roleId: new Set(), userId: new Set([operator.id]), tokenId: new Set(), email: new Set([operator.email, 'new@example.org']), callers: new Map([['session', { ...ownPage, cookie: operator.cookie }]]) }
    const own = (await operator.call('GET', '/me')).body.permissions.filter((one: { granted: boolean }) => one.granted).map((one: { permission: string }) => one.permission) as string[]

    function learn (answer: string, what: string): void {
      const text = answer.replaceAll(/"(instance|requestId|etag)":"[^"]*"/g, '')
      for (const [id] of text.matchAll(/\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/g)) known.projectId.add(id)
      for (const [id, kind] of text.matchAll(/\b(key|rol|role|usr|tok)_[0-9A-Za-z]{22}\b/g)) known[({ key: 'keyId', rol: 'roleId', role: 'roleId', usr: 'userId', tok: 'tokenId' } as const)[kind as 'key']].add(id)
      for (const [, email] of text.matchAll(/"email":"([^"]+)"/g)) known.email.add(email as string)
      for (const [token] of text.matchAll(/\bkgs_\w{22}_\w{6}\b/g)) if (known.callers.size < 12) known.callers.set(what, { authorization: `Bearer ${token}` })
    }

    function bodiesOf (route: string): object[] {
      const [projectIds, emails] = [[...known.projectId].slice(0, 2), [...known.email]]
      switch (route) {
        case 'POST /v1/projects': return [{ name: 'mine' }, ...emails.map(owner => ({ name: 'mine', owner }))]
        case 'POST /v1/operators': return emails.map(email => ({ email }))
        case 'POST /v1/projects/:projectId/members': return emails.map(email => ({ email, role: 'owner' }))
        case 'PATCH /v1/projects/:projectId/members/:userId': return [{ role: 'owner' }]
        case 'POST /v1/service-tokens': return [own, own.filter(one => one !== 'projects:create' && one !== 'operators:write'), ...Object.keys(table).map(one => [one])]
          .flatMap(permissions => [{ name: 'mine', permissions }, ...projectIds.map(projectId => ({ name: 'mine', permissions, projectId }))])
        case 'POST /v1/projects/:projectId/keys': return [{ name: 'mine' }, { name: 'mine', import: { secret: key.secret } }]
        default: return [example.get(route) ?? {}]
      }
    }

    /** Every way to fill in what is known; of each kind the first and the last few. */
    function pathsOf (pattern: string): string[] {
      const name = /:(\w+)/.exec(pattern)?.[1]
      if (name === undefined) return [pattern]
      const values = [...known[name as 'keyId']]
      return [...new Set([...values.slice(0, 2), ...values.slice(-1)])].flatMap(value => pathsOf(pattern.replace(`:${name}`, value)))
    }

    const tried = new Set<string>()
    let calls = 0
    for (let depth = 1; depth <= 4; depth++) {
      for (const route of order) {
        const [method = '', pattern = ''] = route.split(' /v1')
        for (const [who, headers] of [...known.callers]) {
          for (const path of pathsOf(pattern)) {
            for (const body of ['GET', 'DELETE'].includes(method) ? [undefined] : bodiesOf(route)) {
              const call = JSON.stringify([who, method, path, body])
              // Again in a later round only what the session reads: what was refused once is refused by the same rule.
              if (tried.has(call) && (method !== 'GET' || who !== 'session')) continue
              tried.add(call)
              calls++
              const answer = await send(app, method, path, { headers: { ...headers, 'if-match': '*' }, ...body !== undefined && { body } })
              const isLeak = answer.text.includes(key.secret) || /"secret":|\bkg_\w{22}_\w{6}\b|#token=/.test(answer.text)
              if (isLeak) t.fail(`${who}: ${method} ${path} ${JSON.stringify(body)} -> ${answer.text}`)
              if (answer.status >= 500) t.fail(`${answer.status} for ${call}`)
              if (answer.status < 300 && /:keyId\/(rotate|reveal|enable)|:projectId\/keys$|\/members/.test(pattern) && method !== 'GET') t.fail(`${call} -> ${answer.status}`)
              if (answer.headers['set-cookie'] !== undefined) t.fail(`${call} began a session`)
              learn(answer.text, `${who} > ${JSON.stringify(body)}`)
            }
          }
        }
      }
    }
    t.ok(known.callers.size > 5 && known.projectId.size > 2 && known.keyId.has(key.id), `${calls} calls by ${known.callers.size} callers, ${known.projectId.size} projects`)
    t.ok(known.email.has('owner@example.org') && known.email.has('invited@example.org'), 'whom it could have become')
  })
}
