import { randomBytes } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { tokens } from '../helper.ts'
import { createLender, type Living } from './living.ts'
import type { Operation } from './operations.ts'
import { joined } from './people.ts'
import { createRandom } from './random.ts'
import { acceptable, send, type Answer, type Request } from './request.ts'
import { idOf, type World } from './world.ts'

export interface RefusalOptions {
  app: FastifyInstance
  /** The same service, which lets every address make one request. */
  impatient: FastifyInstance
  world: World
}

/** What is done to a request that would be accepted. Returns what is answered then. */
type Provoke = (options: RefusalOptions, operation: Operation, request: Request, living: Living) => Promise<Answer>

/** An id of the same kind that nothing has. */
function unknownLike (id: string): string {
  if (/^[0-9a-f-]{36}$/.test(id)) return '11111111-2222-4333-8444-555555555555'
  const [kind] = /^[a-z]+_/.exec(id) ?? ['']
  return kind === '' ? 'nothing-has-this-name' : kind.padEnd(id.length, '0')
}

/** The request with another last id. */
function addressedTo (request: Request, change: (id: string) => string): Request {
  const [name = '', id = ''] = Object.entries(request.path).at(-1) ?? []
  return { ...request, path: { ...request.path, [name]: change(id) } }
}

/** Without the session of a person, and without what a browser says: only the token is left. */
function asProgram (request: Request): Request {
  const { cookie: _cookie, 'sec-fetch-site': _site, ...header } = request.header
  return { ...request, header }
}

const otherwise = { payload: 'a', headers: { 'content-type': 'text/plain' } }

/** Of those who ask too much: each operation has its own. */
let addresses = 0

/** Refusals that do not depend on what the operation does. */
const byStatus: Record<number, Provoke> = {
  400: async ({ app }, operation, request) => operation.body === undefined
    ? await send(app, operation, request, tokens.all, { url: `${operation.path.replace(/\{\w+\}/g, '%zz')}?nonsense=%zz&nonsense` })
    : await send(app, operation, request, tokens.all, { payload: '{"name":' }),
  401: async ({ app }, operation, request) => await send(app, operation, asProgram(request), 'kgs_0123456789-of-nobody'),
  403: async ({ app }, operation, request) => {
    const answers = await Promise.all([tokens.verify, tokens.reader].map(async token => await send(app, operation, asProgram(request), token)))
    return answers.find(({ status }) => status === 403) ?? answers[0] as Answer
  },
  404: async ({ app }, operation, request) => await send(app, operation, addressedTo(request, unknownLike), tokens.all),
  412: async ({ app }, operation, request) => await send(app, operation, { ...request, header: { ...request.header, 'if-match': '"stale"' } }, tokens.all),
  413: async ({ app }, operation, request) => await send(app, operation, request, tokens.all, { payload: JSON.stringify({ name: 'x'.repeat(2 ** 20) }), headers: { 'content-type': 'application/json' } }),
  414: async ({ app }, operation, request) => await send(app, operation, addressedTo(request, () => 'x'.repeat(4000)), tokens.all),
  415: async ({ app }, operation, request) => await send(app, operation, request, tokens.all, otherwise),
  428: async ({ app }, operation, request) => await send(app, operation, withoutVersion(request), tokens.all),
  429: async ({ impatient }, operation, request) => {
    const remoteAddress = `10.1.${Math.floor(addresses / 256)}.${addresses++ % 256}`
    await send(impatient, operation, request, tokens.all, { remoteAddress })
    return await send(impatient, operation, request, tokens.all, { remoteAddress })
  }
}

/** To whatever version there is: the state refuses, not the version. */
const revoked: Provoke = async ({ app, world }, operation, request, { path }) => {
  await world.call('POST', `/projects/${path['projectId']}/keys/${path['keyId']}/revoke`)
  return await send(app, operation, toAnyVersion(request), tokens.all)
}

function toAnyVersion (request: Request): Request {
  return request.header['if-match'] === undefined ? request : { ...request, header: { ...request.header, 'if-match': '*' } }
}

function withoutVersion (request: Request): Request {
  const { 'if-match': _left, ...header } = request.header
  return { ...request, header }
}

/** An Idempotency-Key stands for one body. */
const twoBodies: Provoke = async ({ app }, operation, request, living) => {
  const header = { ...request.header, 'idempotency-key': `twice-${randomBytes(8).toString('hex')}` }
  await send(app, operation, { ...request, header }, tokens.all)
  const bodies = Array.from({ length: 20 }, (_, index) => acceptable(operation, living, createRandom(`another ${index}`), 'inside').body)
  const body = bodies.find(other => JSON.stringify(other) !== JSON.stringify(request.body))
  return await send(app, operation, { ...request, header, body }, tokens.all)
}

const withLongVersion: Provoke = async ({ app }, operation, request) =>
  await send(app, operation, { ...request, header: { ...request.header, 'if-match': `"${'x'.repeat(2000)}"` } }, tokens.all)

/** As two requests, not as one that is repeated. */
const twice: Provoke = async ({ app }, operation, request) => {
  const { 'idempotency-key': _left, ...header } = request.header
  await send(app, operation, { ...request, header }, tokens.all)
  return await send(app, operation, { ...request, header }, tokens.all)
}

/** A project must keep an owner. */
const ofOnlyOwner: Provoke = async ({ app, world }, operation, request) => {
  const projectId = idOf(await world.call('POST', '/projects', { name: 'Owned' }))
  const userId = idOf(await world.call('POST', `/projects/${projectId}/members`, { email: `${projectId}@example.org`, name: 'Owner', role: 'owner' }))
  return await send(app, operation, { ...request, path: { projectId, userId }, ...operation.body !== undefined && { body: { role: 'viewer' } } }, tokens.all)
}

/** All pages of a list. */
async function everyRow ({ call }: World, list: string): Promise<Array<Record<string, any>>> {
  const rows: Array<Record<string, any>> = []
  for (let cursor: string | null = ''; cursor !== null;) {
    const { body } = await call('GET', `${list}?limit=100${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`)
    rows.push(...body.data)
    cursor = body.nextCursor
  }
  return rows
}

function withFields (request: Request, fields: object): Request {
  return { ...request, body: { ...request.body as object, ...fields } }
}

/** Only who may not ask is counted. */
const guessed: Provoke = async ({ impatient }, operation, request) => {
  const remoteAddress = `10.2.0.${addresses++ % 256}`
  await send(impatient, operation, request, 'kgs_0123456789-of-nobody', { remoteAddress })
  return await send(impatient, operation, request, 'kgs_0123456789-of-nobody', { remoteAddress })
}

/** Refusals that tell something of the operation, by its id and the status. */
const byOperation: Record<string, Provoke> = {
  'listChanges 429': guessed,
  'verify 429': guessed,
  'listChanges 410': async ({ app }, operation, request) => await send(app, operation, { ...request, query: { after: '18446744073709551615' } }, tokens.all),
  'signIn 401': async ({ app }, operation, request) => await send(app, operation, withFields(request, { password: 'not the password' }), tokens.all),
  'signIn 422': async ({ app }, operation, request) => await send(app, operation, withFields(request, { password: 'x'.repeat(1001) }), tokens.all),
  'changePassword 422': async ({ app }, operation, request) => await send(app, operation, withFields(request, { newPassword: 'too short' }), tokens.all),
  'setPassword 422': async ({ app }, operation, request) => await send(app, operation, withFields(request, { password: 'too short' }), tokens.all),
  'createServiceToken 404': async ({ app }, operation, request) => await send(app, operation, withFields(request, { projectId: '11111111-2222-4333-8444-555555555555' }), tokens.all),
  'deleteServiceToken 409': async ({ app, world }, operation, request) => {
    const fromFile = (await everyRow(world, '/service-tokens')).find(token => token['fromFile'])
    return await send(app, operation, addressedTo(request, () => fromFile?.['id']), tokens.all)
  },
  // Somebody for whom another vouches.
  'createProject 409': async ({ app, world }, operation, request) => {
    const { token } = (await world.call('POST', '/service-tokens', { name: 'Another', permissions: ['members:write'], projectId: world.projectId })).body
    const owner = `${randomBytes(8).toString('hex')}@example.org`
    idOf(await world.call('POST', `/projects/${world.projectId}/members`, { email: owner, name: 'Invited', role: 'viewer' }, token))
    return await send(app, operation, withFields(request, { owner }), tokens.all)
  },
  'addMember 409': twice,
  'createRole 409': twice,
  'createKey 409': async (options, operation, request, living) => await twice(options, operation, { ...request, body: { name: 'Taken over', import: { digest: randomBytes(32).toString('base64url') } } }, living),
  'deleteRole 409': async ({ app, world }, operation, request, living) => {
    const { body: { name } } = await world.call('GET', `/projects/${living.path['projectId']}/roles/${living.path['roleId']}`)
    await world.call('POST', `/projects/${living.path['projectId']}/keys`, { name: 'Bound', role: name })
    return await send(app, operation, withoutVersion(request), tokens.all)
  },
  'editRole 409': async ({ app, world }, operation, request, living) => {
    const name = `Taken ${randomBytes(8).toString('hex')}`
    await world.call('POST', `/projects/${living.path['projectId']}/roles`, { name })
    return await send(app, operation, withFields(request, { name }), tokens.all)
  },
  'extendRotation 409': async ({ app, world }, operation, request, { path }) => {
    await world.call('POST', `/projects/${path['projectId']}/keys/${path['keyId']}/rotate/finish`)
    return await send(app, operation, withoutVersion(request), tokens.all)
  },
  'addOperator 409': twice,
  'editMember 409': ofOnlyOwner,
  'removeMember 409': ofOnlyOwner,
  'inviteMember 409': async ({ app, world }, operation, request) => await send(app, operation, { ...request, path: await joined(world) }, tokens.all),
  'removeOperator 409': async ({ app, world }, operation, request) => {
    // Only who can sign in counts: one with a password, who is alone then.
    const last = await joined(world)
    const email = (await everyRow(world, `/projects/${last['projectId']}/members`)).find(member => member['userId'] === last['userId'])?.['email']
    await world.call('POST', '/operators', { email })
    for (const { userId } of await everyRow(world, '/operators')) if (userId !== last['userId']) await world.call('DELETE', `/operators/${userId}`)
    return await send(app, operation, addressedTo(request, () => last['userId'] as string), tokens.all)
  }
}

/** Refusals that follow from what an operation takes. */
function byParameter ({ parameters }: Operation, status: number): Provoke | undefined {
  const takes = (name: string): boolean => parameters.some(parameter => parameter.name.toLowerCase() === name)
  if (status === 409 && takes('keyid')) return revoked
  if (status === 422 && takes('idempotency-key')) return twoBodies
  return status === 422 && takes('if-match') ? withLongVersion : undefined
}

/** Makes an operation answer one of the refusals that it documents; undefined when nothing here knows how to. */
export async function provoke (operation: Operation, status: number, options: RefusalOptions): Promise<{ request: Request, answer: Answer } | undefined> {
  const make = byOperation[`${operation.id} ${status}`] ?? byParameter(operation, status) ?? byStatus[status]
  if (make === undefined) return undefined
  const living = await createLender(operation, options.world).take()
  const request = acceptable(operation, living, createRandom(`${operation.id} ${status}`), 'inside')
  return { request, answer: await make(options, operation, request, living) }
}
