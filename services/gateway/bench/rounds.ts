import type { Generator } from './generator.ts'
import type { Seen } from './load.ts'
import { cpuMicros } from './program.ts'
import type { Target } from './stage.ts'

/** Of one target in one round. */
export interface Figures {
  perSecond: number
  /** Milliseconds. */
  p50: number
  p99: number
  /** CPU time per answer, microseconds: of the target's processes, and of Redis. */
  cpu: number
  redisCpu: number
}

export interface Plan {
  rounds: number
  seconds: number
  connections: number
  /** Undefined: as many requests as the connections allow. */
  perSecond?: number
  redisPid: number
  signal: AbortSignal
  progress: (phase: string) => void
}

/** Something answered other than it must. */
export class WrongAnswerError extends Error {}

/** One request to each address, with all of the answer to show when it is not the one that is wanted. */
export async function probe ({ id, urls, requests, expect, isLimited }: Target): Promise<void> {
  const request = requests[0]
  if (request === undefined) throw new Error(`${id} has no request`)
  for (const url of urls) {
    const answer = await fetch(url + request.path, { headers: request.headers })
    const body = await answer.text()
    if (answer.status !== expect) throw new WrongAnswerError(`${id} answered ${answer.status} instead of ${expect}: ${body}`)
    const isCounted = [...answer.headers.keys()].some(name => name.includes('ratelimit'))
    if (isLimited && !isCounted) throw new WrongAnswerError(`${id} tells of no limit in its answer`)
  }
}

/**
 * Targets take turns (a, b, c, a, b, c, ...), so that a moment in which the machine is busy is not one target's alone. A round that is
 * not kept, twice as long, goes first: code is compiled in it, connections are made, records fetched.
 *
 * @throws {WrongAnswerError} when any answer has another status than the target's.
 */
export async function inTurns (generator: Generator, targets: Target[], plan: Plan): Promise<Map<string, Figures[]>> {
  const found = new Map(targets.map(({ id }) => [id, [] as Figures[]]))
  for (const target of targets) await probe(target)
  for (let round = 0; round <= plan.rounds; round++) {
    const name = round === 0 ? 'warm-up' : `round ${round} of ${plan.rounds}`
    const told: string[] = []
    for (const target of targets) {
      plan.signal.throwIfAborted()
      const figures = await measure(generator, target, round === 0 ? { ...plan, seconds: plan.seconds * 2 } : plan)
      if (round > 0) found.get(target.id)?.push(figures)
      told.push(`${target.id} ${figures.cpu.toFixed(0)} us, ${figures.perSecond.toFixed(0)}/s`)
    }
    plan.progress(`${name}: ${told.join('; ')}`)
  }
  return found
}

async function measure (generator: Generator, { id, urls, requests, expect, pids }: Target, { seconds, connections, perSecond, redisPid }: Plan): Promise<Figures> {
  const spent = (): number => pids.reduce((sum, pid) => sum + cpuMicros(pid), 0)
  const [ownBefore, redisBefore] = [spent(), cpuMicros(redisPid)]
  const seen = await generator.run({ urls, requests, seconds, connections, ...perSecond !== undefined && { perSecond } })
  const [own, redis] = [spent() - ownBefore, cpuMicros(redisPid) - redisBefore]
  const answers = answersOf(id, expect, seen)
  return { perSecond: answers / seen.seconds, p50: seen.p50, p99: seen.p99, cpu: own / answers, redisCpu: redis / answers }
}

function answersOf (id: string, expect: number, { answers }: Seen): number {
  const { [expect]: right = 0, ...wrong } = answers
  const others = Object.entries(wrong).map(([status, count]) => `${count} x ${status}`)
  if (others.length > 0) throw new WrongAnswerError(`${id} answered ${right} x ${expect} and ${others.join(', ')}`)
  if (right === 0) throw new WrongAnswerError(`${id} answered nothing`)
  return right
}

/** The middle one, of each figure for itself. */
export function medians (rounds: Figures[]): Figures {
  const of = (figure: keyof Figures): number => median(rounds.map(round => round[figure]))
  return { perSecond: of('perSecond'), p50: of('p50'), p99: of('p99'), cpu: of('cpu'), redisCpu: of('redisCpu') }
}

export function median (values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  return Number.isInteger(middle) ? ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2 : sorted[Math.floor(middle)] ?? NaN
}
