import { METHODS } from 'node:http'
import type { Socket } from 'node:net'
import { queuedBefore } from '@keygate/service-kit'
import fp from 'fastify-plugin'
import { allowed, tooManyPipelined } from '../ingress/problems.ts'
import { faultOf, isAboutServer, type IngressOptions } from '../ingress/request.ts'

/**
 * Connections that end with the answer which is being given: their framing is in doubt, so that what comes behind may be what somebody else was
 * made to send, or more was sent ahead than is taken.
 */
const ending = new WeakSet<Socket>()

/** Most requests of one connection that wait for the answers before theirs. */
const pipelinedAtMost = 64

/** Step 0: what is not plainly one HTTP request to one place is refused before anything else looks at it. */
export const ingress = fp<IngressOptions>(async (app, { underscores }) => {
  for (const method of METHODS) {
    if (!app.supportedMethods.includes(method) && !['CONNECT', 'QUERY'].includes(method)) app.addHttpMethod(method)
  }
  app.addHook('onRequest', (request, reply, done) => {
    const { raw } = request
    // Node hands over all that came in one piece, also behind a request whose answer will close the connection: it gets no answer.
    if (ending.has(raw.socket)) { reply.hijack(); return }
    const isTooFarAhead = reply.raw.socket === null && queuedBefore(reply.raw, raw.socket) >= pipelinedAtMost
    const fault = isTooFarAhead ? tooManyPipelined() : faultOf(raw, underscores)
    if (fault !== null) {
      if (fault.headers['connection'] === 'close') ending.add(raw.socket)
      done(fault)
    } else if (isAboutServer(raw)) reply.code(204).header('allow', allowed).send()
    else done()
  })
}, { name: 'ingress' })
