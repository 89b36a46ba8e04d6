import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, realpathSync, renameSync, rmSync, rmdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { freePort } from './free-port.ts'
import { startGuarded, type Guarded } from './guard.ts'
import { awaitLeftover } from './leftover.ts'
import { LocalError, messageOf } from './local-error.ts'
import { postgresBinaries, runAs } from './postgres-binaries.ts'

const execute = promisify(execFile)

export interface PostgresOptions {
  /** Default: any free one. */
  port?: number
  /** For tests: nothing is flushed to the disk, and `stop` removes the folder. */
  ephemeral?: boolean
  logFile?: string
}

export interface Postgres {
  /** Of the database `postgres`, as its superuser, without a password: it listens on 127.0.0.1 only. */
  url: string
  port: number
  pid: number
  /** Fulfils with the exit code when the server has ended, whoever ended it. */
  ended: Promise<number>
  /** Fast shutdown: open transactions are rolled back. */
  stop: () => Promise<void>
  /** SIGKILL, as a crash; fulfils when all its processes are gone. The data stays. */
  kill: () => Promise<void>
}

const env: NodeJS.ProcessEnv = { PATH: process.env['PATH'], HOME: process.env['HOME'], LC_ALL: 'C', TZ: 'UTC' }

/** Starts a real PostgreSQL on the data in `dir` (made when there is none); it ends with this process. */
export async function startPostgres (dir: string, options: PostgresOptions = {}): Promise<Postgres> {
  const bin = postgresBinaries()
  await makeCluster(bin, dir, options)
  const data = realpathSync(dir)
  await awaitLeftover('PostgreSQL', join(data, 'postmaster.pid'), data)
  const { port, guarded } = await startOnPort(bin, data, options)
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    port,
    pid: guarded.pid,
    ended: guarded.ended,
    stop: async () => {
      await guarded.stop()
      if (options.ephemeral === true) rmSync(data, { recursive: true, force: true })
    },
    kill: guarded.kill
  }
}

// Made beside its place and renamed: a start that is killed half-way leaves nothing that looks like a database.
async function makeCluster (bin: string, dir: string, { ephemeral = false }: PostgresOptions): Promise<void> {
  if (existsSync(join(dir, 'PG_VERSION'))) return
  if (existsSync(dir) && readdirSync(dir).length > 0) throw new LocalError(`${dir} holds something that is no PostgreSQL data. Move it away.`)
  mkdirSync(dirname(dir), { recursive: true })
  const fresh = `${dir}.new-${process.pid}`
  rmSync(fresh, { recursive: true, force: true })
  mkdirSync(fresh, { mode: 0o700 })
  try {
    const { prefix, ...user } = runAs(bin, fresh, env)
    // builtin C.UTF-8 knows upper and lower case of every language and needs no locale of the system
    const [command, ...args] = [
      ...prefix, join(bin, 'initdb'), '-D', fresh, '-U', 'postgres', '--auth=trust', '--encoding=UTF8', '--locale=C',
      '--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--no-instructions', ...(ephemeral ? ['--no-sync'] : [])
    ] as [string, ...string[]]
    await execute(command, args, { env, cwd: '/', ...user })
    if (existsSync(dir)) rmdirSync(dir)
    renameSync(fresh, dir)
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true })
    if (error instanceof LocalError) throw error
    throw new LocalError(`PostgreSQL could not make its data in ${dir}: ${messageOf(error)}`)
  }
}

// A port of our own choice may be taken between the choice and the start. And the last processes of a killed server may hold its
// memory for a moment longer: PostgreSQL refuses to start beside them. Both are tried again, a few times.
async function startOnPort (bin: string, dir: string, options: PostgresOptions): Promise<{ port: number, guarded: Guarded }> {
  const { prefix, ...user } = runAs(bin, dir, env)
  const settings = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', 'timezone=UTC', 'log_timezone=UTC']
  if (options.ephemeral === true) settings.push('fsync=off', 'full_page_writes=off', 'synchronous_commit=off')
  for (let attempt = 1; ; attempt++) {
    const port = options.port ?? await freePort()
    const guarded = await startGuarded(
      [...prefix, join(bin, 'postgres'), '-D', dir, '-p', String(port), ...settings.flatMap(setting => ['-c', setting])],
      { env, cwd: dir, stopSignal: 'INT', ...user, ...(options.logFile !== undefined && { logFile: options.logFile }) }
    )
    try {
      await guarded.printed('ready to accept connections')
      return { port, guarded }
    } catch (error) {
      await guarded.stop()
      const said = guarded.output()
      const taken = /could not bind|Address already in use/.test(said)
      if (taken && options.port !== undefined) throw new LocalError(`Port ${port} for PostgreSQL is taken.`)
      if (attempt < 20 && (taken || /pre-existing shared memory/.test(said))) {
        await delay(100)
        continue
      }
      throw new LocalError(`PostgreSQL did not start on ${dir}:\n${messageOf(error)}`)
    }
  }
}
