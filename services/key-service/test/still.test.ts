import { request as httpRequest, type ClientRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { test, type Test } from 'tap'
import { ofRole } from '../src/access/permissions.ts'
import { configFor, redisIsReady, startApp, startHouse, type Answer, type Sql } from './helper.ts'
import { deadlocksOf, pidOf, waiterFor, waiting } from './lock-watch.ts'
import { newPerson, ownPage, password, tablesOf } from './people-helper.ts'

const reason = 'the new server needs it'
/** Every change with every ending of a right; else each change with one for persons and one for tokens, and each ending with six changes. */
const isThorough = process.env['KEYGATE_THOROUGH'] === '1'

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
  interface Token { id: string, token: string, headers: Record<string, string> }
  async function newToken (projectId: string, permissions: string[]): Promise<Token> {
    const { body } = await call('POST', '/service-tokens', { name: 'T', projectId, permissions })
    return { id: body.id, token: body.token, headers: { authorization: `Bearer ${body.token}` } }
  }
  const deadlocks = async () => (await sql`SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()`)[0]?.['deadlocks']
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

  /** What ends the right that a caller comes with, as one statement; what it took can be put back. */
  interface Ending { status: number, code: string, take: (by: Sql) => Promise<unknown> }
  const lock = tablesOf(t, config.databaseUrl)
  const taker = tablesOf(t, config.databaseUrl)
  const lockPid = await pidOf(lock)

  /** The right is taken away, not yet committed, while the change comes in. */
  async function afterwards (t: Test, name: string, { take, status, code }: Ending, act: () => Promise<Answer>): Promise<void> {
    await lock`BEGIN`
    await take(lock)
    const asked = act()
    const waiter = await waiterFor(sql, lockPid, asked)
    await lock`COMMIT`
    t.match({ waits: waiter !== undefined, ...await asked }, { waits: true, status, body: { code } }, `${name}, after the right`)
  }

  /** The change is made, not yet committed, while the right is taken away. */
  async function before (t: Test, name: string, { take }: Ending, chain: string, act: () => Promise<Answer>): Promise<void> {
    await lock`BEGIN`
    await lock`SELECT 1 FROM audit_chains WHERE chain = ${chain} FOR UPDATE` // where every change writes, last of all
    const asked = act()
    const waiter = await waiterFor(sql, lockPid, asked)
    const taking = take(taker)
    const isHeld = waiter !== undefined && await waiterFor(sql, waiter, taking) !== undefined
    await lock`COMMIT`
    const { status } = await asked
    await taking
    t.ok(isHeld && status < 300, `${name}, before the right: ${status}`)
  }

  await t.test('GX-16 a right that is taken away and a change: one after the other, whichever comes first', async t => {
    const person = await newPerson(app, config, { email: 'everywhere@x.org' })
    const everything = [...ofRole.owner]
    let others = 0

    /** A project of which the person is an owner, and what there is in it to be changed. */
    async function newWorld () {
      const projectId = (await call('POST', '/projects', { name: 'P' })).body.id as string
      const at = `/projects/${projectId}`
      const staying = (await call('POST', `${at}/members`, { email: `other${others++}@x.org`, role: 'owner' })).body.userId as string
      const member = (await call('POST', `${at}/members`, { email: `other${others++}@x.org`, role: 'viewer' })).body.userId as string
      t.match(await call('POST', `${at}/members`, { email: person.email, role: 'owner' }), { status: 201 })
      const key = `${at}/keys/${(await call('POST', `${at}/keys`, { name: 'Key' })).body.id}`
      const role = `${at}/roles/${(await call('POST', `${at}/roles`, { name: 'R' })).body.id}`
      const ended = await newToken(projectId, ['keys:read'])
      const { body: { id: tokenId, token } } = await person.call('POST', '/service-tokens', { name: 'T', projectId, permissions: everything })
      const ofMember = (by: Sql) => by`DELETE FROM members WHERE project_id = ${projectId} AND user_id = ${person.id}`
      const [membership] = await sql`SELECT * FROM members WHERE project_id = ${projectId} AND user_id = ${person.id}`
      const [session] = await sql`SELECT * FROM sessions WHERE user_id = ${person.id}`
      const [made] = await sql`SELECT * FROM service_tokens WHERE id = ${tokenId}`
      const name = 'Changed'
      return {
        projectId,
        callers: {
          person: async (method: string, path: string, body?: object) => await person.call(method, path, body, method === 'PATCH' ? { 'if-match': '*' } : {}),
          token: async (method: string, path: string, body?: object) => await call(method, path, body, token)
        },
        endings: {
          person: {
            removed: { status: 404, code: '_not_found', take: ofMember },
            demoted: { status: 403, code: 'forbidden', take: async by => await by`UPDATE members SET role = 'viewer' WHERE project_id = ${projectId} AND user_id = ${person.id}` },
            'signed out': { status: 401, code: 'unauthenticated', take: async by => await by`DELETE FROM sessions WHERE user_id = ${person.id}` }
          },
          token: {
            'whose maker is removed': { status: 403, code: 'forbidden', take: ofMember },
            'that is narrowed': { status: 403, code: 'forbidden', take: async by => await by`UPDATE service_tokens SET permissions = '{projects:read}' WHERE id = ${tokenId}` },
            'that is ended': { status: 401, code: 'unauthenticated', take: async by => await by`DELETE FROM service_tokens WHERE id = ${tokenId}` }
          }
        } satisfies Record<string, Record<string, Ending>>,
        acts: {
          reveal: ['POST', `${key}/reveal`, { reason }],
          createKey: ['POST', `${at}/keys`, { name }],
          editKey: ['PATCH', key, { name }],
          disableKey: ['POST', `${key}/disable`],
          rotateKey: ['POST', `${key}/rotate`],
          revokeKey: ['POST', `${key}/revoke`],
          deleteKey: ['DELETE', key],
          resetKeyLimit: ['DELETE', `${key}/limit`],
          createRole: ['POST', `${at}/roles`, { name }],
          editRole: ['PATCH', role, { name }],
          deleteRole: ['DELETE', role],
          editProject: ['PATCH', at, { name }],
          addMember: ['POST', `${at}/members`, { email: `other${others++}@x.org`, role: 'viewer' }],
          editMember: ['PATCH', `${at}/members/${member}`, { role: 'manager' }],
          inviteMember: ['POST', `${at}/members/${staying}/invitation`],
          removeMember: ['DELETE', `${at}/members/${member}`],
          createServiceToken: ['POST', '/service-tokens', { name, projectId, permissions: ['keys:read'] }],
          deleteServiceToken: ['DELETE', `/service-tokens/${ended.id}`],
          deleteProject: ['DELETE', at]
        } satisfies Record<string, [string, string, object?]>,
        giveBack: async () => {
          await sql`INSERT INTO members ${sql(membership as object)} ON CONFLICT (project_id, user_id) DO UPDATE SET role = 'owner'`
          await sql`INSERT INTO sessions ${sql(session as object)} ON CONFLICT DO NOTHING`
          await sql`DELETE FROM service_tokens WHERE id = ${tokenId}`
          await sql`INSERT INTO service_tokens ${sql(made as object)}`
        }
      }
    }
    const newest = async () => (await sql`SELECT id, action FROM audit_events ORDER BY id DESC LIMIT 1`)[0]
    const { endings, acts } = await newWorld()
    for (const kind of ['person', 'token'] as const) {
      for (const [index, ending] of Object.keys(endings[kind]).entries()) {
        for (const [number, act] of (Object.keys(acts) as Array<keyof typeof acts>).entries()) {
          if (!isThorough && (index + number) % 3 !== 0) continue
          const { projectId, callers, endings, acts, giveBack } = await newWorld()
          const change = async () => await callers[kind](...acts[act] as [string, string, object?])
          const end = (endings[kind] as Record<string, Ending>)[ending] as Ending
          // No path names the token's project: whoever has the right in another one is allowed to ask, and sees no such token.
          const isUnseen = act === 'deleteServiceToken' && ['removed', 'demoted'].includes(ending)
          const name = `${act} by a ${kind} ${ending}`
          const earlier = await newest()
          await afterwards(t, name, isUnseen ? { ...end, status: 404, code: 'token_not_found' } : end, change)
          if (isUnseen) t.same(await newest(), earlier, `${name}: nothing was done`)
          else t.equal((await newest())?.['action'], 'permission.refused', `${name}: nothing was done, and the refusal is in the trail`)
          await giveBack()
          await before(t, name, end, projectId, change)
          await giveBack()
        }
      }
    }
  })

  await t.test('GX-16 a change of the key and a reveal: one after the other, whichever comes first', async t => {
    const { projectId, at } = await newProject()
    const keyId = at.split('/').at(-1) ?? ''
    const reveal = async () => await call('POST', `${at}/reveal`, { reason })
    const set = (status: string) => async (by: Sql) => await by`UPDATE keys SET status = ${status} WHERE id = ${keyId}`
    for (const [status, code, changed] of [['revoked', 'key_revoked', 409], ['deleted', 'key_not_found', 404]] as const) {
      await afterwards(t, `reveal of a key that is ${status}`, { status: changed, code, take: set(status) }, reveal)
      await set('active')(sql)
      await before(t, `reveal of a key that is ${status}`, { status: changed, code, take: set(status) }, projectId, reveal)
      await set('active')(sql)
    }
    // A rotation that is about to be written down holds the key; whoever reveals meanwhile gets the secret that is current then.
    await lock`BEGIN`
    await lock`SELECT 1 FROM audit_chains WHERE chain = ${projectId} FOR UPDATE`
    const rotating = call('POST', `${at}/rotate`)
    const rotation = await waiterFor(sql, lockPid, rotating) ?? 0
    const revealing = reveal()
    const isHeld = await waiterFor(sql, rotation, revealing) !== undefined
    await lock`COMMIT`
    const { body: { secret } } = await rotating
    t.match({ isHeld, ...await revealing }, { isHeld: true, status: 200, body: { secret } }, 'the new secret, not the one that is no more')
  })

  await t.test('GX-16 what operators do, and the right to it: one after the other, whichever comes first', async t => {
    await newPerson(app, config, { email: 'operator@x.org', operator: true })
    const candidate = await newPerson(app, config, { email: 'candidate@x.org' })
    const deputy = await newPerson(app, config, { email: 'deputy@x.org', operator: true })
    const end: Ending = { status: 403, code: 'forbidden', take: async by => await by`DELETE FROM operators WHERE user_id = ${deputy.id}` }
    const { token } = (await deputy.call('POST', '/service-tokens', { name: 'T', permissions: ['operators:write', 'tokens:write'] })).body
    for (const [kind, as] of Object.entries({ person: deputy.call, token: async (method: string, path: string, body?: unknown) => await call(method, path, body, token) })) {
      for (const [act, method, path, body] of [['add', 'POST', '/operators', { email: candidate.email }], ['remove', 'DELETE', `/operators/${candidate.id}`], ['token', 'POST', '/service-tokens', { name: 'U', permissions: ['tokens:write'] }]] as const) {
        for (const go of [afterwards, before] as const) {
          const change = async () => await as(method, path, body)
          if (go === afterwards) await afterwards(t, `${act} by a ${kind}`, end, change)
          else await before(t, `${act} by a ${kind}`, end, 'installation', change)
          await sql`INSERT INTO operators (user_id, granted_by) VALUES (${deputy.id}, 'x')`
        }
      }
    }
  })

  await t.test('GX-25 a password is not changed by who has signed out meanwhile', async t => {
    const person = await newPerson(app, config, { email: 'leaving@x.org' })
    await lock`BEGIN`
    await lock`SELECT 1 FROM passwords WHERE user_id = ${person.id} FOR UPDATE`
    const [digest] = await sql`SELECT hash FROM passwords WHERE user_id = ${person.id}`
    const changing = person.call('POST', '/me/password', { currentPassword: password, newPassword: 'another horse battery' })
    const waiter = await waiterFor(sql, lockPid, changing)
    t.match(await person.call('POST', '/sign-out'), { status: 204 })
    await lock`COMMIT`
    t.match({ waits: waiter !== undefined, ...await changing }, { waits: true, status: 401, body: { code: 'unauthenticated' } })
    t.same(await sql`SELECT hash FROM passwords WHERE user_id = ${person.id}`, [digest])
    t.same(await sql`SELECT 1 FROM sessions WHERE user_id = ${person.id}`, [])
  })

  await t.test('GX-16 changes and a removal at once do not wait for each other in a circle', async t => {
    const { projectId, keys } = await newProject()
    const person = await newMember(projectId, 'owner')
    const answers = await Promise.all(Array.from({ length: 20 }, async (_, i) => i === 10
      ? await call('DELETE', `/projects/${projectId}/members/${person.id}`)
      : i % 2 === 0 ? await person.call('POST', keys, { name: 'K' }) : await person.call('POST', `/projects/${projectId}/roles`, { name: `r${i}`, scopes: [] })))
    t.ok(answers.every(({ status }) => [201, 204, 404].includes(status)), answers.map(({ status }) => status).join())
    t.equal(await deadlocks(), 0)
  })

  await t.test('GX-16 those who end each other\'s rights, or their own, come one after the other', async t => {
    const { projectId } = await newProject()
    const all = async (acts: Array<() => Promise<Answer>>) => (await Promise.all(acts.map(async act => await act()))).map(({ status }) => status)
    const twenty = (act: (i: number) => Promise<Answer>) => Array.from({ length: 20 }, (_, i) => async () => await act(i))
    const pair = async <T>(make: () => Promise<T>) => [await make(), await make()] as const

    const [ada, bob] = await pair(async () => await newMember(projectId, 'owner'))
    const owners = await all(twenty(async i => i % 2 === 0 ? await ada.call('DELETE', `/projects/${projectId}/members/${bob.id}`) : await bob.call('DELETE', `/projects/${projectId}/members/${ada.id}`)))
    t.equal(owners.filter(status => status === 204).length, 1, `owners: ${owners.join()}`)
    const leaving = await newMember(projectId, 'owner')
    const left = await all(twenty(async () => await leaving.call('DELETE', `/projects/${projectId}/members/${leaving.id}`)))
    t.equal(left.filter(status => status === 204).length, 1, `who leaves: ${left.join()}`)

    const end = async (by: Token, id: string) => await call('DELETE', `/service-tokens/${id}`, undefined, by.token)
    const own = await newToken(projectId, ['tokens:write'])
    const itself = await all(twenty(async () => await end(own, own.id)))
    t.equal(itself.filter(status => status === 204).length, 1, `a token itself: ${itself.join()}`)
    const [one, other] = await pair(async () => await newToken(projectId, ['tokens:write']))
    const tokens = await all(twenty(async i => i % 2 === 0 ? await end(one, other.id) : await end(other, one.id)))
    t.equal(tokens.filter(status => status === 204).length, 1, `tokens: ${tokens.join()}`)

    const [first, second] = await pair(async () => await newPerson(app, config, { email: names.pop() ?? '', operator: true }))
    const operators = await all(twenty(async i => i % 2 === 0 ? await first.call('DELETE', `/operators/${second.id}`) : await second.call('DELETE', `/operators/${first.id}`)))
    t.equal(operators.filter(status => status === 204).length, 1, `operators: ${operators.join()}`)
    t.ok([owners, left, itself, tokens, operators].flat().every(status => [204, 401, 403, 404].includes(status)))
    t.equal(await deadlocks(), 0)
  })

  await t.test('GX-16 a person is removed everywhere at once, as member and as operator', async t => {
    const config = configFor(t, await house.database(), house.redis.url)
    const app = await startApp(t, config)
    await redisIsReady(app)
    const { call } = app
    const person = await newPerson(app, config, { email: 'leaving@x.org', operator: true })
    await newPerson(app, config, { email: 'operator@x.org', operator: true })
    const removals = [`/operators/${person.id}`]
    for (let i = 0; i < 6; i++) {
      const at = `/projects/${(await call('POST', '/projects', { name: 'P' })).body.id}/members`
      await call('POST', at, { email: 'boss@x.org', role: 'owner' })
      await call('POST', at, { email: person.email, role: 'manager' })
      removals.push(`${at}/${person.id}`)
    }
    t.match(await person.call('POST', '/service-tokens', { name: 'T', permissions: ['projects:read'] }), { status: 201 })
    // All come as far as they can before the first takes anything.
    const lock = tablesOf(t, config.databaseUrl)
    await lock`BEGIN`
    await lock`SELECT 1 FROM members WHERE user_id = ${person.id} FOR SHARE`
    await lock`SELECT 1 FROM operators WHERE user_id = ${person.id} FOR SHARE`
    const answers = removals.map(path => call('DELETE', path))
    while (await waiting(house.admin, config) < removals.length) { /* each look takes a round trip */ }
    await lock`COMMIT`
    for (const { status, text } of await Promise.all(answers)) t.equal(status, 204, text)
    t.equal(await deadlocksOf(house.admin, app, config), 0)
  })

  await t.test('GX-16 who takes a right away does not wait for the changes that come after', async t => {
    const { projectId, keys } = await newProject()
    const at = `/projects/${projectId}`
    const member = await newMember(projectId, 'manager')
    const token = await newToken(projectId, ['keys:create', 'tokens:write'])
    const child = (await call('POST', '/service-tokens', { name: 'C', projectId, permissions: ['keys:create'] }, token.token)).body
    for (const [ending, changes] of [
      [`${at}/members/${member.id}`, [async () => await member.call('POST', keys, { name: 'K' }), async () => await member.call('POST', keys, { name: 'K' })]],
      [`/service-tokens/${token.id}`, [async () => await call('POST', keys, { name: 'K' }, token.token), async () => await call('POST', keys, { name: 'K' }, child.token)]]
    ] as const) {
      await lock`BEGIN`
      await lock`SELECT 1 FROM audit_chains WHERE chain = ${projectId} FOR UPDATE`
      const changing = changes[0]()
      const change = await waiterFor(sql, lockPid, changing) ?? 0
      const taking = call('DELETE', ending)
      const taker = await waiterFor(sql, change, taking) ?? 0
      const late = changes[1]()
      const isBehind = await waiterFor(sql, taker, late) !== undefined
      await lock`COMMIT`
      t.match({ isBehind, changed: await changing, taken: await taking }, { isBehind: true, changed: { status: 201 }, taken: { status: 204 } })
      t.ok([401, 404].includes((await late).status), ending)
    }
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
