import { randomUUID } from 'node:crypto'
import { digestSecret } from '@keygate/api-key'
import type { Operation } from './operations.ts'
import * as people from './people.ts'
import { makers, type Makers } from './values.ts'
import { idOf, type World } from './world.ts'

/** Something that a request can be about, and what else the request needs to be accepted. */
export interface Living {
  path: Record<string, string>
  header?: Record<string, string>
  /** Values by name (in lower case) that only this one accepts. */
  values?: Makers
}

/** How an operation gets what it is about. */
export interface Supply {
  make: (world: World) => Promise<Living>
  /** A 2xx uses it up: the next request gets another one. */
  isConsumed?: boolean
}

async function newKey ({ call, projectId }: World): Promise<Living> {
  return { path: { projectId, keyId: idOf(await call('POST', `/projects/${projectId}/keys`, { name: 'Fuzzed', scopes: ['submissions'] })) } }
}

const nothing: Supply = { make: async () => ({ path: {} }) }
const project: Supply = { make: async ({ newProject }) => ({ path: { projectId: await newProject() } }) }
const key: Supply = { make: newKey }
const keyInRotation: Supply = {
  make: async world => {
    const living = await newKey(world)
    await world.call('POST', `/projects/${living.path['projectId']}/keys/${living.path['keyId']}/rotate`, { gracePeriodSeconds: 86_400 })
    return living
  }
}
const someProject: Supply = { make: async ({ projectId }) => ({ path: {}, values: { projectid: () => projectId } }) }
const serviceToken: Supply = {
  make: async ({ call, projectId }) => ({ path: { tokenId: idOf(await call('POST', '/service-tokens', { name: 'Fuzzed', permissions: ['keys:read'], projectId })) } })
}
const role: Supply = {
  make: async ({ call, newProject }) => { // each in a project of its own, which has not many
    const projectId = await newProject()
    return { path: { projectId, roleId: idOf(await call('POST', `/projects/${projectId}/roles`, { name: `Fuzzed ${randomUUID()}`, scopes: ['submissions'] })) } }
  }
}
/** A range that none of the intervals refuses, and whose end is behind its beginning. */
const duringDay = (supply: Supply): Supply => ({
  make: async world => ({ ...await supply.make(world), values: { from: () => '2026-11-20T10:00:00Z', until: () => '2026-11-21T10:30:00+02:00' } })
})
const consumed = (supply: Supply): Supply => ({ ...supply, isConsumed: true })

/** By the parameters of the path, in their order. */
const byPath: Record<string, Supply> = {
  '': nothing,
  projectId: project,
  'projectId keyId': key,
  'projectId roleId': role,
  'projectId userId': people.invited,
  userId: people.operator,
  tokenId: serviceToken
}

/** Where the path does not tell enough. Whoever adds an operation that needs more than its path's ids adds it here. */
const byOperation: Record<string, Supply> = {
  deleteProject: consumed(project),
  deleteKey: consumed(key),
  deleteRole: consumed(role),
  revokeKey: consumed(key),
  finishRotation: consumed(keyInRotation),
  extendRotation: consumed(keyInRotation), // one that was cut to a second may be over before the next request
  revealKey: { make: async world => ({ ...await newKey(world), values: { reason: random => `it was lost ${random.integer(0, 1e9)}` } }) },
  verify: {
    make: async ({ call, projectId }) => {
      const { secret } = (await call('POST', `/projects/${projectId}/keys`, { name: 'Looked up' })).body
      const digest = digestSecret(secret)
      return { path: {}, values: { digest: random => random.chance(0.5) ? digest : makers['digest']?.(random, 'inside', {}), projectid: random => random.chance(0.5) ? projectId : undefined } }
    }
  },
  listChanges: {
    make: async ({ call }) => {
      const { cursor } = (await call('GET', '/changes')).body
      return { path: {}, values: { after: random => random.chance(0.5) ? undefined : cursor } }
    }
  },
  listProjectUsage: duringDay(project),
  listTopKeys: duringDay(project),
  exportProjectUsage: duringDay(project),
  listKeyUsage: duringDay(key),
  exportKeyUsage: duringDay(key),
  listProjectLog: duringDay(project),
  exportProjectLog: duringDay(project),
  listKeyLog: duringDay(key),
  exportKeyLog: duringDay(key),
  createProject: { make: async world => ({ path: {}, values: { owner: await people.addressOfSomebody(world) } }) },
  createServiceToken: someProject,
  deleteServiceToken: consumed(serviceToken),
  signIn: people.account,
  setPassword: consumed(people.invitation),
  signOut: consumed(people.session),
  changePassword: consumed(people.session),
  confirmPassword: people.session,
  removeMember: consumed(people.invited),
  addOperator: consumed(people.account),
  removeOperator: consumed(people.operator)
}

/** Lends what an operation is about, to one request at a time; gives back with `done`. */
export interface Lender {
  take: () => Promise<Living>
  done: (living: Living, wasAccepted: boolean) => void
  /** A 2xx uses up what was lent. */
  isConsumed: boolean
}

/** @throws when nobody has said how the operation gets what its path names. */
export function createLender (operation: Operation, world: World): Lender {
  const names = [...operation.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name as string)
  const supply = byOperation[operation.id] ?? byPath[names.join(' ')]
  if (supply === undefined) {
    throw new Error(`${operation.id} (${operation.method} ${operation.path}): nothing here makes a living {${names.join('}, {')}}. Add it to byPath or byOperation in test/fuzz/living.ts.`)
  }
  const { isConsumed = false } = supply
  const hasVersions = operation.parameters.some(parameter => parameter.name.toLowerCase() === 'if-match')
  const idle: Living[] = []
  return {
    take: async () => {
      const living = idle.pop() ?? await supply.make(world)
      return hasVersions ? await withVersion(operation, living, world) : living
    },
    done: (living, wasAccepted) => { if (!(wasAccepted && isConsumed)) idle.push(living) },
    isConsumed
  }
}

/** With the present ETag of what the last id of the path names. */
async function withVersion (operation: Operation, living: Living, { call }: World): Promise<Living> {
  const item = operation.path.slice('/v1'.length, operation.path.lastIndexOf('}') + 1).replace(/\{(\w+)\}/g, (_all, name: string) => living.path[name] ?? '')
  const { etag } = (await call('GET', item)).headers
  return { ...living, values: { ...living.values, 'if-match': random => random.chance(0.7) ? etag : '*' } }
}
