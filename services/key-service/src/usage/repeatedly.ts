import type { FastifyBaseLogger } from 'fastify'

export interface Repeated { start: () => void, stop: () => Promise<void> }

/** Does something at the start and then again and again, one at a time. A failure is told once, until it goes well again. */
export function repeatedly (work: () => Promise<void>, { everyMs, log, failure }: { everyMs: number, log: FastifyBaseLogger, failure: string }): Repeated {
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let isStopped = false
  let isFailing = false

  async function attempt (): Promise<void> {
    try {
      await work()
      isFailing = false
    } catch (error) {
      if (!isFailing) log.warn({ reason: (error as Error).message }, failure)
      isFailing = true
    }
    if (!isStopped) timer = setTimeout(round, everyMs).unref()
  }
  function round (): void { running = attempt() }

  return {
    start: round,
    stop: async () => {
      isStopped = true
      clearTimeout(timer)
      await running
    }
  }
}
