import { once } from 'node:events'
import { startRedis } from '@keygate/local'
import { connectRedis } from '@keygate/rate-limit'
import { contenders } from './contenders.ts'
import { schedules, worstAdmitted } from './schedules.ts'
import { memory, stalls } from './space.ts'
import { mixes, speed } from './speed.ts'
import { table } from './table.ts'

const begun = performance.now()
const say = (line: string): void => { console.log(line) }
const progress = (phase: string): void => { console.error(`[${((performance.now() - begun) / 1000).toFixed(0)} s] ${phase}`) }

const redis = await startRedis()
// Long, since nothing here is about deadlines.
const connection = connectRedis(redis.url, { timeoutMs: 30_000 })
try {
  await once(connection, 'ready')
  const all = contenders(connection)
  const version = /redis_version:(\S+)/.exec(await connection.client.info('server'))?.[1]
  say(`Redis ${version}, Node ${process.versions.node}; 64 calls at once on one connection; contenders in turn: decisions/s are medians, costs lower quartiles`)

  for (const mix of mixes) {
    progress(`speed: ${mix.name}`)
    const found = await speed(connection, all, mix)
    const base = found.get('textbook two-bucket')?.scriptMicros ?? NaN
    say(`\n${mix.name} (limit ${mix.limit}, window ${mix.windowSeconds} s)`)
    say(table(['', 'decisions/s', 'us in Redis\'s script', 'of two-bucket', 'us of Redis\'s CPU', 'us of Node\'s CPU', 'admitted'],
      [...found].map(([name, s]) => [name, s.perSecond, s.scriptMicros, `${(s.scriptMicros / base).toFixed(2)} x`, s.serverMicros, s.nodeMicros, `${(s.admitted * 100).toFixed(0)} %`])))
  }

  progress('memory')
  const limits = [20, 1000, 10_000, 100_000]
  const rows: Array<Array<string | number>> = []
  for (const contender of all.filter(({ name }) => name !== 'ours, with versions')) {
    const bytes: number[] = []
    for (const limit of limits) bytes.push(await memory(connection, contender, limit))
    rows.push([contender.name, ...bytes])
  }
  say('\nbytes of one key that has used up its limit (MEMORY USAGE, SAMPLES 0)')
  say(table(['limit', ...limits.map(String)], [...rows, ['12 a request and 200', ...limits.map(limit => limit * 12 + 200)]]))

  progress('stalls')
  const [ours] = all
  if (ours !== undefined) {
    const found = await stalls(connection, ours, 100_000)
    say('\nus of one call in Redis when many entries expire, 9 runs')
    say(table(['ours', 'median', 'worst'], found.map(s => [s.name, s.medianMicros, s.worstMicros])))
  }

  const limit = 20
  const plans = schedules(limit)
  const worst: Array<Array<string | number>> = []
  for (const contender of all) {
    progress(`worst window: ${contender.name}`)
    const counts: number[] = []
    for (const plan of plans) counts.push(await worstAdmitted(connection, contender, plan, limit))
    worst.push([contender.name, ...counts, `${(Math.max(...counts) / limit * 100).toFixed(0)} %`])
  }
  say(`\nthe most admitted in any half-open window, limit ${limit}`)
  say(table(['', ...plans.map(({ name }) => name), 'worst'], worst))
  progress('done')
} finally {
  await connection.close()
  await redis.stop()
}
