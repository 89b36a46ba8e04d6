import fc from 'fast-check'
import type { Decision, LimitedBy, Policy } from '../src/index.ts'
import { decideAt, epoch, freshKey, limitedBy, second, type Opened } from './harness.ts'

export interface Step { time: number, cost: number, limits: number[] }
export interface Schedule { policies: Policy[], steps: Step[] }
export interface Answered extends Step { decision: Decision }

/** Requests that the properties of this run have put to a store. */
export const counted = { decisions: 0 }

const wanted = Number(process.env['KEYGATE_DECISIONS'] || 100_000)
/** How many schedules a property gets, when so many belong to a run of 100 000 decisions. */
export const runs = (count: number): { numRuns: number } => ({ numRuns: Math.max(1, Math.ceil(count * wanted / 100_000)) })
export { wanted as wantedDecisions }

export interface Kind {
  algorithms?: Policy['algorithm'][]
  maxPolicies?: number
  /** Limits are raised and lowered between requests. */
  changing?: boolean
  costs?: fc.Arbitrary<number>
  /** The clock steps backward now and then, by up to so many windows. */
  backward?: number
  maxSteps?: number
}

/** Mostly 1, and all that is special: 0, and more than the limit. */
const anyCost = fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, { weight: 2, arbitrary: fc.integer({ min: 0, max: 9 }) })

/**
 * Requests at every moment that matters: at once, at and around the end of the window of an earlier request (w - 1, w and w + 1 us
 * after it), and anywhere between. Windows are a minute or more, because keys in Redis expire by the real clock.
 */
export function schedules ({ algorithms = ['sliding'], maxPolicies = 1, changing = false, costs = anyCost, backward = 0, maxSteps = 40 }: Kind = {}): fc.Arbitrary<Schedule> {
  const limit = fc.integer({ min: 1, max: 6 })
  const policy = fc.record({ limit, windowSeconds: fc.constantFrom(60, 61, 120), algorithm: fc.constantFrom(...algorithms) })
  const move = fc.oneof(
    { weight: 3, arbitrary: fc.constant({ wait: 0 }) },
    { weight: 3, arbitrary: fc.record({ wait: fc.constantFrom(1, 999, 1000, 1001, second / 2, second, 15 * second) }) },
    { weight: 2, arbitrary: fc.record({ wait: fc.integer({ min: 1, max: 70 * second }) }) },
    { weight: 5, arbitrary: fc.record({ after: fc.nat({ max: 9 }), of: fc.nat({ max: 2 }), off: fc.constantFrom(-1, 0, 1) }) },
    ...backward === 0 ? [] : [{ weight: 2, arbitrary: fc.oneof(fc.integer({ min: 1, max: 60 * second }), fc.integer({ min: 1, max: backward * 60 * second })).map(back => ({ wait: -back })) }]
  )
  const step = fc.record({ move, cost: costs, limits: fc.tuple(limit, limit, limit) })
  return fc.tuple(fc.array(policy, { minLength: 1, maxLength: maxPolicies }), fc.array(step, { minLength: 1, maxLength: maxSteps, size: 'max' })).map(([shapes, moves]) => {
    const policies = shapes.map((shape, i): Policy => ({ ...shape, name: `p${i}`, partition: 'key' }))
    const times: number[] = []
    let time = epoch
    const steps = moves.map(({ move, cost, limits }) => {
      time = 'wait' in move ? time + move.wait : Math.max(time, endOf(times, policies, move))
      times.push(time)
      return { time, cost, limits: policies.map((p, i) => changing ? limits[i] ?? p.limit : p.limit) }
    })
    return { policies, steps }
  })
}

/** Around the moment at which one of the last requests leaves the window of one of the policies. */
function endOf (times: number[], policies: Policy[], { after, of, off }: { after: number, of: number, off: number }): number {
  const from = times.at(-1 - after % Math.max(times.length, 1))
  const policy = policies[of % policies.length]
  return from === undefined || policy === undefined ? epoch : from + policy.windowSeconds * second + off
}

/** The same subject's logs with the limits of one step. */
export function limitsOf ({ policies }: Schedule, keyId: string, limits: number[]): LimitedBy[] {
  return policies.map((policy, i) => limitedBy({ ...policy, limit: limits[i] ?? policy.limit }, keyId))
}

/** Sends all requests in order, without waiting for the answers one by one. */
export async function run (opened: Opened, schedule: Schedule, keyId = freshKey()): Promise<Answered[]> {
  counted.decisions += schedule.steps.length
  const decisions = schedule.steps.map(async ({ time, cost, limits }) => await decideAt(opened, time, limitsOf(schedule, keyId, limits), cost))
  const answers = await Promise.all(decisions)
  return schedule.steps.map((step, i) => ({ ...step, decision: answers[i] as Decision }))
}
