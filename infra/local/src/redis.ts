import { copyFileSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { programEnvironment } from './find-program.ts'
import { freePort } from './free-port.ts'
import { startGuarded, type Guarded } from './guard.ts'
import { awaitLeftover } from './leftover.ts'
import { LocalError } from './local-error.ts'
import { findRedisServer, type RedisServer } from './redis-server.ts'
import { lastLines } from './tail.ts'

export interface RedisOptions {
  /** Default: any free one. */
  port?: number
  /** Where it works and keeps its files. Default: a temporary folder, removed by `stop`. */
  dir?: string
  /** A dump file (RDB) that is put into `dir` and loaded. Without it, whatever `dir` holds is loaded. */
  dump?: string
  /** Further settings, such as `['--appendonly', 'yes']`. Default: nothing is saved unless a client asks for it. */
  args?: string[]
  logFile?: string
  /** Default: `findRedisServer()`. */
  server?: RedisServer
}

export interface Redis {
  url: string
  port: number
  pid: number
  dir: string
  /** Fulfils with the exit code when the server has ended, whoever ended it. */
  ended: Promise<number>
  stop: () => Promise<void>
  /** SIGKILL: what was not saved is lost. Fulfils when it is gone. The folder stays until `stop`. */
  kill: () => Promise<void>
}

/** Starts a Redis on 127.0.0.1 that ends with this process, and fulfils when it answers PING and has loaded its data. */
export async function startRedis (options: RedisOptions = {}): Promise<Redis> {
  const server = options.server ?? await findRedisServer()
  const dir = prepareDir(options)
  const forget = () => { if (options.dir === undefined) rmSync(dir, { recursive: true, force: true }) }
  await awaitLeftover('Redis', join(dir, 'redis.pid'), dir)
  if (options.dump !== undefined) copyFileSync(options.dump, join(dir, 'dump.rdb'))

  const { port, guarded } = await startOnPort(server, dir, options).catch((error: unknown) => {
    forget()
    throw error
  })
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    pid: guarded.pid,
    dir,
    ended: guarded.ended,
    stop: async () => {
      await guarded.stop()
      forget()
    },
    kill: guarded.kill
  }
}

function prepareDir ({ dir }: RedisOptions): string {
  if (dir === undefined) return mkdtempSync(join(realpathSync(tmpdir()), 'keygate-redis-'))
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  return realpathSync(dir)
}

// A port of our own choice may be taken between the choice and the start: then another is tried.
async function startOnPort (server: RedisServer, dir: string, options: RedisOptions): Promise<{ port: number, guarded: Guarded }> {
  for (let attempt = 1; ; attempt++) {
    const port = options.port ?? await freePort()
    const guarded = await startGuarded([
      server.command, '--port', String(port), '--bind', '127.0.0.1', '--dir', dir, '--pidfile', join(dir, 'redis.pid'),
      '--save', '', '--appendonly', 'no', ...options.args ?? []
    ], { env: programEnvironment(server.libraries), stopSignal: 'TERM', cwd: dir, ...(options.logFile !== undefined && { logFile: options.logFile }) })
    try {
      await answers(port, guarded)
      return { port, guarded }
    } catch (error) {
      await guarded.stop()
      const taken = /Address already in use/.test(guarded.output())
      if (taken && options.port === undefined && attempt < 5) continue
      throw taken ? new LocalError(`Port ${port} for Redis is taken.`) : error
    }
  }
}

// Redis tells nobody when it is ready, so we ask, every 5 ms, for at most 30 s. Asking for its process number tells our server
// from a stranger's on the same port, who would answer while ours is still failing to listen.
async function answers (port: number, guarded: Guarded): Promise<void> {
  const deadline = Date.now() + 30_000
  while (guarded.exitCode() === undefined && Date.now() < deadline) {
    const reply = await ask(port, 'PING\r\nINFO server\r\n')
    if (reply.startsWith('-NOAUTH') || (reply.startsWith('+PONG') && reply.includes(`process_id:${guarded.pid}\r\n`))) return
    await delay(5)
  }
  const code = guarded.exitCode()
  const what = code === undefined ? `did not answer on port ${port} within 30 s` : `ended with code ${code} before it answered`
  throw new LocalError(`Redis ${what}:\n${lastLines(guarded.output())}`)
}

// Whatever the server at this port said, up to its process number; nothing when none listens yet.
function ask (port: number, commands: string): Promise<string> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1').setTimeout(2_000, () => socket.destroy())
    let reply = ''
    socket.on('data', chunk => {
      reply += chunk.toString()
      if (reply.startsWith('-') || /process_id:\d+\r\n/.test(reply)) socket.destroy()
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(reply))
    socket.write(commands)
  })
}
