import { randomUUID } from 'node:crypto'
import { RedisStore, limitsOfKey, type KeyLimit, type RedisConnection } from '@keygate/rate-limit'
import { test } from 'tap'
import { createLender, type Living } from './fuzz/living.ts'
import { operationsOf, type Document } from './fuzz/operations.ts'
import { ownPage } from './fuzz/people.ts'
import { createRandom } from './fuzz/random.ts'
import { send, type Answer, type Request } from './fuzz/request.ts'
import { createWorld, type World } from './fuzz/world.ts'
import { configFor, redisIsReady, startApp, startHouse, tokens, type Sql } from './helper.ts'
import { tablesOf } from './people-helper.ts'

/** What of the living's a body needs, by its name. */
type ValueOf = (name: string) => unknown

interface Change {
  /** What stands in the audit trail afterwards. */
  action: string
  body?: (valueOf: ValueOf) => object
  header?: Record<string, string>
  /** Brings what the operation is about into the state that it changes. */
  prepare?: (world: World, path: Record<string, string>, redis: RedisConnection) => Promise<void>
}

const ofKey = (path: Record<string, string>): string => `/projects/${path['projectId']}/keys/${path['keyId']}`
const anyVersion = { 'if-match': '*' }

/** Every operation that changes something. Whoever adds one adds it here, with its audit event. */
const changes: Record<string, Change> = {
  createProject: { action: 'project.create', body: () => ({ name: 'New' }) },
  editProject: { action: 'project.edit', body: () => ({ name: 'Changed', policies: [{ name: 'p', limit: 5, windowSeconds: 60 }] }), header: anyVersion },
  deleteProject: { action: 'project.delete', prepare: async ({ call }, { projectId }) => { await call('POST', `/projects/${projectId}/keys`, { name: 'In it' }) } },
  createKey: { action: 'key.create', body: () => ({ name: 'New', scopes: ['submissions'], allowedHosts: ['192.0.2.1'] }), header: { 'idempotency-key': randomUUID() } },
  editKey: { action: 'key.edit', body: () => ({ name: 'Changed', scopes: ['exports'], allowedHosts: ['192.0.2.1'] }), header: anyVersion },
  deleteKey: { action: 'key.delete' },
  disableKey: { action: 'key.disable' },
  enableKey: { action: 'key.enable', prepare: async ({ call }, path) => { await call('POST', `${ofKey(path)}/disable`) } },
  rotateKey: { action: 'key.rotate', body: () => ({ gracePeriodSeconds: 60 }), header: { 'idempotency-key': randomUUID() } },
  extendRotation: { action: 'key.extendRotation', body: () => ({ gracePeriodSeconds: 60 }) },
  finishRotation: { action: 'key.finishRotation' },
  revokeKey: { action: 'key.revoke', body: () => ({ reason: 'leaked' }) },
  revealKey: { action: 'key.reveal', body: () => ({ reason: 'moved to a new server' }) },
  createRole: { action: 'role.create', body: () => ({ name: 'New', scopes: ['exports'] }) },
  editRole: { action: 'role.edit', body: () => ({ scopes: ['exports'] }), header: anyVersion },
  deleteRole: { action: 'role.delete' },
  resetKeyLimit: { action: 'limit.reset', prepare: countOne },
  addMember: { action: 'member.add', body: () => ({ email: `${randomUUID()}@example.org`, name: 'New', role: 'viewer' }) },
  editMember: { action: 'member.edit', body: () => ({ role: 'manager' }) },
  removeMember: { action: 'member.remove' },
  inviteMember: { action: 'member.invite' },
  addOperator: { action: 'operator.add', body: valueOf => ({ email: valueOf('email') }) },
  removeOperator: { action: 'operator.remove' },
  createServiceToken: { action: 'token.create', body: () => ({ name: 'New', permissions: ['keys:read'] }) },
  deleteServiceToken: { action: 'token.delete' },
  signIn: { action: 'sign-in', body: valueOf => ({ email: valueOf('email'), password: valueOf('password') }) },
  signOut: { action: 'sign-out' },
  setPassword: { action: 'password.set', body: valueOf => ({ token: valueOf('token'), password: valueOf('password') }) },
  changePassword: { action: 'password.change', body: valueOf => ({ currentPassword: valueOf('currentPassword'), newPassword: valueOf('newPassword') }) }
}

/** Not GET, and still nothing that is written down, each for its reason. */
const unaudited: Record<string, string> = {
  verify: 'a look-up; when a key was used last is noted, and who used it is in the gateways\' logs',
  confirmPassword: 'the caller shows to be who is signed in already; what it opens (reveal) is written down, and so is a wrong password'
}

test('B2-15 a change and its audit event are one', async t => {
  const house = await startHouse(t)
  const databaseUrl = await house.database()
  const config = configFor(t, databaseUrl, house.redis.url)
  const testApp = await startApp(t, config)
  await redisIsReady(testApp)
  const { app, call, parts } = testApp
  const sql = tablesOf(t, databaseUrl.replace('keygate@', 'postgres@'))
  const world = await createWorld(app, call)
  const document: Document = (await app.inject('/openapi.json')).json()
  const others = operationsOf(document).filter(({ method }) => method !== 'GET')

  const cannotRecord = async (work: () => Promise<void>): Promise<void> => {
    await sql`REVOKE INSERT ON audit_events FROM keygate`
    await work()
    await sql`GRANT INSERT ON audit_events TO keygate`
  }

  /** All that a change could leave behind: every row, and what Redis holds of projects. */
  const everything = async (): Promise<string[]> => [...await dumpTables(sql), ...await dumpProjects(parts.redis)]

  await t.test('every operation that is no GET has its row here', async t => {
    t.same(others.map(({ id }) => id).sort(), [...Object.keys(changes), ...Object.keys(unaudited)].sort())
  })

  for (const operation of others.filter(({ id }) => changes[id] !== undefined)) {
    await t.test(`B2-15 ${operation.id}: what cannot be recorded does not happen; what can is recorded once`, async t => {
      const { action, body, header, prepare } = changes[operation.id] as Change
      const living = await createLender(operation, world).take()
      await prepare?.(world, living.path, parts.redis)
      const request: Request = { path: living.path, query: {}, header: { ...header, ...living.header }, ...body !== undefined && { body: body(valueOf(living)) } }
      const ask = async (): Promise<Answer> => await send(app, operation, request, tokens.all)
      const events = async (): Promise<number> => (await sql`SELECT 1 FROM audit_events WHERE action = ${action}`).length

      const before = await everything()
      const eventsBefore = await events()
      await cannotRecord(async () => {
        const { status, headers, text } = await ask()
        t.match({ status, headers, body: JSON.parse(text) }, { status: 500, headers: { 'content-type': 'application/problem+json' }, body: { code: 'internal_error' } })
        t.notMatch(text, /audit|permission denied|INSERT|kg_|kgs_/i, 'no text of the database, no secret')
        t.notOk(headers['set-cookie'], 'and no session')
      })
      t.same(await everything(), before, 'nothing was changed, and no version was made known')

      const { status, text } = await ask()
      t.ok(status >= 200 && status < 300, 'the same request is good otherwise', { status, ...status >= 400 && { text } })
      t.equal(await events(), eventsBefore + 1, action)
    })
  }

  await t.test('B2-15 what is no change and is written down all the same is not answered unrecorded: refusals, wrong passwords', async t => {
    const confirm = others.find(({ id }) => id === 'confirmPassword') as typeof others[number]
    const session = await createLender(confirm, world).take()
    const wrongly = { path: {}, query: {}, header: { ...session.header }, body: { password: 'not the password' } }
    const ask = async (): Promise<number[]> => [
      (await call('POST', '/projects', { name: 'x' }, tokens.reader)).status,
      (await call('POST', '/sign-in', { email: 'nobody@example.org', password: 'not the password' }, tokens.all, ownPage)).status,
      (await send(app, confirm, wrongly, tokens.all)).status
    ]
    const before = await everything()
    await cannotRecord(async () => { t.same(await ask(), [500, 500, 500]) })
    t.same(await everything(), before)
    t.same(await ask(), [403, 401, 403])
  })
})

/** Counts a request of the key, as a gateway does: something that can be forgotten. */
async function countOne ({ call }: World, path: Record<string, string>, redis: RedisConnection): Promise<void> {
  const policy: KeyLimit['policy'] = { name: 'long', limit: 5, windowSeconds: 86_400, algorithm: 'sliding', partition: 'key' }
  await call('PATCH', ofKey(path), { policies: [policy] })
  const key = { projectId: path['projectId'] as string, keyId: path['keyId'] as string, policies: { owner: 'key' as const, list: [policy] } }
  await new RedisStore(redis).decide({ cost: 1, limits: limitsOfKey(key, { name: 'forms', policies: [] }, { id: 'listSubmissions', policies: [] }, () => 'somewhere') })
}

function valueOf ({ values }: Living): ValueOf {
  return name => {
    const make = values?.[name.toLowerCase()]
    if (make === undefined) throw new Error(`nothing lends a ${name}`)
    return make(createRandom(name), 'inside', {})
  }
}

/** Every row of every table as text, but for what a mere use of a session or a key moves on. */
async function dumpTables (sql: Sql): Promise<string[]> {
  const tables = await sql<Array<{ name: string }>>`SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`
  const rows: string[] = []
  for (const { name } of tables) {
    rows.push(...(await sql<Array<{ row: string }>>`SELECT (to_jsonb(t) - 'last_seen_at' - 'last_used_at')::text AS row FROM ${sql(name)} t ORDER BY 1`).map(({ row }) => `${name} ${row}`))
  }
  return rows
}

/** What Redis holds of projects: versions that were made known, and what was counted. Without what it counts per address of a caller. */
async function dumpProjects ({ client }: RedisConnection): Promise<string[]> {
  const names = (await client.keys('kg:{*')).filter(name => /^kg:\{[0-9a-f-]{36}\}/.test(name)).sort()
  return await Promise.all(names.map(async name => `${name} ${(await client.dumpBuffer(name)).toString('hex')}`))
}
