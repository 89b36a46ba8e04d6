import { spawn } from 'node:child_process'
import { createWriteStream, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { repoRoot } from './root.ts'
import { createTail, lastLines } from './tail.ts'

const script = join(repoRoot, 'infra/local/guard.sh')

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
  const child = spawn('sh', [script, options.stopSignal, ...command], {
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
