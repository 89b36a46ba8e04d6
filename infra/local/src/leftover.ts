import { spawnSync } from 'node:child_process'
import { readFileSync, readlinkSync, realpathSync, rmSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { LocalError } from './local-error.ts'

/**
 * Waits for the server of an earlier run that is still ending in `dir` (its launcher was killed, its guard is stopping it).
 * A process file that names nobody, or somebody else, is forgotten. Never signals anything. Throws `LocalError` after `timeoutMs`.
 */
export async function awaitLeftover (name: string, pidFile: string, dir: string, timeoutMs = 15_000): Promise<void> {
  const pid = readPid(pidFile)
  if (pid === undefined) return
  const deadline = Date.now() + timeoutMs
  while (isAlive(pid) && worksIn(pid, dir)) {
    if (Date.now() > deadline) throw new LocalError(`${name} of another run (process ${pid}) is still using ${dir}. Stop that run first, or end the process: kill ${pid}`)
    await delay(20) // it is not our child: there is no event to wait for
  }
  // Left behind. PostgreSQL would refuse to start while the number belongs to any living process of ours.
  if (readPid(pidFile) === pid) rmSync(pidFile, { force: true })
}

/** Whether a process of this number exists (also one that we may not signal). */
export function isAlive (pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Something that a later process with the same number would not share: when it was started. Undefined when there is none. */
export function startOf (pid: number): string | undefined {
  try {
    // the name in parentheses may hold anything; the 22nd field, in ticks since boot, is the 20th after it
    return readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')[19]
  } catch {
    return run('ps', ['-o', 'lstart=', '-p', String(pid)]).trim() || undefined
  }
}

// Both servers change into their data directory; PostgreSQL also carries it in its arguments.
function worksIn (pid: number, dir: string): boolean {
  const real = realpathSync(dir)
  try {
    if (readlinkSync(`/proc/${pid}/cwd`) === real) return true
  } catch {}
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').some(part => part === dir || part === real)
  } catch {}
  if (process.platform === 'linux') return false
  return run('lsof', ['-a', '-p', String(pid), '-d', 'cwd', '-Fn']).split('\n').includes(`n${real}`)
}

function readPid (file: string): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(file, 'utf8'), 10)
    return pid > 0 ? pid : undefined
  } catch {
    return undefined
  }
}

function run (command: string, args: string[]): string {
  return spawnSync(command, args, { encoding: 'utf8' }).stdout ?? ''
}
