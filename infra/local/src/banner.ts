import { relative } from 'node:path'
import type { DemoKey } from './demo-project.ts'
import type { LocalRun } from './local-file.ts'
import { bold } from './print.ts'
import { howToInstallRedis } from './redis-server.ts'
import { repoRoot } from './root.ts'

/** What a person needs in order to make the first call. The only place that shows a secret. */
export function banner (run: LocalRun, how: DemoKey['how'], stateDir: string): string {
  const [first, second = first] = run.gateways
  const key = {
    kept: 'key of the earlier start',
    made: 'new',
    replaced: 'new: the key of the earlier start no longer answers'
  }[how]
  const inside = relative(repoRoot, stateDir)
  const shown = inside.startsWith('..') ? stateDir : inside
  const alone = run.redis === null
  return `
${alone ? withoutRedis() : bold('Keygate is running.')}

  ${gatewaysOf(run)}
  key-service   ${run.keyService}  (its API: ${run.keyService}/docs)
  demo API      ${run.upstream}  (behind the gateway${alone ? '' : 's'})
  project       ${run.projectId}
  key           ${run.secret}  (${key})

${bold('Call the API')} ${alone ? 'through the gateway, by Basic or by header' : 'through either gateway; both count into one limit'}, 120 per 60 s:

  curl -i -u ${run.projectId}:${run.secret} ${first}${run.example}

  curl -i -H 'X-API-Key: ${run.secret}' ${second}${run.example}

${bold('See the limit at work:')} npm run demo (in another terminal)
${bold('Stop:')} Ctrl-C. Data, keys and logs stay in ${shown}/; remove that folder to begin anew.
`
}

function gatewaysOf ({ gateways }: LocalRun): string {
  return `${(gateways.length === 1 ? 'gateway' : 'gateways').padEnd(14)}${gateways.join('  ')}`
}

function withoutRedis (): string {
  return `${bold('KEYGATE IS RUNNING WITHOUT REDIS: one gateway, which counts alone.')}

  - Nothing is shared. The limit is this one gateway's; a second one could not know of its calls.
  - No answer carries RateLimit headers, for they would claim a shared count. A 429 still says Retry-After.
  - A change of a key (rotate, revoke, edit ...) is answered "effective": "pending" and takes up to a second.
  - What was counted is forgotten when the gateway ends.

${bold('For two gateways with one limit')} stop this, install Redis 7 or newer, and start again:

${howToInstallRedis}`
}

/** For a second start: what runs already. */
export function alreadyRunning (pid: number, run: LocalRun | undefined): string {
  return [
    `Keygate is already running in this clone (process ${pid}).`,
    ...(run === undefined ? [] : [`  ${gatewaysOf(run)}`, `  key-service   ${run.keyService}`]),
    `Stop it first: Ctrl-C in its terminal, or kill ${pid}`
  ].join('\n')
}
