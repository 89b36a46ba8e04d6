import type { FastifyBaseLogger, FastifyServerOptions } from 'fastify'

type ChildLoggerFactory = NonNullable<FastifyServerOptions['childLoggerFactory']>

/**
 * The log of one request, made when something is first written to it: most requests write nothing where only warnings are kept, and to
 * make a logger costs more than to route the request.
 */
class RequestLog {
  readonly #parent: Parent
  readonly #make: () => FastifyBaseLogger
  #made: FastifyBaseLogger | undefined

  constructor (parent: Parent, make: () => FastifyBaseLogger) {
    this.#parent = parent
    this.#make = make
  }

  get level (): string { return this.#log.level }
  set level (level: string) { this.#log.level = level }

  fatal (...args: Line): void { this.#write('fatal', args) }
  error (...args: Line): void { this.#write('error', args) }
  warn (...args: Line): void { this.#write('warn', args) }
  info (...args: Line): void { this.#write('info', args) }
  debug (...args: Line): void { this.#write('debug', args) }
  trace (...args: Line): void { this.#write('trace', args) }
  silent (): void {}
  child (...args: Parameters<FastifyBaseLogger['child']>): FastifyBaseLogger { return this.#log.child(...args) }

  #write (level: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace', args: Line): void {
    if (this.#made === undefined && !this.#parent.isLevelEnabled(level)) return
    this.#log[level](...args)
  }

  get #log (): FastifyBaseLogger {
    this.#made ??= this.#make()
    return this.#made
  }
}

type Line = [object, string]
/** pino's own loggers tell whether a line would be written. */
type Parent = FastifyBaseLogger & { isLevelEnabled: (level: string) => boolean }

/** For Fastify's option of this name. */
export const childLoggerFactory: ChildLoggerFactory = (logger, bindings, options) =>
  new RequestLog(logger as Parent, () => logger.child(bindings, options)) as unknown as FastifyBaseLogger
