import { randomUUID } from 'node:crypto'
import type { Living, Supply } from './living.ts'
import type { World } from './world.ts'

/** As a browser says that a request comes from our own pages. */
export const ownPage = { 'sec-fetch-site': 'same-origin' }

const password = 'correct horse battery staple'
const passwords = { password: () => password, currentpassword: () => password, newpassword: () => 'staple battery horse correct' }

interface Invited { userId: string, email: string, token: string, projectId: string }

async function invite ({ call, projectId }: World): Promise<Invited> {
  const email = `${randomUUID()}@example.org`
  const { status, body, text } = await call('POST', `/projects/${projectId}/members`, { email, name: 'Fuzzed', role: 'viewer' })
  if (status !== 201) throw new Error(`nobody could be invited: ${status} ${text.slice(0, 500)}`)
  return { userId: body.userId, email, token: /#token=(.+)$/.exec(body.invitation.url)?.[1] ?? '', projectId }
}

/** The session's cookie of somebody who has just set a password. */
async function join (world: World, { token }: Invited): Promise<string> {
  const response = await world.app.inject({ method: 'POST', url: '/v1/set-password', headers: ownPage, payload: { token, password } })
  const [cookie] = response.cookies
  if (cookie === undefined) throw new Error(`no session was begun: ${response.statusCode} ${response.body.slice(0, 500)}`)
  return `${cookie.name}=${cookie.value}`
}

/** A member of a project who has no password yet. */
export const invited: Supply = {
  make: async world => {
    const { userId, projectId } = await invite(world)
    return { path: { projectId, userId } }
  }
}

export const invitation: Supply = {
  make: async world => {
    const { token } = await invite(world)
    return { path: {}, header: ownPage, values: { ...passwords, token: () => token } }
  }
}

/** Somebody with a password. */
export const account: Supply = {
  make: async world => {
    const somebody = await invite(world)
    await join(world, somebody)
    return { path: {}, header: ownPage, values: { ...passwords, email: () => somebody.email } }
  }
}

/** Somebody who is signed in; their requests bear the session instead of a token. */
export const session: Supply = {
  make: async (world): Promise<Living> => ({ path: {}, header: { ...ownPage, cookie: await join(world, await invite(world)) }, values: passwords })
}

/** One of several operators. */
export const operator: Supply = {
  make: async world => {
    const { userId, email } = await invite(world)
    const { status, text } = await world.call('POST', '/operators', { email })
    if (status !== 201) throw new Error(`nobody could be made an operator: ${status} ${text.slice(0, 500)}`)
    return { path: { userId } }
  }
}

/** Where a member stands who has a password. */
export async function joined (world: World): Promise<Record<string, string>> {
  const somebody = await invite(world)
  await join(world, somebody)
  return { projectId: somebody.projectId, userId: somebody.userId }
}

/** The address of somebody who has an account; the same every time. */
export async function addressOfSomebody (world: World): Promise<() => string> {
  const { email } = await invite(world)
  return () => email
}
