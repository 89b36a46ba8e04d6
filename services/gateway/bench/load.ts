import autocannon from 'autocannon'
import { Pool } from 'undici'

/** The generator: a process that makes the load that it is sent and answers with what it saw. */

export interface Request { path: string, headers: Record<string, string> }

export interface Job {
  /** Connections are dealt out to them in turn. */
  urls: string[]
  /** Each connection goes through all of them, beginning with another. */
  requests: Request[]
  connections: number
  seconds: number
  /** Undefined: the next request on a connection follows the answer. Else: so many a second, whether they are answered or not. */
  perSecond?: number
}

export interface Seen {
  /** By status; `error` for those without an answer. */
  answers: Record<string, number>
  /** Between the first request and the last answer. */
  seconds: number
  /** Milliseconds. */
  p50: number
  p99: number
}

class Tally {
  readonly #answers: Record<string, number> = {}
  readonly #times: number[] = []
  readonly #begun = performance.now()

  add (answer: number | 'error', ms = 0): void {
    this.#answers[answer] = (this.#answers[answer] ?? 0) + 1
    if (answer !== 'error') this.#times.push(ms)
  }

  seen (): Seen {
    const seconds = (performance.now() - this.#begun) / 1000
    const sorted = Float64Array.from(this.#times).sort()
    const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
    return { answers: this.#answers, seconds, p50: at(0.5), p99: at(0.99) }
  }
}

/** As many as the connections allow. */
async function closedLoop ({ urls, requests, connections, seconds }: Job): Promise<Seen> {
  let client = 0
  const tally = new Tally()
  await new Promise<void>((resolve, reject) => {
    const run = autocannon({
      url: urls as unknown as string, // it takes several, of which its types know nothing
      connections,
      duration: seconds,
      sampleInt: 100, // it ends at a multiple of it
      setupClient: one => {
        const first = Math.floor(client++ * requests.length / connections)
        one.setRequests([...requests.slice(first), ...requests.slice(0, first)].map(request => ({ method: 'GET', ...request })))
      }
    } as autocannon.Options, (error: Error | null) => { if (error === null) resolve(); else reject(error) })
    run.on('response', (_client, status, _bytes, ms) => { tally.add(status, ms) })
    run.on('reqError', () => { tally.add('error') })
  })
  return tally.seen()
}

/**
 * An even stream that waits for no answer, so that a slow one delays none of those behind it. Time is taken from when a request is
 * really sent: a late timer of this process is not the system's.
 */
async function openLoop ({ urls, requests, connections, seconds, perSecond = 1000 }: Job): Promise<Seen> {
  const pools = urls.map(url => new Pool(url, { connections, pipelining: 1 }))
  const [begun, total] = [performance.now(), Math.round(seconds * perSecond)]
  const tally = new Tally()
  let [sent, open] = [0, 0]
  const one = async (turn: number): Promise<void> => {
    const { path, headers } = requests[turn % requests.length] as Request
    const from = performance.now()
    try {
      const { statusCode, body } = await (pools[turn % pools.length] as Pool).request({ method: 'GET', path, headers })
      await body.dump()
      tally.add(statusCode, performance.now() - from)
    } catch {
      tally.add('error')
    }
  }
  await new Promise<void>(resolve => {
    const finish = (): void => { if (--open === 0 && sent === total) resolve() }
    const tick = (): void => {
      const due = Math.min(total, Math.floor((performance.now() - begun) * perSecond / 1000))
      while (sent < due) {
        open++
        one(sent++).then(finish, finish)
      }
      if (sent < total) setTimeout(tick, 1)
    }
    tick()
  })
  const seen = tally.seen()
  await Promise.all(pools.map(async pool => { await pool.close() }))
  return seen
}

process.on('message', (job: Job) => {
  const run = job.perSecond === undefined ? closedLoop(job) : openLoop(job)
  run.then(seen => { process.send?.({ seen }) }, (error: unknown) => { process.send?.({ error: String(error) }) })
})
process.once('disconnect', () => { process.exit() })
