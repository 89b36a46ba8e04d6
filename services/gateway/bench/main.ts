import { availableParallelism, cpus, loadavg } from 'node:os'
import { startGenerator } from './generator.ts'
import { inTurns, median, medians, type Figures, type Plan } from './rounds.ts'
import { readSettings } from './settings.ts'
import { ids, openStage, type Id, type Target } from './stage.ts'
import { connections } from './systems/serve.ts'
import { table } from './table.ts'

/** Usage: npm run bench -w services/gateway. Ends with 1 when something answers other than it must, or does not start. */
const { rounds, seconds, only, profiles } = readSettings(process.env, ids)
const wanted = (id: Id): boolean => only === undefined || only.has(id)

/** CPU per request of ours that the gateway is built for, as a share of another's. */
const aims = [{ id: 'a', share: 1 }, { id: 'c', share: 0.65 }, { id: 'd', share: 0.33 }] as const
const pace = 1000

const begun = performance.now()
const say = (line: string): void => { console.log(line) }
const progress = (phase: string): void => { console.error(`[${((performance.now() - begun) / 1000).toFixed(0)} s] ${phase}`) }

const [load = 0] = loadavg()
const [processor] = cpus()
const generator = startGenerator()
const leave = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => { leave.abort(new Error(`ended by ${signal}`)) })

try {
  const stage = await openStage({ wanted, profiles, progress, signal: leave.signal })
  const plan: Plan = { rounds, seconds, connections, redisPid: stage.redisPid, signal: leave.signal, progress }
  const { targets } = stage
  const present = (list: Array<Target | undefined>): Target[] => list.filter(target => target !== undefined)
  const asked = (...list: Array<keyof typeof targets>): Target[] => present(list.filter(wanted).map(id => targets[id]))
  const head = `${connections} connections, medians of ${rounds} rounds of ${seconds} s in turns`
  try {
    say(`Node ${process.versions.node}, ${availableParallelism()} x ${processor?.model.trim() ?? 'a processor'} for generator, upstream, Redis and the measured system together; load average at the start ${load.toFixed(2)}${profiles === undefined ? '' : '; the figures are of processes that are being profiled'}`)

    const contenders = asked('upstream', 'f', 'a', 'b', 'c', 'd', 'e', 'eoff', 'e200')
    if (contenders.length > 0) {
      progress(`proxying: ${contenders.map(({ id }) => id).join(', ')}`)
      const found = await inTurns(generator, contenders, plan)
      say(`\nProxying: ${head}`)
      say(table(['', 'requests/s', 'p50 ms', 'p99 ms', 'CPU us/request', 'lowest', 'highest', 'Redis\'s CPU us/request'], contenders.map(({ id, label, isLimited }) => {
        const all = found.get(id) ?? []
        const { perSecond, p50, p99, cpu, redisCpu } = medians(all)
        return [label, whole(perSecond), p50.toFixed(2), p99.toFixed(2), cpu.toFixed(1), ...[Math.min, Math.max].map(end => end(...all.map(round => round.cpu)).toFixed(1)), isLimited ? redisCpu.toFixed(1) : '']
      })))
      sayRatios(found)
    }

    const [auth] = asked('auth')
    if (auth !== undefined) {
      progress('forward-auth')
      const found = medians((await inTurns(generator, [auth], plan)).get('auth') ?? [])
      say(`\nForward-auth (/.keygate/authorize): ${head}`)
      say(table(['', 'decisions/s', 'p50 ms', 'p99 ms', 'CPU us/decision', 'Redis\'s CPU us/decision'],
        [[auth.label, whole(found.perSecond), found.p50.toFixed(2), found.p99.toFixed(2), found.cpu.toFixed(1), found.redisCpu.toFixed(1)]]))
    }

    if (wanted('latency')) {
      progress(`latency at ${pace} requests/s`)
      const paced = present([targets.upstream, targets.a, targets.e])
      const found = await inTurns(generator, paced, { ...plan, perSecond: pace })
      const direct = found.get('upstream') ?? []
      say(`\nLatency at ${pace} requests/s, sent at an even pace that waits for no answer; medians of ${rounds} rounds of ${seconds} s in turns; what is added is taken round by round`)
      say(table(['', 'p50 ms', 'p99 ms', 'added to p50', 'added to p99', 'CPU us/request'], paced.map(({ id, label }) => {
        const all = found.get(id) ?? []
        const { p50, p99, cpu } = medians(all)
        const added = (figure: 'p50' | 'p99'): string => id === 'upstream' ? '' : median(all.map((round, i) => round[figure] - (direct[i]?.[figure] ?? NaN))).toFixed(2)
        return [label, p50.toFixed(2), p99.toFixed(2), added('p50'), added('p99'), cpu.toFixed(1)]
      })))
    }

    if (wanted('two')) {
      progress('two gateways against one')
      const pair = present([targets.e && { ...targets.e, id: 'one', label: 'one gateway' }, targets.two])
      const found = await inTurns(generator, pair, plan)
      const single = medians(found.get('one') ?? [])
      say(`\nTwo gateway processes against one: ${head}, half of the connections to each of two. ${availableParallelism()} cores are shared with the generator, the upstream and Redis: this is no measure of how far it scales`)
      say(table(['', 'requests/s', 'of one', 'p50 ms', 'p99 ms', 'CPU us/request', 'of one'], pair.map(({ id, label }) => {
        const { perSecond, p50, p99, cpu } = medians(found.get(id) ?? [])
        return [label, whole(perSecond), `${(perSecond / single.perSecond).toFixed(2)} x`, p50.toFixed(2), p99.toFixed(2), cpu.toFixed(1), `${(cpu / single.cpu).toFixed(2)} x`]
      })))
    }
  } finally {
    progress('ending all')
    await stage.stop()
    if (profiles !== undefined) progress(`profiles are in ${profiles}`)
  }
} finally {
  await generator.stop()
}

/** CPU per request of ours as a share of the others'; with the least and the most of a single round, whose figures were taken one after the other. */
function sayRatios (found: Map<string, Figures[]>): void {
  const rows = ['e', 'e200'].flatMap(own => aims.map(({ id, share }) => {
    const [ours, theirs] = [found.get(own) ?? [], found.get(id) ?? []]
    if (ours.length === 0 || theirs.length === 0) return []
    const each = ours.map((round, i) => round.cpu / (theirs[i]?.cpu ?? NaN))
    return [`${own === 'e' ? '(e)' : '(e\')'} to (${id})`, `${(medians(ours).cpu / medians(theirs).cpu).toFixed(2)} x`, Math.min(...each).toFixed(2), Math.max(...each).toFixed(2), `at most ${share.toFixed(2)} x`]
  })).filter(row => row.length > 0)
  if (rows.length === 0) return
  say('\nCPU per request of ours as a share of another\'s')
  say(table(['', 'of medians', 'lowest round', 'highest round', 'aim'], rows))
}

function whole (value: number): string {
  return value.toFixed(0)
}
