import { digestSecret } from '@keygate/api-key'
import postgres from 'postgres'
import { test } from 'tap'
import { configFor, redisIsReady, startApp, startHouse, tokens, type Answer } from './helper.ts'

const unknownProject = '11111111-2222-4333-8444-555555555555'
const unknownRole = 'role_0000000000000000000000'

test('roles', async t => {
  const house = await startHouse(t)
  const url = await house.database()
  const sql = postgres(url.replace('keygate@', 'postgres@'), { max: 1, onnotice: () => {} })
  t.teardown(async () => { await sql.end({ timeout: 1 }) })
  const app = await startApp(t, configFor(t, url, house.redis.url))
  await redisIsReady(app)
  const { call } = app

  const newProject = async () => (await call('POST', '/projects', { name: 'P' })).body.id as string
  const newRole = async (projectId: string, body: object = {}) => {
    const answer = await call('POST', `/projects/${projectId}/roles`, { name: 'Bookkeeping', scopes: ['exports'], ...body })
    if (answer.status !== 201) throw new Error(answer.text)
    return { ...answer.body, at: `/projects/${projectId}/roles/${answer.body.id}` }
  }
  const newKey = async (projectId: string, body: object = {}) => {
    const answer = await call('POST', `/projects/${projectId}/keys`, { name: 'Key', ...body })
    if (answer.status !== 201) throw new Error(answer.text)
    return { ...answer.body, at: `/projects/${projectId}/keys/${answer.body.id}` }
  }
  const record = async (secret: string) => (await call('POST', '/verifications', { digest: digestSecret(secret) })).body.record
  const projectVersion = async (projectId: string) => (await call('GET', `/projects/${projectId}`)).body.version
  const atOnce = async (ask: (i: number) => Promise<Answer>) => await Promise.all(Array.from({ length: 20 }, async (_, i) => await ask(i)))
  const count = (answers: Answer[], status: number) => answers.filter(answer => answer.status === status).length

  await t.test('a role: create, read, list, edit, delete; each change is a change of the project', async t => {
    const projectId = await newProject()
    const made = await call('POST', `/projects/${projectId}/roles`, { name: ' Bookkeeping ', scopes: ['submissions', 'exports', 'exports'] })
    t.match(made, { status: 201, headers: { etag: '"1"' }, body: { id: /^role_\w{22}$/, projectId, name: 'Bookkeeping', description: null, scopes: ['exports', 'submissions'], keys: 0, version: 1, effective: 'everywhere', createdBy: 'all' } })
    const at = `/projects/${projectId}/roles/${made.body.id}`
    t.equal(made.headers.location, `/v1${at}`)
    t.match(await call('GET', at), { status: 200, headers: { etag: '"1"' }, body: made.body })
    t.same((await call('GET', `/projects/${projectId}/roles`)).body, { data: [made.body], nextCursor: null })
    t.equal(await projectVersion(projectId), 2)

    t.match(await call('PATCH', at, { scopes: ['submissions'] }, undefined, {}), { status: 428, body: { code: 'precondition_required' } })
    t.match(await call('PATCH', at, { scopes: ['submissions'] }, undefined, { 'if-match': '"2"' }), { status: 412, headers: { etag: '"1"' }, body: { code: 'version_conflict' } })
    t.equal(await projectVersion(projectId), 2, 'what is refused raises nothing')
    t.match(await call('PATCH', at, { scopes: ['submissions'], description: 'd' }, undefined, { 'if-match': '"1"' }), { status: 200, headers: { etag: '"2"' }, body: { name: 'Bookkeeping', description: 'd', scopes: ['submissions'], version: 2, effective: 'everywhere' } })
    t.match(await call('PATCH', at, { name: 'Books', description: null }), { status: 200, body: { name: 'Books', description: null, scopes: ['submissions'], version: 3 } })
    t.equal(await projectVersion(projectId), 4)
    t.equal(await app.parts.redis.client.hget(`kg:{${projectId}}:versions`, '*'), '4')

    t.match(await call('DELETE', at, undefined, undefined, { 'if-match': '"1"' }), { status: 412 })
    t.equal((await call('DELETE', at)).status, 204)
    for (const [method, body] of [['GET'], ['DELETE'], ['PATCH', { name: 'x' }]] as const) t.match(await call(method, at, body), { status: 404, body: { code: 'role_not_found' } })
    t.same((await call('GET', `/projects/${projectId}/roles`)).body.data, [])
    t.same((await sql`SELECT action, key_id FROM audit_events WHERE project_id = ${projectId} ORDER BY id`).map(row => row['action']), ['project.create', 'role.create', 'role.edit', 'role.edit', 'role.delete'])
  })

  await t.test('P2 what a role gives, every key that is bound to it has with the next look-up, and the project\'s version says so', async t => {
    const projectId = await newProject()
    const role = await newRole(projectId)
    const key = await newKey(projectId, { role: 'Bookkeeping', scopes: ['submissions'] })
    t.match(key, { role: 'Bookkeeping', scopes: ['submissions'] }, 'its own scopes stay apart')
    t.match(await record(key.secret), { projectVersion: 2, scopes: ['exports', 'submissions'] })
    t.match(await call('PATCH', role.at, { scopes: ['files', 'submissions'] }), { status: 200, body: { effective: 'everywhere', keys: 1 } })
    t.match(await record(key.secret), { projectVersion: 3, keyVersion: 1, scopes: ['files', 'submissions'] }, 'each once')
    await call('PATCH', role.at, { name: 'Books' })
    t.equal((await call('GET', key.at)).body.role, 'Books', 'keys are bound to the role, not to its name')
    await call('PATCH', key.at, { role: null })
    t.match(await record(key.secret), { keyVersion: 2, scopes: ['submissions'] })
    t.equal((await call('GET', role.at)).body.keys, 0)
  })

  await t.test('a role is one of the key\'s project', async t => {
    const [projectId, other] = [await newProject(), await newProject()]
    await newRole(other, { name: 'Elsewhere' })
    for (const role of ['Elsewhere', 'bookkeeping', ' ', '', '%', 'x'.repeat(400)]) t.match(await call('POST', `/projects/${projectId}/keys`, { name: 'K', role }), { status: 422, body: { errors: [{ pointer: '/role' }] } }, role.slice(0, 12))
    const key = await newKey(projectId)
    t.match(await call('PATCH', key.at, { role: 'Elsewhere' }), { status: 422, body: { errors: [{ pointer: '/role' }] } })
    const role = await newRole(other)
    t.match(await call('GET', `/projects/${projectId}/roles/${role.id}`), { status: 404 })
    t.match(await call('PATCH', `/projects/${projectId}/roles/${role.id}`, { name: 'x' }), { status: 404 })
    t.match(await call('DELETE', `/projects/${projectId}/roles/${role.id}`), { status: 404 })
    for (const path of ['', `/${unknownRole}`]) t.match(await call('GET', `/projects/${unknownProject}/roles${path}`), { status: 404 })
    for (const id of [unknownRole, 'role_1', 'x', '%00', '..%2f..', 'role_000000000000000000000é']) t.match(await call('GET', `/projects/${projectId}/roles/${id}`), { status: 404 }, id)
  })

  await t.test('a role that keys are bound to stays, and so does what they log', async t => {
    const projectId = await newProject()
    const role = await newRole(projectId, { scopes: ['exports', 'files'] })
    const keys = [await newKey(projectId, { role: 'Bookkeeping' }), await newKey(projectId, { role: 'Bookkeeping', scopes: ['exports'], logging: { scopes: { exports: 'forever' } } })]
    t.match(await call('DELETE', role.at), { status: 409, body: { code: 'role_in_use', detail: /^2 keys are bound/ } })
    await call('DELETE', keys[0]?.at)
    t.match(await call('DELETE', role.at), { status: 409, body: { detail: /^1 key is bound/ } }, 'a deleted key is bound to nothing')
    t.match(await call('PATCH', role.at, { scopes: ['files'] }), { status: 200 }, 'the key has the scope itself')
    await call('PATCH', keys[1]?.at, { logging: { scopes: { files: '2090-01-01' } } })
    t.match(await call('PATCH', role.at, { scopes: [] }), { status: 422, body: { errors: [{ pointer: '/scopes', message: /"files", which is logged for keys of this role \(1\)/ }] } }, 'K21 holds from the role\'s side too')
    t.equal((await call('GET', role.at)).body.version, 2)
    await call('PATCH', keys[1]?.at, { logging: { scopes: { files: null } } })
    t.equal((await call('PATCH', role.at, { scopes: [] })).status, 200)
    await call('POST', `${keys[1]?.at}/revoke`)
    t.equal((await call('DELETE', role.at)).status, 409, 'a revoked key still shows its role')
    await call('DELETE', keys[1]?.at)
    t.equal((await call('DELETE', role.at)).status, 204)
  })

  await t.test('what cannot be accepted', async t => {
    const projectId = await newProject()
    const role = await newRole(projectId)
    const other = await newRole(projectId, { name: 'Other' })
    const cases: Array<[object, number, string?]> = [
      [{ name: '' }, 422, '/name'], [{ name: 'x'.repeat(101) }, 422, '/name'], [{ name: 'a\nb' }, 422, '/name'], [{ name: 'a\u0000' }, 422, '/name'], [{ description: 'x'.repeat(401) }, 422, '/description'], [{ scopes: ['exports', 'nonsense'] }, 422, '/scopes/1'],
      [{ scopes: Array(1001).fill('exports') }, 422, '/scopes'], [{ name: 5 }, 400], [{ scopes: 'exports' }, 400], [{ scopes: null }, 400], [{ keys: 5 }, 400], [{ id: unknownRole }, 400], [{ version: 5 }, 400], [{ projectId }, 400], [{ createdBy: 'x' }, 400]
    ]
    for (const [body, status, pointer] of cases) {
      for (const [method, path] of [['POST', `/projects/${projectId}/roles`], ['PATCH', role.at]] as const) {
        t.match(await call(method, path, { ...method === 'POST' && { name: 'New' }, ...body }), { status, body: pointer === undefined ? {} : { errors: [{ pointer }] } }, `${method} ${JSON.stringify(body).slice(0, 40)}`)
      }
    }
    t.match(await call('PATCH', role.at, {}), { status: 400 })
    t.match(await call('POST', `/projects/${projectId}/roles`, {}), { status: 400 })
    t.match(await call('POST', `/projects/${projectId}/roles`, { name: 'Other' }), { status: 409, body: { code: 'role_name_taken' } })
    t.match(await call('PATCH', role.at, { name: ' Other ' }), { status: 409, body: { code: 'role_name_taken' } })
    t.match(await call('PATCH', other.at, { name: 'Other', scopes: [] }), { status: 200 }, 'its own name is not taken')
    t.match(await call('GET', role.at), { body: { version: 1, name: 'Bookkeeping', scopes: ['exports'] } })
    t.match(await call('POST', `/projects/${projectId}/roles`, { name: 'x' }, tokens.reader), { status: 403, body: { detail: /roles:write/ } })
    t.equal((await call('GET', `/projects/${projectId}/roles`, undefined, tokens.reader)).status, 200)

    await sql`INSERT INTO roles (project_id, id, name, created_by) SELECT ${projectId}, 'role_' || lpad(i::text, 22, '0'), 'r' || i, 'test' FROM generate_series(1, 97) i`
    const last = await atOnce(async i => await call('POST', `/projects/${projectId}/roles`, { name: `at once ${i}` }))
    t.same([count(last, 201), count(last, 422)], [1, 19], 'a hundred, and not one more')
    t.match(last.find(answer => answer.status === 422), { body: { code: 'too_many_roles' } })
    t.equal((await call('GET', `/projects/${projectId}/roles`)).body.data.length, 100)
  })

  await t.test('20 at once: one name, one ETag, and binding against deleting', async t => {
    const projectId = await newProject()
    const named = await atOnce(async () => await call('POST', `/projects/${projectId}/roles`, { name: 'Same' }))
    t.same([count(named, 201), count(named, 409)], [1, 19])
    const role = await newRole(projectId)
    const edits = await atOnce(async i => await call('PATCH', role.at, { description: `edit ${i}` }, undefined, { 'if-match': '"1"' }))
    t.same([count(edits, 200), count(edits, 412)], [1, 19])
    t.match((await call('GET', role.at)).body, { version: 2, description: edits.find(answer => answer.status === 200)?.body.description })

    const key = await newKey(projectId)
    const [bound, removed, created] = await Promise.all([call('PATCH', key.at, { role: 'Bookkeeping' }), call('DELETE', role.at), call('POST', `/projects/${projectId}/keys`, { name: 'New', role: 'Bookkeeping' })])
    const left = (await sql`SELECT count(*)::int AS keys FROM keys WHERE project_id = ${projectId} AND role_id = ${role.id}`)[0]?.['keys']
    t.equal(left, [bound.status === 200, created.status === 201].filter(Boolean).length)
    t.equal(removed.status, left === 0 ? 204 : 409, 'either the role is gone, or somebody is bound to it')
    t.ok([200, 422].includes(bound.status) && [201, 422].includes(created.status))

    const both = await newRole(projectId, { name: 'Both', scopes: ['exports'] })
    const logging = await newKey(projectId, { role: 'Both' })
    const [logs, takes] = await Promise.all([call('PATCH', logging.at, { logging: { scopes: { exports: 'forever' } } }), call('PATCH', both.at, { scopes: [] })])
    t.same([logs.status, takes.status].sort((a, b) => a - b), [200, 422], 'K21 of two that contradict each other one is made')
  })
})
