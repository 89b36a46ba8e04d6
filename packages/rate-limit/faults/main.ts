import { incidents } from './incidents.ts'
import { measure, median, type Figures } from './measure.ts'
import { faults } from './redis-faults.ts'

/** Usage: npm run faults -w packages/rate-limit [-- runs]. Prints figures and judges none of them. */
const runs = Number(process.argv[2] ?? 3)
const columns = ['longest wait ms', 'own loop ms', 'recovery ms', 'admitted', 'bound', 'changes', 'calls']

const row = ({ longestWaitMs, blockedMs, recoveryMs, admitted, bound, changes, calls }: Figures): string =>
  [longestWaitMs, blockedMs, recoveryMs, admitted, bound, changes, calls].map((n, i) => n.toFixed(0).padStart((columns[i] ?? '').length)).join(' | ')

console.log(`3 replicas, limit 300 in one window, deadline 100 ms; medians of ${runs} runs, of admitted and changes the most`)
console.log(`${'fault'.padEnd(72)} | ${columns.join(' | ')}`)
for (const fault of [...faults, ...incidents].sort((a, b) => a.id.localeCompare(b.id))) {
  const figures: Figures[] = []
  for (let i = 0; i < runs; i++) figures.push(await measure(fault))
  console.log(`${`${fault.id} ${fault.name}`.padEnd(72)} | ${row(median(figures))}`)
}
