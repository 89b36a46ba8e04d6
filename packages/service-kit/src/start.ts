import closeWithGrace from 'close-with-grace'
import { defaultDeadlineMs, drain } from './drain.ts'
import type { FastifyInstance } from 'fastify'
import { pino } from 'pino'
import type { Registry } from 'prom-client'
import { loggerOptions } from './logger.ts'
import { startMetricsServer } from './telemetry.ts'

/** What a service's `app.ts` makes, ready to listen. Closing the app closes all that it opened. */
export interface Service {
  app: FastifyInstance
  registry: Registry
  /** What SIGHUP asks for; without it SIGHUP ends the process like SIGTERM. */
  reload?: () => void
}

export interface Listening { host: string, port: number, metricsPort?: number | undefined }

/** What a service is made of, its settings read. `logLevel` decides whether an unexpected failure of the start shows its stack. */
export interface Prepared {
  listen: Listening
  logLevel?: string
  /** How long SIGTERM leaves the process serving, and when it cuts what is open. Milliseconds; by default not at all, and 25 s. */
  drain?: { delayMs: number, deadlineMs: number }
  build: () => Promise<Service>
}

/** What closing may take after the deadline has cut the connections, milliseconds. */
const cutMs = 3000

/** Exit code for settings that cannot work (sysexits.h, EX_CONFIG). */
const exitConfig = 78

/**
 * Runs a service as a process: builds it, listens, tells a waiting parent its address, and closes on SIGTERM, SIGINT or when the
 * parent is gone. A second signal ends it at once (exit code 1), and one during the start too (0). A failed start ends with a text
 * that says what to do, never with a stack.
 */
export async function runService (prepare: () => Promise<Prepared>): Promise<void> {
  let logLevel: string | undefined
  // Until it listens nobody counts on it. The launcher's channel closes when the launcher dies, however it dies.
  const giveUp = (): void => { process.exit(0) }
  process.once('SIGTERM', giveUp).once('SIGINT', giveUp).once('disconnect', giveUp)
  try {
    const { listen, build, ...prepared } = await prepare()
    logLevel = prepared.logLevel
    const { app, registry, reload } = await build()
    logLevel ??= app.log.level
    if (reload !== undefined) process.on('SIGHUP', reload)
    const { host, port, metricsPort } = listen
    const metrics = metricsPort === undefined
      ? undefined
      : await startMetricsServer(registry, host, metricsPort).catch((error: Error) => { throw listenFailure(error, host, metricsPort, 'KEYGATE_METRICS_PORT') })
    if (metrics !== undefined) app.addHook('onClose', metrics.close)
    await app.ready() // so that what fails from here on is the port or the address
    const url = await app.listen({ host, port }).catch((error: Error) => { throw listenFailure(error, host, port, 'KEYGATE_PORT') })

    const { delayMs, deadlineMs } = prepared.drain ?? { delayMs: 0, deadlineMs: defaultDeadlineMs }
    const closing = closeWithGrace({ delay: deadlineMs + cutMs, logger: false, skip: reload === undefined ? [] : ['SIGHUP'] }, async ({ err, signal }) => {
      if (err !== undefined) app.log.fatal({ err }, 'uncaught error')
      // Ctrl-C is a person who waits, and after an uncaught error nothing here is to be trusted for long.
      await drain(app, signal === 'SIGTERM' ? { delayMs, deadlineMs } : { delayMs: 0, deadlineMs: err === undefined ? deadlineMs : Math.min(deadlineMs, 5000) })
    })
    process.off('SIGTERM', giveUp).off('SIGINT', giveUp).off('disconnect', giveUp)
    process.once('disconnect', () => { closing.close() })
    process.send?.({ type: 'ready', url, metricsUrl: metrics?.url })
  } catch (error) {
    process.stderr.write(`${startFailure(error as Error, logLevel)}\n`)
    process.exit(isFaultList(error) ? exitConfig : 1)
  }
}

function isFaultList (error: unknown): error is { faults: string[] } {
  return error instanceof Error && Array.isArray((error as { faults?: unknown }).faults)
}

/** A start that fails for a reason worth one sentence: what is missing and what to do. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

function listenFailure (error: NodeJS.ErrnoException, host: string, port: number, variable: string): StartError {
  const { code = error.message } = error
  const sentences: Record<string, string> = {
    EADDRINUSE: `Port ${port} is taken. Set ${variable} to another one, or 0 for any free port.`,
    EACCES: `Port ${port} may not be used by this user. Set ${variable} to one above 1023.`,
    EADDRNOTAVAIL: `${host} is no address of this machine. Set KEYGATE_HOST to one of its own, or to 0.0.0.0 for all of them.`,
    ENOTFOUND: `KEYGATE_HOST is ${host}, and no address is known for that name. Set it to an address of this machine, or to 0.0.0.0 for all of them.`
  }
  const sentence = sentences[code] ?? (code.startsWith('EAI_') ? sentences['ENOTFOUND'] : undefined)
  return new StartError(sentence ?? `It is not possible to listen on port ${port} of ${host} (${code}). Check KEYGATE_HOST and ${variable}.`, { cause: error })
}

function startFailure (error: Error & NodeJS.ErrnoException, logLevel: string | undefined): string {
  if (isFaultList(error) || error.name === 'StartError') return error.message
  const reason = error.message === '' ? error.code ?? error.name : error.message
  if (logLevel === undefined) return `The service could not start: ${reason}`
  const logger = pino(loggerOptions('start', logLevel))
  logger.debug({ err: error }, 'the start failed')
  return `The service could not start: ${reason}${logger.isLevelEnabled('debug') ? '' : '\nThe log at LOG_LEVEL=debug has more.'}`
}
