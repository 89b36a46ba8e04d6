import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { programEnvironment, type Program } from './find-program.ts'
import { freePort } from './free-port.ts'
import { startGuarded, type Guarded } from './guard.ts'
import { LocalError } from './local-error.ts'
import { findNginx } from './nginx-server.ts'
import { lastLines } from './tail.ts'

export interface NginxOptions {
  /** What stands in the `http` block, for the port that it is given. Relative files are in the server's own folder. */
  config: (port: number) => string
  /** Default: any free one. */
  port?: number
  logFile?: string
  /** Default: `findNginx()`. */
  server?: Program
}

export interface Nginx {
  url: string
  port: number
  pid: number
  /** Its own folder, removed by `stop`. */
  dir: string
  /** Fulfils with the exit code when it has ended, whoever ended it. */
  ended: Promise<number>
  /** The last 64 KiB of its error log, from `warn` on. */
  log: () => string
  stop: () => Promise<void>
}

/**
 * Starts an nginx on 127.0.0.1 that needs no root, works in a folder of its own and ends with this process; fulfils when it listens.
 * Throws a `LocalError` with nginx's own words when it does not like its configuration.
 */
export async function startNginx (options: NginxOptions): Promise<Nginx> {
  const server = options.server ?? await findNginx()
  const dir = mkdtempSync(join(realpathSync(tmpdir()), 'keygate-nginx-'))
  const forget = () => { rmSync(dir, { recursive: true, force: true }) }
  const { port, guarded } = await startOnPort(server, dir, options).catch((error: unknown) => {
    forget()
    throw error
  })
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    pid: guarded.pid,
    dir,
    ended: guarded.ended,
    log: guarded.output,
    stop: async () => {
      await guarded.stop()
      forget()
    }
  }
}

// A port of our own choice may be taken between the choice and the start: then another is tried.
async function startOnPort (server: Program, dir: string, { config, port: wanted, logFile }: NginxOptions): Promise<{ port: number, guarded: Guarded }> {
  for (let attempt = 1; ; attempt++) {
    const port = wanted ?? await freePort()
    writeFileSync(join(dir, 'nginx.conf'), mainConfig(config(port)))
    const guarded = await startGuarded([server.command, '-p', dir, '-c', 'nginx.conf', '-e', 'stderr'],
      { env: programEnvironment(server.libraries), stopSignal: 'TERM', cwd: dir, ...(logFile !== undefined && { logFile }) })
    try {
      await listens(dir, guarded)
      return { port, guarded }
    } catch (error) {
      await guarded.stop()
      const taken = /Address already in use/.test(guarded.output())
      if (taken && wanted === undefined && attempt < 5) continue
      throw taken ? new LocalError(`Port ${port} for nginx is taken.`) : error
    }
  }
}

// One process: as root it would else give its workers to a user who may not enter our folder, and leave them behind if it is killed.
function mainConfig (http: string): string {
  return `daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
${http}
}
`
}

// nginx writes its process number when it listens on all its ports, and tells nobody: so we look, every 5 ms, for at most 30 s.
async function listens (dir: string, guarded: Guarded): Promise<void> {
  const deadline = Date.now() + 30_000
  while (guarded.exitCode() === undefined && Date.now() < deadline) {
    if (writtenPid(join(dir, 'nginx.pid')) === guarded.pid) return
    await delay(5)
  }
  const code = guarded.exitCode()
  throw new LocalError(`nginx ${code === undefined ? 'did not listen within 30 s' : `ended with code ${code} before it listened`}:\n${lastLines(guarded.output())}`)
}

function writtenPid (file: string): number {
  try {
    return Number(readFileSync(file, 'utf8'))
  } catch {
    return NaN
  }
}
