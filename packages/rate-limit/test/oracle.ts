import type { Policy } from '../src/index.ts'
import { second } from './harness.ts'
import type { Answered, Schedule, Step } from './schedules.ts'

export interface Expected { outcome: 'admitted' | 'limited', policies: Array<{ remaining: number, resetMs: number, retryAfterMs: number }> }

/**
 * What must be answered, by brute force: per policy a plain list of every admitted unit, looked through from the beginning each time.
 * For clocks that do not step back.
 */
export function expected ({ policies, steps }: Schedule): Expected[] {
  const lists = policies.map((): number[] => [])
  return steps.map(({ time, cost, limits }) => {
    const live = policies.map((policy, i) => living(policy, lists[i] ?? [], time))
    const admits = cost === 0 || live.every((units, i) => units.length + cost <= (limits[i] ?? 0))
    if (admits) for (const list of lists) for (let n = 0; n < cost; n++) list.push(time)
    return {
      outcome: admits ? 'admitted' : 'limited',
      policies: policies.map((policy, i) => answer(policy, live[i] ?? [], admits ? cost : 0, { time, cost, limits: [limits[i] ?? 0] }))
    }
  })
}

function answer (policy: Policy, live: number[], charged: number, { time, cost, limits: [limit = 0] }: Step) {
  const leavesIn = (stamp: number): number => Math.ceil((stamp + policy.windowSeconds * second - time) / 1000)
  const after = [...live, ...Array<number>(charged).fill(time)]
  let retryAfterMs = 0
  if (charged < cost && live.length + cost > limit) {
    // Try every moment at which something leaves: the first at which enough is gone.
    const ends = live.map(stamp => policy.algorithm === 'fixed' ? live[0] ?? stamp : stamp)
    retryAfterMs = cost > limit ? -1 : Math.min(...ends.filter(end => ends.filter(e => e > end).length + cost <= limit).map(leavesIn))
  }
  return { remaining: Math.max(limit - after.length, 0), resetMs: leavesIn(after[0] ?? time), retryAfterMs }
}

/** The units that count at a moment. */
export function living ({ algorithm, windowSeconds }: Policy, units: number[], time: number): number[] {
  const w = windowSeconds * second
  if (algorithm === 'sliding') return units.filter(stamp => stamp > time - w)
  const windows: number[][] = [] // each begins with the first unit that the one before does not hold
  for (const unit of units) {
    const current = windows.at(-1)
    if (current !== undefined && unit < (current[0] ?? 0) + w) current.push(unit)
    else windows.push([unit])
  }
  const last = windows.at(-1) ?? []
  return last[0] !== undefined && time < last[0] + w ? last : []
}

/** The moment of each unit that was admitted. */
export function admittedUnits (trace: Pick<Answered, 'time' | 'cost' | 'decision'>[]): number[] {
  return trace.flatMap(({ time, cost, decision }) => decision.outcome === 'admitted' ? Array<number>(cost).fill(time) : [])
}

/** The most units in any interval [t, t + window). The worst one begins with a unit. */
export function worstWindow (units: number[], window: number): number {
  const sorted = [...units].sort((a, b) => a - b)
  let worst = 0
  let from = 0
  for (let to = 0; to < sorted.length; to++) {
    while ((sorted[to] ?? 0) - (sorted[from] ?? 0) >= window) from++
    worst = Math.max(worst, to - from + 1)
  }
  return worst
}
