import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault } from './redis-faults.ts'
import { load, openStage, untilAll } from './stage.ts'

export interface Figures {
  /** The longest that a call has waited, from the fault to the end, milliseconds. */
  longestWaitMs: number
  /** The longest that this process itself stood still in that time: no call can be faster. */
  blockedMs: number
  /** From the mending to the moment at which every replica is decided by Redis again. */
  recoveryMs: number
  /** Units admitted in one window, and the most that were promised. */
  admitted: number
  bound: number
  /** The most changes of state that one replica has told. */
  changes: number
  calls: number
}

const limit = 300

/** Three replicas under load, with the deadlines of production; the fault lasts a second, or as long as it takes. */
export async function measure (fault: Fault): Promise<Figures> {
  const stage = await openStage({ limit, proxied: fault.proxied ?? false, args: fault.args ?? [] })
  try {
    await fault.prepare?.(stage)
    await untilAll(stage, 'shared')
    for (const { states } of stage.replicas) states.length = 0
    const endLoad = load(stage, 2)
    await delay(200)
    const block = monitorEventLoopDelay({ resolution: 1 })
    block.enable()
    const since = performance.now()
    await fault.inject(stage)
    await delay(1000)
    await fault.heal(stage)
    const healed = performance.now()
    await untilAll(stage, 'shared')
    const recoveryMs = performance.now() - healed
    block.disable()
    await endLoad()
    const answers = stage.replicas.flatMap(replica => replica.answers)
    return {
      longestWaitMs: Math.max(...answers.filter(({ atMs }) => atMs >= since).map(({ tookMs }) => tookMs)),
      blockedMs: block.max / 1e6,
      recoveryMs,
      admitted: stage.replicas.reduce((sum, replica) => sum + replica.admitted('redis') + replica.admitted('alone'), 0),
      bound: (fault.memory === 'kept' ? 2 : 3) * limit,
      changes: Math.max(...stage.replicas.map(({ states }) => states.length)),
      calls: answers.length
    }
  } finally {
    await stage.close()
  }
}

/** The middle one of some figures, each by itself; of bounds and counts the worst. */
export function median (runs: Figures[]): Figures {
  const middle = (of: (figures: Figures) => number): number => runs.map(of).sort((a, b) => a - b)[runs.length >> 1] ?? NaN
  const worst = (of: (figures: Figures) => number): number => Math.max(...runs.map(of))
  return {
    longestWaitMs: middle(run => run.longestWaitMs),
    blockedMs: middle(run => run.blockedMs),
    recoveryMs: middle(run => run.recoveryMs),
    admitted: worst(run => run.admitted),
    bound: worst(run => run.bound),
    changes: worst(run => run.changes),
    calls: middle(run => run.calls)
  }
}
