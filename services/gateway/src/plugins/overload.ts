import underPressure from '@fastify/under-pressure'
import { sendProblem } from '@keygate/service-kit'
import fp from 'fastify-plugin'
import { refusals } from '../errors.ts'

/** Whoever asks whether the process lives must hear that it does: to restart it would make the others' load worse. */
const exempt = new Set(['/livez', '/readyz'])

/**
 * Turns requests away before anything is done for them while the event loop is behind: those that are let in are answered in time,
 * instead of all of them too late.
 */
export const overload = fp<{ maxEventLoopDelayMs: number }>(async (app, { maxEventLoopDelayMs }) => {
  if (maxEventLoopDelayMs === 0) return
  await app.register(underPressure, {
    maxEventLoopDelay: maxEventLoopDelayMs,
    pressureHandler: (request, reply) => {
      if (exempt.has(request.routeOptions.url ?? '')) return
      sendProblem(request, reply.header('retry-after', '1'), { code: 'overloaded', ...refusals.overloaded })
    }
  })
}, { name: 'overload' })
