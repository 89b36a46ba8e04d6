import fp from 'fastify-plugin'
import { OpenStreams } from '../proxy/open-streams.ts'
import type { Metrics } from '../metrics.ts'

declare module 'fastify' {
  interface FastifyInstance { openStreams: OpenStreams }
}

/** Ends the answers that are still on their way to a key which is refused by now. */
export const openStreams = fp<{ metrics: Metrics, everyMs: number }>(async (app, { metrics, everyMs }) => {
  const streams = new OpenStreams({
    everyMs,
    judge: app.judgeAgain,
    onRefused: (request, code) => {
      metrics.streamsEnded.inc({ code })
      request.log.info({ code }, 'a stream was ended because its key is refused')
    }
  })
  app.decorate('openStreams', streams)
  app.addHook('onClose', async () => { streams.stop() })
}, { name: 'open-streams', dependencies: ['admission'] })
