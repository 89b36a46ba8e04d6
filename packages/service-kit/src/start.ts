import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import type { Registry } from 'prom-client'
import { startMetricsServer } from './telemetry.ts'

/** What a service's `app.ts` makes, ready to listen. Closing the app closes all that it opened. */
export interface Service { app: FastifyInstance, registry: Registry }

export interface Listening { host: string, port: number, metricsPort?: number | undefined }

/** Exit code for settings that cannot work (sysexits.h, EX_CONFIG). */
const exitConfig = 78

/**
 * Runs a service as a process: builds it, listens, tells a waiting parent its address, and closes on SIGTERM, SIGINT or when the
 * parent is gone. An expected failure (settings, a taken port) ends with its text alone, never a stack.
 */
export async function runService (prepare: () => Promise<{ listen: Listening, build: () => Promise<Service> }>): Promise<void> {
  try {
    const { listen, build } = await prepare()
    const { app, registry } = await build()
    closeWithGrace({ delay: 10_000, logger: false }, async ({ err }) => {
      if (err !== undefined) app.log.fatal({ err }, 'uncaught error')
      await app.close()
    })
    // The launcher's channel closes when the launcher dies, however it dies.
    process.once('disconnect', () => { process.kill(process.pid, 'SIGTERM') })
    const metrics = listen.metricsPort === undefined ? undefined : await startMetricsServer(registry, listen.host, listen.metricsPort)
    if (metrics !== undefined) app.addHook('onClose', metrics.close)
    const url = await app.listen({ host: listen.host, port: listen.port })
    process.send?.({ type: 'ready', url, metricsUrl: metrics?.url })
  } catch (error) {
    process.stderr.write(`${startFailure(error as Error)}\n`)
    process.exit(isFaultList(error) ? exitConfig : 1)
  }
}

function isFaultList (error: unknown): error is { faults: string[] } {
  return error instanceof Error && Array.isArray((error as { faults?: unknown }).faults)
}

function startFailure (error: Error & NodeJS.ErrnoException & { port?: number }): string {
  if (isFaultList(error)) return error.message
  if (error.code === 'EADDRINUSE') return `Port ${error.port ?? ''} is taken. Set KEYGATE_PORT to another one, or 0 for any free port.`
  if (error.code === 'EACCES') return `Port ${error.port ?? ''} may not be used by this user. Set KEYGATE_PORT to one above 1023.`
  return error.name === 'StartError' ? error.message : `The service could not start: ${error.stack ?? error.message}`
}

/** A start that fails for a reason worth one sentence: what is missing and what to do. */
export class StartError extends Error {
  override readonly name = 'StartError'
}
