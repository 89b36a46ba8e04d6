import { fork } from 'node:child_process'
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { startRedis } from '@keygate/local'
import t from 'tap'
import type { Order, Told } from './concurrency-worker.ts'
import { limitedBy, second, sliding } from './harness.ts'
import { worstWindow } from './oracle.ts'

t.test('L7 linearisable: 4 processes on one key admit what one list of all requests admits', async t => {
  const redis = await startRedis()
  t.teardown(async () => { await redis.stop() })
  const [limit, windowSeconds, processes] = [100, 1, 4]
  const decisions = Math.ceil(Number(process.env['KEYGATE_DECISIONS'] || 100_000) / processes)
  const { log } = limitedBy(sliding(limit, windowSeconds))
  const order: Order = { url: redis.url, log, limit, windowSeconds, decisions, callers: 16 }

  const told = await Promise.all(Array.from({ length: processes }, async () => {
    const child = fork(new URL('concurrency-worker.ts', import.meta.url)) // with the loader of this process
    t.teardown(() => { child.kill() })
    child.send(order)
    const [answer] = await once(child, 'message') as [Told]
    return answer
  }))

  t.equal(told.reduce((sum, { withoutRedis }) => sum + withoutRedis, 0), 0, 'decisions without Redis')
  const all = told.flatMap(({ micros, admitted }) => micros.map((time, i) => ({ time, admitted: admitted[i] === true }))).sort((a, b) => a.time - b.time)
  t.equal(all.length, decisions * processes)
  const admitted = all.filter(request => request.admitted).map(({ time }) => time)
  const greedy = greedyUnits(all.map(({ time }) => time), limit, windowSeconds * second)
  const lasted = ((all.at(-1)?.time ?? 0) - (all[0]?.time ?? 0)) / second
  t.comment(`${all.length} decisions of ${processes} processes in ${lasted.toFixed(1)} s (${availableParallelism()} cores): ${admitted.length} admitted of ${greedy.length}, at most ${worstWindow(admitted, windowSeconds * second)} in any window of ${windowSeconds} s`)
  t.equal(worstWindow(admitted, windowSeconds * second), limit, 'the most in any half-open window')
  t.equal(admitted.length, greedy.length, 'the greedy optimum')
  t.ok(isSame(admitted, greedy), 'and the very same moments')
})

/** When a single list would have admitted, had it seen all requests in their order. */
function greedyUnits (times: number[], limit: number, window: number): number[] {
  const units: number[] = []
  for (const time of times) {
    const oldest = units[units.length - limit]
    if (oldest === undefined || oldest <= time - window) units.push(time)
  }
  return units
}

function isSame (a: number[], b: number[]): boolean {
  return a.length === b.length && a.every((time, i) => time === b[i])
}
