import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LocalError, startStack } from '@keygate/local'
import { findSqlmap, tryTarget, type Outcome } from './sqlmap.ts'
import { targetsOf, type Call, type Target } from './targets.ts'
import { startVulnerable } from './vulnerable.ts'

/**
 * Usage: npm run sqlmap -w services/key-service [-- <beginning of an operation's name>]. Ends with 1 when something can be injected,
 * fails with a 5xx, or was not tried.
 */
const [wanted = ''] = process.argv.slice(2)
const level = 3
const timeoutMs = 10 * 60_000
const atOnce = 2

const begun = performance.now()
const say = (line: string): void => { console.log(line) }
const progress = (phase: string): void => { console.error(`[${((performance.now() - begun) / 1000).toFixed(0)} s] ${phase}`) }

const dir = mkdtempSync(join(tmpdir(), 'keygate-sqlmap-'))
try {
  process.exitCode = await run() ? 0 : 1
} catch (error) {
  if (!(error instanceof LocalError)) throw error
  say(error.message)
  process.exitCode = 1
} finally {
  rmSync(dir, { recursive: true, force: true })
}

/** @returns true: all were tried, and nothing can be injected. */
async function run (): Promise<boolean> {
  const command = await findSqlmap(dir)
  progress('starting PostgreSQL, Redis and the services')
  const stack = await startStack({ dir: join(dir, 'stack'), ephemeral: true, gateways: 1, env: { keyService: { KEYGATE_REQUESTS_LIMIT: '100000', KEYGATE_DATABASE_TIMEOUT_MS: '20000' } } })
  const vulnerable = await startVulnerable(stack.postgres.url)
  try {
    const { tokens: { operator: token }, keyService: { url } } = stack
    const targets = (await targetsOf(callerOf(url, token), url)).filter(({ name }) => name.startsWith(wanted))
    const scan = async (target: Target, level: number): Promise<Outcome> => await tryTarget(target, { command, dir, token, level, timeoutMs })

    const control = await scan(vulnerable.target, 1)
    if (control.verdicts['search'] !== 'injectable') {
      say(`sqlmap does not find what can be injected into the control, so it would tell nothing of the service:\n${control.output.slice(-4000)}`)
      return false
    }
    progress('sqlmap finds the control')

    const outcomes = new Map<Target, Outcome>()
    const waiting = [...targets]
    await Promise.all(Array.from({ length: atOnce }, async () => {
      for (let target = waiting.shift(); target !== undefined; target = waiting.shift()) {
        outcomes.set(target, await scan(target, level))
        progress(`${target.name}: ${outcomes.size} of ${targets.length}`)
      }
    }))
    return report(targets.map(target => [target, outcomes.get(target) as Outcome]))
  } finally {
    await vulnerable.stop()
    await stack.stop()
  }
}

/** Prints a row for each parameter, and what sqlmap said where that is not good. */
function report (outcomes: Array<[Target, Outcome]>): boolean {
  console.table(outcomes.flatMap(([{ name }, { verdicts }]) => Object.entries(verdicts).map(([parameter, verdict]) => ({ operation: name, parameter, verdict }))))
  const isGood = ({ verdicts, serverErrors }: Outcome): boolean => serverErrors.length === 0 && Object.values(verdicts).every(verdict => verdict === 'not injectable')
  const bad = outcomes.filter(([, outcome]) => !isGood(outcome))
  for (const [{ name, url }, { serverErrors, output }] of bad) say(`\n${name} ${url} ${serverErrors.join(', ')}\n${output.slice(-4000)}`)
  const requests = outcomes.reduce((sum, [, outcome]) => sum + outcome.requests, 0)
  say(`${requests} requests to ${outcomes.length} operations in ${((performance.now() - begun) / 1000).toFixed(0)} s: ${bad.length === 0 ? 'nothing can be injected' : `${bad.length} not as they should be`}`)
  return bad.length === 0
}

function callerOf (base: string, token: string): Call {
  return async <T>(method: string, path: string, body?: unknown, status = 200) => {
    const answer = await fetch(`${base}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...body !== undefined && { 'content-type': 'application/json' } },
      ...body !== undefined && { body: JSON.stringify(body) }
    })
    const text = await answer.text()
    if (answer.status !== status) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
    return (text === '' ? undefined : JSON.parse(text)) as T
  }
}
