import type { FastifyInstance } from 'fastify'

/**
 * What the app writes to its log from now on, as it is written.
 *
 * Pino keeps its stream under a symbol; the loggers of requests inherit it from the app's.
 */
export function readLog (app: FastifyInstance): string[] {
  const written: string[] = []
  const stream = Object.getOwnPropertySymbols(app.log).find(symbol => symbol.description === 'pino.stream')
  if (stream === undefined) throw new Error('the app\'s log has no stream: pino has changed')
  Object.assign(app.log, { [stream]: { write: (text: string) => { written.push(text) } } })
  return written
}
