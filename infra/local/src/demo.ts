import { contradictions, playStory, type Call, type Story } from './demo-story.ts'
import { createKeyServiceClient } from './key-service-client.ts'
import { LocalError } from './local-error.ts'
import { readLocalRun, type LocalRun } from './local-file.ts'
import { bold, print, printFailure } from './print.ts'

async function main (): Promise<void> {
  const run = await runningSystem()
  const gateways = run.gateways.length
  print(`A key of its own may make 20 calls in any 60 seconds. Here it makes 25${gateways === 1 ? '' : `, over ${gateways} gateways in turn`}:\n`)
  const story = await playStory(run, createKeyServiceClient(run.keyService, run.operatorToken))
  tell(story)
  if (gateways === 1) print('\nThis is one gateway, so nothing was shared: it counted alone. With Redis, npm start runs two with one limit.')
  const faults = contradictions(story)
  if (faults.length > 0) throw new LocalError(`The story did not hold:\n${faults.map(fault => `  - ${fault}`).join('\n')}`)
  print('\nThe demo key was deleted; the key that npm start printed was not touched.')
}

async function runningSystem (): Promise<LocalRun> {
  const run = readLocalRun()
  const alive = run !== undefined && await fetch(`${run.keyService}/livez`).then(answer => answer.ok, () => false)
  if (run === undefined || !alive) throw new LocalError('Keygate is not running here. Start it first: npm start')
  return run
}

function tell (story: Story): void {
  const row = (call: string, gateway: string, status: string, rateLimit: string, retryAfter: string) =>
    print(`  ${call.padStart(4)}  ${gateway.padEnd(7)}  ${status.padEnd(6)}  ${rateLimit.padEnd(34)}  ${retryAfter}`.trimEnd())
  row('call', 'gateway', 'status', 'RateLimit', 'Retry-After')
  story.calls.forEach((call, index) => row(String(index + 1), String(call.gateway), String(call.status), call.rateLimit || '-', call.retryAfter || '-'))
  const count = (status: number) => story.calls.filter(call => call.status === status).length
  print(bold(`\n  ${count(200)} answered 200, ${count(429)} answered 429`))
  // Otherwise two runs print the same table; a machine this slow should know why its table differs.
  if (story.milliseconds >= 1000) print(`  (The calls took ${(story.milliseconds / 1000).toFixed(1)} s, so the seconds in the headers count down.)`)

  print('\nNow the secret is replaced (rotate, without a grace period):\n')
  each('old secret', story.oldSecret, story.lagMilliseconds === null
    ? 'refused at once'
    : `refused after ${(story.lagMilliseconds / 1000).toFixed(1)} s: without Redis the gateway asks key-service for changes, and one takes up to a second`)
  each('new secret', story.newSecret, 'accepted, but the 20 calls lie in the window of the key, not of its secret')
}

function each (name: string, calls: Call[], meaning: string): void {
  for (const call of calls) print(`  ${name}, gateway ${call.gateway}: ${call.status}`)
  print(`    ${meaning}`)
}

process.exitCode = await main().then(() => 0, (error: unknown) => {
  printFailure(error)
  return 1
})
