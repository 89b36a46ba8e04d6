import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'

/** A process of the bench's own. */
export interface Program { url: string, pid: number, stop: () => Promise<void> }

/** Starts `systems/<name>.ts` with production's settings. Rejects when it ends before it has printed its port. */
export async function startSystem (name: string, env: Record<string, string>, nodeArgs: string[] = []): Promise<Program> {
  const file = fileURLToPath(new URL(`systems/${name}.js`, import.meta.url))
  // Detached, as those of @keygate/local are: a Ctrl-C reaches the bench alone, which ends everything in order.
  const child = fork(file, { execArgv: nodeArgs, env: { ...process.env, NODE_ENV: 'production', ...env }, stdio: ['ignore', 'pipe', 'inherit', 'ipc'], detached: true })
  const exited = once(child, 'exit')
  const lines = createInterface(child.stdout as Readable)
  const port = await Promise.race([once(lines, 'line').then(([line]) => Number(line)), exited.then(() => NaN)])
  if (!Number.isInteger(port)) throw new Error(`${name} ended before it listened`)
  return {
    url: `http://127.0.0.1:${port}`,
    pid: child.pid as number,
    stop: async () => {
      child.kill('SIGTERM')
      await exited
    }
  }
}

/** Microseconds per tick of the clock in which Linux reports CPU time (USER_HZ, 100 everywhere but on Alpha). */
const microsPerTick = 10_000

/** User and system time of a process with all its threads so far, microseconds (proc_pid_stat(5), fields 14 and 15). */
export function cpuMicros (pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  // The second field, the name, is in parentheses and may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * microsPerTick
}
