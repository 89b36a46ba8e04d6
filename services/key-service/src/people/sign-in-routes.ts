import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Database } from '../db/database.ts'
import { crossSite } from '../errors.ts'
import type { IsSameSite } from '../plugins/cross-site.ts'
import { describeCaller } from './me.ts'
import { SetPassword, SignIn, type Me } from './schemas.ts'
import { requireSafeTransport, sessionCookieOf, setSessionCookie } from './session-cookie.ts'
import type { NewSession, SignInCommands, Visitor } from './sign-in.ts'

export interface SignInRoutesOptions { database: Database, commands: SignInCommands, isSameSite: IsSameSite }

const tags = ['people']
const me = { $ref: 'Me#' }

/** How people get in: the only routes of the API that nobody need be known for. */
export const signInRoutes: FastifyPluginAsyncTypebox<SignInRoutesOptions> = async (app, { database, commands, isSameSite }) => {
  app.addHook('onRequest', async request => {
    if (!isSameSite(request)) throw crossSite()
    requireSafeTransport(request)
  })

  app.post('/sign-in', {
    config: { access: 'open', problems: [401, 422] },
    schema: { tags, operationId: 'signIn', summary: 'Begin a session, which is kept in a cookie', body: SignIn, response: { 200: me } }
  }, async (request, reply) => await answerSession(database, request, reply, await commands.signIn(visitorOf(request), request.body)))

  app.post('/set-password', {
    config: { access: 'open', problems: [422] },
    schema: { tags, operationId: 'setPassword', summary: 'Set the password by a one-time link, and begin a session', body: SetPassword, response: { 200: me } }
  }, async (request, reply) => await answerSession(database, request, reply, await commands.setPassword(visitorOf(request), request.body)))
}

export function visitorOf (request: FastifyRequest): Visitor {
  return { address: request.ip, requestId: request.id, earlier: sessionCookieOf(request) }
}

export async function answerSession (database: Database, request: FastifyRequest, reply: FastifyReply, { sessionId, person }: NewSession): Promise<Me> {
  setSessionCookie(request, reply, sessionId)
  return await database.run(async db => await describeCaller(db, person))
}
