// Preloaded into one gateway: at each SIGWINCH (a signal that nothing else here listens to) its clock takes the next step, and it says so. Timers and performance.now() stay as they are,
// as on a machine whose clock is set.
const RealDate = Date
const hour = 3_600_000
const steps = [
  ['an hour ahead', () => RealDate.now() + hour],
  ['an hour behind', () => RealDate.now() - hour],
  ['standing still', (stopped => () => stopped)(RealDate.now())],
  ['right', () => RealDate.now()]
]
let now = () => RealDate.now()

globalThis.Date = new Proxy(RealDate, {
  construct: (target, args) => args.length === 0 ? new RealDate(now()) : new RealDate(...args),
  get: (target, name) => name === 'now' ? () => now() : target[name]
})

process.on('SIGWINCH', () => {
  const [name, next] = steps.shift()
  now = next
  process.stdout.write(`the clock is ${name}\n`)
})
