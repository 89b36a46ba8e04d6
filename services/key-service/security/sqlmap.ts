import { execFile } from 'node:child_process'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { LocalError, unpackPackages } from '@keygate/local'
import type { Target } from './targets.ts'

const execute = promisify(execFile)

/** A program and its first arguments. */
export type Command = [string, ...string[]]

/** Of one parameter. `not tried`: sqlmap ended, or was ended, before it could tell. */
export type Verdict = 'injectable' | 'not injectable' | 'not tried'

export interface Outcome { verdicts: Record<string, Verdict>, requests: number, serverErrors: string[], output: string }

export interface RunOptions { command: Command, dir: string, token: string, level: number, timeoutMs: number }

/** sqlmap of PATH, else out of Debian's package, unpacked into `dir`. Throws `LocalError` where there is no python3. */
export async function findSqlmap (dir: string): Promise<Command> {
  const answers = async (...[command, ...args]: Command): Promise<boolean> => await execute(command, [...args, '--version']).then(() => true, () => false)
  if (await answers('sqlmap')) return ['sqlmap']
  if (!await answers('python3')) throw new LocalError('sqlmap needs python3, which is not on PATH: nothing was tried.')
  const work = join(dir, 'packages')
  await mkdir(work)
  await unpackPackages({ work, files: join(dir, 'unpacked'), path: process.env['PATH'] ?? '' }, async () => ['sqlmap'])
  return ['python3', join(dir, 'unpacked/usr/share/sqlmap/sqlmap.py')]
}

/** Tries every parameter of a target. What it has not told in `timeoutMs` counts as not tried. */
export async function tryTarget ({ name, url, parameters, wrap }: Target, { command: [program, ...first], dir, token, level, timeoutMs }: RunOptions): Promise<Outcome> {
  const home = join(dir, `of ${name}`)
  await mkdir(home)
  const traffic = join(home, 'traffic')
  const args = [
    ...first, '-u', url, ...parameters.some(parameter => parameter.startsWith('#')) ? [] : ['-p', parameters.join()], ...wrap === undefined ? [] : [`--eval=${wrap}`],
    '-H', `Authorization: Bearer ${token}`, '--batch', `--level=${level}`, '--risk=2', '--dbms=PostgreSQL',
    '--disable-coloring', `--output-dir=${home}`, '-t', traffic
  ]
  const options = { cwd: home, env: { PATH: process.env['PATH'], HOME: home, TMPDIR: home, LC_ALL: 'C.UTF-8' }, timeout: timeoutMs, maxBuffer: 2 ** 26 }
  const output = await execute(program, args, options).then(({ stdout }) => stdout, (error: { stdout?: string }) => error.stdout ?? '')
  const sent = await readFile(traffic, 'utf8').catch(() => '')
  return { ...read(output, parameters), requests: sent.match(/^HTTP request \[#/gm)?.length ?? 0, output }
}

/** What sqlmap prints, as it is told by version 1.7. */
function read (output: string, parameters: string[]): Omit<Outcome, 'output' | 'requests'> {
  const verdicts: Record<string, Verdict> = Object.fromEntries(parameters.map(name => [name, 'not tried']))
  for (const [, name = '', said] of output.matchAll(/parameter '([^']+)' (is vulnerable|does not seem to be injectable)/g)) {
    if (name in verdicts) verdicts[name] = said === 'is vulnerable' ? 'injectable' : 'not injectable'
  }
  const statuses = [...output.matchAll(/(\d{3}) \([^)]*\) - (\d+) times/g)].map(([, status = '', times]) => ({ status, times: Number(times) }))
  return {
    verdicts,
    serverErrors: statuses.filter(({ status }) => status.startsWith('5')).map(({ status, times }) => `${times} times ${status}`)
  }
}
