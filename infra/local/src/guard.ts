import { spawn } from 'node:child_process'
import { createWriteStream, mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Readable } from 'node:stream'
import { createTail, lastLines } from './tail.ts'

// A server that we start must not outlive us, and SIGKILL leaves us no time to end it. So a small shell stands between: its
// input is a pipe that only we hold; when it closes, for whatever reason, the shell signals the server, and kills it after 10 s.
// The main shell alone waits for the server, so the process number cannot pass to a stranger while it is still being signalled.
const script = `
signal=$1; shift
server=
exec 5<&0 </dev/null
trap '[ -z "$server" ] || kill -s "$signal" "$server" 2>/dev/null' TERM INT HUP
"$@" 3>&- 5<&- &
server=$!
echo "$server" >&3
exec 3>&-
(
  while read -r _; do :; done <&5
  kill -s TERM $$
  tries=100
  while [ "$tries" -gt 0 ] && kill -0 "$server"; do sleep 0.1; tries=$((tries - 1)); done
  kill -s KILL "$server"
) >/dev/null 2>&1 &
watcher=$!
exec 5<&-
while :; do
  wait "$server"; code=$?
  kill -0 "$server" 2>/dev/null || break
done
kill -s KILL "$watcher" 2>/dev/null
exit "$code"
`

export interface GuardOptions {
  env: NodeJS.ProcessEnv
  /** What asks this server to end in order: PostgreSQL's fast shutdown is INT, Redis wants TERM. */
  stopSignal: 'INT' | 'TERM'
  cwd?: string
  /** What the server prints is appended here as well. */
  logFile?: string
  uid?: number
  gid?: number
}

/** A server process that ends with this process, even when this process is SIGKILLed. */
export interface Guarded {
  /** The server's own process number, not the guard's. */
  pid: number
  /** Fulfils with the exit code (128 + n for signal n) when the server and all that it started have ended. */
  ended: Promise<number>
  /** That code; undefined while it runs. */
  exitCode: () => number | undefined
  /** The last 64 KiB that it printed. */
  output: () => string
  /** Fulfils when the output contains `text`; rejects with the output's tail when the server ends before. */
  printed: (text: string) => Promise<void>
  /** Ends it in order; killed after 10 s. */
  stop: () => Promise<void>
  /** SIGKILL. */
  kill: () => Promise<void>
}

/** Starts `command` under a guard. Rejects when it cannot be started at all. */
export async function startGuarded (command: string[], options: GuardOptions): Promise<Guarded> {
  const child = spawn('sh', ['-c', script, 'keygate-guard', options.stopSignal, ...command], {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    detached: true, // a Ctrl-C on the terminal reaches the launcher only, which ends everything in order
    env: options.env,
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    ...(options.uid !== undefined && { uid: options.uid }),
    ...(options.gid !== undefined && { gid: options.gid })
  })
  const tail = createTail()
  const log = options.logFile === undefined ? undefined : openLog(options.logFile)
  const heard = new Set<() => void>()
  let exitCode: number | undefined
  for (const stream of [child.stdout, child.stderr] as Readable[]) {
    stream.on('data', (chunk: Buffer) => {
      tail.push(chunk)
      log?.write(chunk)
      for (const check of heard) check()
    })
  }
  child.stdin?.on('error', () => {}) // EPIPE: it ended before we asked it to

  // 'close', not 'exit': PostgreSQL's children hold the output until the last of them is gone
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', code => {
      exitCode = code ?? 137
      log?.end()
      for (const check of heard) check()
      resolve(exitCode)
    })
  })
  const pid = await Promise.race([firstNumber(child.stdio[3] as Readable), ended.then(() => undefined)])
  if (pid === undefined) throw new Error(`${command[0]} did not start:\n${lastLines(tail.read())}`)

  const stop = async () => { child.stdin?.end(); await ended }
  return {
    pid,
    ended,
    exitCode: () => exitCode,
    output: tail.read,
    printed: (text) => new Promise((resolve, reject) => {
      const check = () => {
        if (tail.read().includes(text)) resolve()
        else if (exitCode !== undefined) reject(new Error(lastLines(tail.read())))
        else return
        heard.delete(check)
      }
      heard.add(check)
      check()
    }),
    stop,
    kill: async () => {
      // the guard has not reported the end, so the number still belongs to the server (alive or not yet waited for)
      if (child.exitCode === null && child.signalCode === null) try { process.kill(pid, 'SIGKILL') } catch {}
      await stop()
    }
  }
}

function openLog (file: string) {
  mkdirSync(dirname(file), { recursive: true })
  return createWriteStream(file, { flags: 'a', mode: 0o600 })
}

async function firstNumber (stream: Readable): Promise<number | undefined> {
  let text = ''
  for await (const chunk of stream) text += String(chunk)
  return /^\d+\n$/.test(text) ? Number(text) : undefined
}
