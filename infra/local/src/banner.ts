import { relative } from 'node:path'
import type { DemoKey } from './demo-project.ts'
import type { LocalRun } from './local-file.ts'
import { bold } from './print.ts'
import { repoRoot } from './root.ts'

/** What a person needs in order to make the first call. The only place that shows a secret. */
export function banner (run: LocalRun, how: DemoKey['how'], stateDir: string): string {
  const [first, second] = run.gateways
  const key = {
    kept: 'key of the earlier start',
    made: 'new',
    replaced: 'new: the key of the earlier start no longer answers'
  }[how]
  const inside = relative(repoRoot, stateDir)
  const shown = inside.startsWith('..') ? stateDir : inside
  return `
${bold('Keygate is running.')}

  gateways      ${first}  ${second}
  key-service   ${run.keyService}  (its API: ${run.keyService}/docs)
  demo API      ${run.upstream}  (behind the gateways)
  project       ${run.projectId}
  key           ${run.secret}  (${key})

${bold('Call the API')} through either gateway; both count into one limit, 120 per 60 s:

  curl -i -u ${run.projectId}:${run.secret} ${first}${run.example}

  curl -i -H 'X-API-Key: ${run.secret}' ${second}${run.example}

${bold('See the limit at work:')} npm run demo (in another terminal)
${bold('Stop:')} Ctrl-C. Data, keys and logs stay in ${shown}/; remove that folder to begin anew.
`
}

/** For a second start: what runs already. */
export function alreadyRunning (pid: number, run: LocalRun | undefined): string {
  return [
    `Keygate is already running in this clone (process ${pid}).`,
    ...(run === undefined ? [] : [`  gateways      ${run.gateways.join('  ')}`, `  key-service   ${run.keyService}`]),
    `Stop it first: Ctrl-C in its terminal, or kill ${pid}`
  ].join('\n')
}
