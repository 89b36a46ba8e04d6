import { setTimeout as pause } from 'node:timers/promises'
import { createKey, deleteKey } from '../lib/keys.js'
import { oneCall, thresholds, waitAndRetry } from '../lib/shared-limit.js'
import { smoke } from '../lib/smoke.js'
import type { Answer, Checks, Plan, Settings, Tools } from '../lib/types.ts'

/** What a run counted: the names are those of k6's metrics. */
export type Metrics = Record<string, { count: number, rate: number }>

export interface Recorder { tools: Tools, passed: string[], failed: string[] }

/** Plays k6's part for a scenario: requests by fetch, checks into two lists. */
export function createRecorder (sleep: Tools['sleep'] = async seconds => { await pause(seconds * 1000) }): Recorder {
  const passed: string[] = []
  const failed: string[] = []
  return {
    passed,
    failed,
    tools: {
      async request (method, url, headers = {}, body): Promise<Answer> {
        const response = await fetch(url, { method, headers, ...body !== undefined && { body } })
        return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.text() }
      },
      base64: text => Buffer.from(text).toString('base64'),
      check (answer: Answer, checks: Checks): boolean {
        const results = Object.entries(checks).map(([name, holds]) => {
          const ok = holds(answer)
          if (ok) passed.push(name)
          else failed.push(name)
          return ok
        })
        return results.every(Boolean)
      },
      sleep
    }
  }
}

/** smoke.js without k6. @returns the names of the checks that failed. */
export async function runSmoke (settings: Settings): Promise<string[]> {
  const recorder = createRecorder()
  await smoke(recorder.tools, settings)
  return recorder.failed
}

/**
 * shared-limit.js without k6: as many calls, but as fast as `concurrency` callers get them through instead of at a steady rate.
 *
 * @returns the thresholds that do not hold, and the checks that failed.
 */
export async function runSharedLimit (settings: Settings, plan: Plan, concurrency: number, sleep?: Tools['sleep']): Promise<string[]> {
  const recorder = createRecorder(sleep)
  const { tools } = recorder
  const counts = { admitted: 0, limited: 0, other: 0 }
  const key = await createKey(tools, settings, 'node shared-limit', { limit: plan.limit, windowSeconds: plan.windowSeconds })
  const total = plan.ratePerSecond * plan.durationSeconds
  let next = 0
  await Promise.all(Array.from({ length: concurrency }, async () => {
    for (let index = next++; index < total; index = next++) counts[await oneCall(tools, settings, plan, key, index)]++
  }))
  await waitAndRetry(tools, settings, plan, key)
  await deleteKey(tools, settings, key)
  const metrics: Metrics = {
    ...Object.fromEntries(Object.entries(counts).map(([name, count]) => [`keygate_${name}`, { count, rate: count / total }])),
    checks: { count: recorder.passed.length, rate: recorder.passed.length / (recorder.passed.length + recorder.failed.length) }
  }
  return [...brokenThresholds(thresholds(plan), metrics), ...new Set(recorder.failed)]
}

/** Judges k6's threshold expressions, as far as our scripts use them. */
export function brokenThresholds (wanted: Record<string, string[]>, metrics: Metrics): string[] {
  return Object.entries(wanted).flatMap(([name, expressions]) => expressions
    .filter(expression => !holds(expression, metrics[name] ?? { count: 0, rate: 0 }))
    .map(expression => `${name} ${expression}, but was ${JSON.stringify(metrics[name])}`))
}

function holds (expression: string, metric: { count: number, rate: number }): boolean {
  const match = /^(count|rate)(==|>)(\d+)$/.exec(expression)
  if (match === null) throw new Error(`The Node runner does not know the threshold ${expression}`)
  const value = metric[match[1] as 'count' | 'rate']
  return match[2] === '==' ? value === Number(match[3]) : value > Number(match[3])
}
