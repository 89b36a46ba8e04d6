import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Database } from '../db/database.ts'
import { callerOf, contextOf, personOf } from '../plugins/authentication.ts'
import { NoSettings, noContent } from '../schemas.ts'
import { describeCaller } from './me.ts'
import { ChangePassword, ConfirmPassword } from './schemas.ts'
import { clearSessionCookie } from './session-cookie.ts'
import { answerSession, visitorOf } from './sign-in-routes.ts'
import type { SignInCommands } from './sign-in.ts'

export interface MeRoutesOptions { database: Database, commands: SignInCommands }

const tags = ['people']
const me = { $ref: 'Me#' }

/** What everybody may do with themselves. */
export const meRoutes: FastifyPluginAsyncTypebox<MeRoutesOptions> = async (app, { database, commands }) => {
  app.get('/me', {
    config: { access: 'signed-in' },
    schema: { tags, operationId: 'getMe', summary: 'Who calls, what they may do, and who can grant what they may not', response: { 200: me } }
  }, async request => await database.run(async db => await describeCaller(db, callerOf(request))))

  app.post('/sign-out', {
    config: { access: 'person', bodyIsOptional: true },
    schema: { tags, operationId: 'signOut', summary: 'End the session', body: NoSettings, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.signOut(contextOf(request), personOf(request))
    clearSessionCookie(request, reply)
    return await reply.code(204).send()
  })

  app.post('/me/password', {
    config: { access: 'person', problems: [422] },
    schema: { tags, operationId: 'changePassword', summary: 'Change the password; all other sessions end', body: ChangePassword, response: { 200: me } }
  }, async (request, reply) => await answerSession(database, request, reply, await commands.changePassword(visitorOf(request), personOf(request), request.body)))

  app.post('/me/confirm', {
    config: { access: 'person', problems: [422] },
    schema: { tags, operationId: 'confirmPassword', summary: 'Give the password again, which a reveal wants no longer than 10 minutes ago', body: ConfirmPassword, response: { 204: noContent } }
  }, async (request, reply) => {
    await commands.confirm(visitorOf(request), personOf(request), request.body.password)
    return await reply.code(204).send()
  })
}
