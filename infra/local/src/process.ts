import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { LocalError } from './local-error.ts'
import { repoRoot } from './root.ts'
import { createTail, lastLines } from './tail.ts'

export type ServiceName = 'gateway' | 'key-service' | 'upstream'
export type Env = Record<string, string>

export interface ServiceOptions {
  /** For node, before the program: a preloaded module, say. */
  nodeArgs?: string[]
  /** What the process prints is appended to this file. */
  logFile?: string
}

/** One running process of a service. */
export interface Service {
  name: ServiceName
  url: string
  metricsUrl?: string
  pid: number
  /** SIGTERM, and SIGKILL after 15 s. Fulfils when it has ended. */
  stop: () => Promise<void>
  /** SIGKILL. */
  kill: () => Promise<void>
  /** Fulfils when it has ended, whoever ended it: the exit code, or null after a signal. */
  exited: Promise<number | null>
  /** The last 64 Ki characters that it printed. */
  output: () => string
}

const program: Record<ServiceName, string> = {
  gateway: 'services/gateway/dist/server.js',
  'key-service': 'services/key-service/dist/server.js',
  upstream: 'infra/upstream/dist/server.js'
}

/**
 * Starts a service from its build as a process of its own; fulfils when it listens. Its environment is `env` and what any program
 * needs (PATH, HOME), nothing else of ours. Rejects with a `LocalError` that carries its last words when it ends before.
 * It ends when this process does, because the channel between the two closes.
 */
export async function startService (name: ServiceName, env: Env, options: ServiceOptions = {}): Promise<Service> {
  const file = join(repoRoot, program[name])
  if (!existsSync(file)) throw new LocalError(`${program[name]} is missing. Build it: npm run build`)
  const { child, output } = spawnService(file, env, options)
  const exited = once(child, 'close').then(([code]) => code as number | null)
  const ready = await firstMessage(child, exited).catch(async (error: unknown) => {
    child.kill('SIGKILL')
    await exited
    throw error
  })
  if (ready === undefined) throw new LocalError(`The ${name} ended with code ${await exited ?? 'none (by a signal)'} before it was ready:\n${lastLines(output())}`)
  const end = async (signal: NodeJS.Signals) => {
    const patience = setTimeout(() => child.kill('SIGKILL'), 15_000)
    child.kill(signal)
    await exited
    clearTimeout(patience)
  }
  return {
    name,
    url: ready.url,
    ...(ready.metricsUrl !== undefined && { metricsUrl: ready.metricsUrl }),
    pid: child.pid as number,
    stop: async () => await end('SIGTERM'),
    kill: async () => await end('SIGKILL'),
    exited,
    output
  }
}

function spawnService (file: string, env: Env, { nodeArgs = [], logFile }: ServiceOptions) {
  if (logFile !== undefined) mkdirSync(dirname(logFile), { recursive: true, mode: 0o700 })
  const log = logFile === undefined ? 'pipe' : openSync(logFile, 'a', 0o600)
  const child = fork(file, [], {
    execArgv: ['--enable-source-maps', ...nodeArgs],
    env: { ...basics(), KEYGATE_HOST: '127.0.0.1', KEYGATE_PORT: '0', PORT: '0', ...env },
    stdio: ['ignore', log, log, 'ipc'],
    detached: true // a Ctrl-C on the terminal reaches the launcher only, which ends everything in order
  })
  if (logFile !== undefined) {
    closeSync(log as number)
    return { child, output: () => readFileSync(logFile, 'utf8').slice(-64 * 1024) }
  }
  const tail = createTail()
  child.stdout?.on('data', tail.push)
  child.stderr?.on('data', tail.push)
  return { child, output: tail.read }
}

interface Ready { type: 'ready', url: string, metricsUrl?: string }

// The deadline is for a service that hangs; a slow machine needs a second or two.
async function firstMessage (child: ChildProcess, exited: Promise<unknown>): Promise<Ready | undefined> {
  const giveUp = AbortSignal.timeout(60_000)
  const ready = new Promise<Ready>((resolve, reject) => {
    child.on('message', message => { if (isReady(message)) resolve(message) })
    child.once('error', reject)
    giveUp.addEventListener('abort', () => reject(new LocalError(`${child.spawnargs.at(-1) ?? 'A service'} was not ready within 60 s.`)))
  })
  return await Promise.race([ready, exited.then(() => undefined)])
}

function isReady (message: unknown): message is Ready {
  return typeof message === 'object' && message !== null && 'type' in message && message.type === 'ready' && 'url' in message && typeof message.url === 'string'
}

function basics (): Env {
  const names = ['PATH', 'HOME', 'TMPDIR', 'TZ', 'NODE_ENV', 'NODE_EXTRA_CA_CERTS']
  return Object.fromEntries(names.flatMap(name => process.env[name] === undefined ? [] : [[name, process.env[name]]]))
}
