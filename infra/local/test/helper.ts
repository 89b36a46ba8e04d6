import { readFileSync, readdirSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'

/** Waits for something that no event tells us (the end of a process that is not our child); the deadline is only for a broken test. */
export async function until (what: string, holds: () => boolean | Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!await holds()) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`)
    await delay(20)
  }
}

/** Whether the process runs. One that has ended but was not yet waited for (orphans, in a container without an init) does not. */
export function isRunning (pid: number): boolean {
  const found = processes().find(one => one.pid === pid)
  return found !== undefined && found.state !== 'Z'
}

/** All processes below one, by their parents. */
export function descendants (pid: number): number[] {
  const all = processes()
  const below = (parent: number): number[] => all.filter(one => one.parent === parent).flatMap(one => [one.pid, ...below(one.pid)])
  return below(pid)
}

interface Process { pid: number, parent: number, state: string }

function processes (): Process[] {
  if (process.platform !== 'linux') {
    const { stdout } = spawnSync('ps', ['-A', '-o', 'pid=,ppid=,stat='], { encoding: 'utf8' })
    return stdout.trim().split('\n').map(line => {
      const [pid, parent, state = ''] = line.trim().split(/\s+/)
      return { pid: Number(pid), parent: Number(parent), state: state.charAt(0) }
    })
  }
  return readdirSync('/proc').filter(name => /^\d+$/.test(name)).flatMap(name => {
    try {
      const [state = '', parent] = readFileSync(`/proc/${name}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')
      return [{ pid: Number(name), parent: Number(parent), state }]
    } catch {
      return [] // ended meanwhile
    }
  })
}
