export interface DeferredWritesOptions<T> {
  /** How long what was noted may wait, so that one statement serves many, in milliseconds. */
  intervalMs: number
  /** Writes what was noted since the last time, by its id. What it cannot write it must say itself: it never rejects. */
  write: (noted: Map<string, T>) => Promise<void>
  /** What stands when something was noted twice before it was written; without it, the later one. */
  merge?: (before: T, after: T) => T
}

export interface DeferredWrites<T> {
  /** Returns at once. */
  note: (id: string, value: T) => void
  /** Writes all that was noted, now. */
  flush: () => Promise<void>
  /** The last flush; nothing is noted after it. */
  close: () => Promise<void>
}

/** As many may wait while PostgreSQL is away; a further one is noted at its next use. */
const mostNoted = 10_000

/** What verifications notice, written off the request's path: one write at a time, many notes in each. */
export function createDeferredWrites<T> ({ intervalMs, write, merge = (_before, after) => after }: DeferredWritesOptions<T>): DeferredWrites<T> {
  let noted = new Map<string, T>()
  let timer: NodeJS.Timeout | undefined
  let flushing = Promise.resolve()
  let closed = false

  async function writeNoted (): Promise<void> {
    clearTimeout(timer)
    timer = undefined
    if (noted.size === 0) return
    const written = noted
    noted = new Map()
    await write(written)
  }

  async function flush (): Promise<void> {
    flushing = flushing.then(writeNoted)
    await flushing
  }

  return {
    flush,
    note: (id, value) => {
      if (closed || (noted.size >= mostNoted && !noted.has(id))) return
      noted.set(id, noted.has(id) ? merge(noted.get(id) as T, value) : value)
      timer ??= setTimeout(() => { flush().catch(() => {}) }, intervalMs).unref()
    },
    close: async () => {
      closed = true
      await flush()
    }
  }
}
