import { request as httpRequest, type ClientRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'tap'
import { configFor, redisIsReady, startApp, startHouse } from './helper.ts'
import { newPerson, ownPage, tablesOf } from './people-helper.ts'

const reason = 'the new server needs it'

test('a right is judged again where it is used', async t => {
  const house = await startHouse(t)
  const config = configFor(t, await house.database(), house.redis.url)
  const app = await startApp(t, config)
  await redisIsReady(app)
  await app.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.app.server.address() as AddressInfo
  const sql = tablesOf(t, config.databaseUrl)
  const { call } = app
  const names = Array.from({ length: 30 }, (_, i) => `p${i}@x.org`)

  async function newMember (projectId: string, role: string) {
    const person = await newPerson(app, config, { email: names.pop() ?? '' })
    await call('POST', `/projects/${projectId}/members`, { email: person.email, role })
    return person
  }
  async function newProject () {
    const projectId = (await call('POST', '/projects', { name: 'P' })).body.id as string
    await newMember(projectId, 'owner') // who stays
    const key = (await call('POST', `/projects/${projectId}/keys`, { name: 'Key' })).body
    return { projectId, keys: `/projects/${projectId}/keys`, at: `/projects/${projectId}/keys/${key.id}`, secret: key.secret as string }
  }
  async function newToken (projectId: string, permissions: string[]) {
    const { body } = await call('POST', '/service-tokens', { name: 'T', projectId, permissions })
    return { id: body.id as string, headers: { authorization: `Bearer ${body.token}` } }
  }
  const asPerson = (cookie: string) => ({ ...ownPage, cookie })
  const actionsOf = async (projectId: string) => (await sql`SELECT action, details ->> 'code' AS code FROM audit_events WHERE chain = ${projectId} ORDER BY seq`).map(({ action, code }) => ({ action, code }))

  /** Sends the headers and half of the body, does something when the caller has passed authentication, sends the rest. */
  async function slowly (path: string, headers: Record<string, string>, body: object, meanwhile: () => Promise<unknown>) {
    const payload = JSON.stringify(body)
    const passed = new Promise<void>(resolve => { parked.push(resolve) })
    const outgoing: ClientRequest = httpRequest({ port, host: '127.0.0.1', method: 'POST', path: `/v1${path}`, headers: { ...headers, 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(payload)) } })
    const answered = new Promise<{ status: number | undefined, text: string }>((resolve, reject) => {
      outgoing.on('error', reject)
      outgoing.on('response', response => { text(response).then(said => { resolve({ status: response.statusCode, text: said }) }, reject) })
    })
    outgoing.write(payload.slice(0, 1))
    await passed
    await meanwhile()
    outgoing.end(payload.slice(1))
    return await answered
  }
  const parked: Array<() => void> = []
  // A body is read once the caller has passed authentication.
  app.app.server.on('request', incoming => { incoming.once('resume', () => { parked.shift()?.() }) })

  const acts = { reveal: { permission: 'keys:reveal', body: { reason } }, rotate: { permission: 'keys:rotate', body: {} }, create: { permission: 'keys:create', body: { name: 'Late' } } }
  for (const [act, { permission, body }] of Object.entries(acts)) {
    await t.test(`GX-16 ${act} with a slow body, after the right has gone`, async t => {
      const { projectId, keys, at } = await newProject()
      const path = act === 'create' ? keys : `${at}/${act}`
      const removed = await newMember(projectId, 'owner')
      const gone = await slowly(path, asPerson(removed.cookie), body, async () => { t.match(await call('DELETE', `/projects/${projectId}/members/${removed.id}`), { status: 204 }) })
      t.match(gone, { status: 404 }, 'removed')
      const demoted = await newMember(projectId, 'owner')
      t.match(await slowly(path, asPerson(demoted.cookie), body, async () => { t.match(await call('PATCH', `/projects/${projectId}/members/${demoted.id}`, { role: 'viewer' }), { status: 200 }) }), { status: 403, text: /"forbidden"/ }, 'demoted')
      const signedOut = await newMember(projectId, 'owner')
      t.match(await slowly(path, asPerson(signedOut.cookie), body, async () => { t.match(await signedOut.call('POST', '/sign-out', {}), { status: 204 }) }), { status: 401 }, 'signed out')
      const token = await newToken(projectId, [permission])
      t.match(await slowly(path, token.headers, body, async () => { t.match(await call('DELETE', `/service-tokens/${token.id}`), { status: 204 }) }), { status: 401 }, 'token deleted')
      const actions = await actionsOf(projectId)
      t.equal(actions.filter(({ action }) => action === `key.${act}`).length, act === 'create' ? 1 : 0, 'nothing was done')
      t.strictSame(actions.filter(({ action }) => action === 'permission.refused').map(({ code }) => code), [act === 'create' ? 'project_not_found' : 'key_not_found', 'forbidden', 'unauthenticated', 'unauthenticated'], 'each refusal is in the trail')
      const staying = await newMember(projectId, 'owner')
      t.match(await slowly(path, asPerson(staying.cookie), body, async () => {}), { status: act === 'create' ? 201 : 200, text: /secret/ }, 'a slow body by itself is none\'s fault')
    })
  }

  await t.test('GX-16 reveals and a removal at once: one order, and no reveal after the removal', async t => {
    const { projectId, at } = await newProject()
    const person = await newMember(projectId, 'owner')
    const answers = await Promise.all(Array.from({ length: 20 }, async (_, i) => i === 10
      ? await call('DELETE', `/projects/${projectId}/members/${person.id}`)
      : await person.call('POST', `${at}/reveal`, { reason })))
    t.equal(answers[10]?.status, 204)
    for (const { status } of answers.filter((_, i) => i !== 10)) t.ok(status === 200 || status === 404, String(status))
    const actions = (await actionsOf(projectId)).map(({ action }) => action)
    t.notOk(actions.slice(actions.indexOf('member.remove')).includes('key.reveal'))
    t.equal(actions.filter(action => action === 'key.reveal').length, answers.filter(({ status }) => status === 200).length)
  })

  await t.test('GX-16 changes and a removal at once do not wait for each other in a circle', async t => {
    const { projectId, keys } = await newProject()
    const person = await newMember(projectId, 'owner')
    const answers = await Promise.all(Array.from({ length: 20 }, async (_, i) => i === 10
      ? await call('DELETE', `/projects/${projectId}/members/${person.id}`)
      : i % 2 === 0 ? await person.call('POST', keys, { name: 'K' }) : await person.call('POST', `/projects/${projectId}/roles`, { name: `r${i}`, scopes: [] })))
    t.ok(answers.every(({ status }) => [201, 204, 404].includes(status)), answers.map(({ status }) => status).join())
    const [{ deadlocks } = {}] = await sql`SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()`
    t.equal(deadlocks, 0)
  })

  await t.test('GX-16 a kept answer is not for a token that has lost the permission meanwhile', async t => {
    const { projectId, keys } = await newProject()
    const token = await newToken(projectId, ['keys:create', 'keys:read'])
    const headers = { ...token.headers, 'idempotency-key': 'one' }
    const first = await slowly(keys, headers, { name: 'Once' }, async () => {})
    t.match(first, { status: 201, text: /secret/ })
    t.match(await slowly(keys, headers, { name: 'Once' }, async () => {}), { status: 201, text: /secret/ }, 'replayed')
    const refused = await slowly(keys, headers, { name: 'Once' }, async () => { await sql`UPDATE service_tokens SET permissions = '{keys:read}' WHERE id = ${token.id}` })
    t.match(refused, { status: 403, text: /"forbidden"/ })
    t.notMatch(refused.text, /secret/)
  })

  await t.test('GX-16 a reveal that wants the password again is in the trail', async t => {
    const { projectId, at } = await newProject()
    const person = await newMember(projectId, 'owner')
    await sql`UPDATE sessions SET authenticated_at = now() - interval '11 minutes' WHERE user_id = ${person.id}`
    t.match(await person.call('POST', `${at}/reveal`, { reason }), { status: 403, body: { code: 'confirmation_required' } })
    t.match((await actionsOf(projectId)).at(-1), { action: 'permission.refused', code: 'confirmation_required' })
  })
})
