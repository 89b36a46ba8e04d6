import { execFile } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { LocalError, messageOf } from './local-error.ts'
import { forgetUnpackedRedis, unpackRedis, type UnpackedRedis } from './redis-packages.ts'
import { repoRoot } from './root.ts'

const execute = promisify(execFile)

/** A Redis (or Valkey) server program that was seen to run here. */
export interface RedisServer {
  command: string
  /** Where its libraries are, when they are not the system's. */
  libraries?: string
  /** Such as `Redis server v=7.0.15`. */
  version: string
}

export interface FindOptions {
  /** Where `PATH` and `REDIS_SERVER` are read. */
  env?: NodeJS.ProcessEnv
  /** Where packages are unpacked. Default: `KEYGATE_CACHE`, else `.keygate/cache` in the clone. */
  cacheDir?: string
  signal?: AbortSignal
  /** Told before a step that takes seconds. */
  log?: (line: string) => void
}

// Redis refuses scripts that begin with "#!lua" before this version, and our script does.
const oldestMajor = 7

/** For a person: how to get a Redis, whatever the system. */
export const howToInstallRedis = `  Debian, Ubuntu   sudo apt-get install -y redis-server
  macOS            brew install redis
or set REDIS_SERVER to the path of a server program.`

/** This machine has no Redis that we could start. A caller may do without. */
export class NoRedisServer extends LocalError {
  /** One line for each place that was looked at. */
  readonly tried: string[]
  constructor (tried: string[]) {
    super([`Keygate needs a Redis (or Valkey) server, version ${oldestMajor} or newer, and found none:`, ...tried.map(line => `  - ${line}`), 'Install one:', howToInstallRedis].join('\n'))
    this.tried = tried
  }
}

/**
 * The Redis server of this machine: `REDIS_SERVER` (a path), else `redis-server` or `valkey-server` on PATH, else the
 * distribution's own packages unpacked into `.keygate/cache`. Throws `NoRedisServer`, which says what was tried and what to
 * install, and another `LocalError` when the one that `REDIS_SERVER` names cannot be used.
 */
export async function findRedisServer (options: FindOptions = {}): Promise<RedisServer> {
  const env = options.env ?? process.env
  const path = env['PATH'] ?? ''
  const tried: string[] = []
  const chosen = env['REDIS_SERVER']
  if (chosen !== undefined && chosen !== '') {
    try {
      return await probe(chosen)
    } catch (error) {
      throw new LocalError(`REDIS_SERVER names ${chosen}, which cannot be used: ${messageOf(error)}\nPoint it at a Redis or Valkey server program, or unset it.`)
    }
  }
  for (const name of ['redis-server', 'valkey-server']) {
    const command = path.split(delimiter).map(dir => join(dir, name)).find(isExecutable)
    if (command === undefined) tried.push(`${name}: not on PATH`)
    else {
      try {
        return await probe(command)
      } catch (error) { tried.push(`${command}: ${messageOf(error)}`) }
    }
  }
  try {
    return await unpacked(options, path)
  } catch (error) {
    if (options.signal?.aborted === true) throw error
    tried.push(`the distribution's packages: ${messageOf(error).trim().split('\n').slice(0, 3).join(' ')}`)
  }
  throw new NoRedisServer(tried)
}

async function unpacked (options: FindOptions, path: string): Promise<RedisServer> {
  const cacheDir = options.cacheDir ?? (process.env['KEYGATE_CACHE'] || join(repoRoot, '.keygate/cache'))
  const unpack = () => unpackRedis({ cacheDir, path, signal: options.signal, log: options.log })
  const check = async ({ command, libraries }: UnpackedRedis) => await probe(command, libraries)
  const first = await unpack()
  try {
    return await check(first)
  } catch {
    await forgetUnpackedRedis(cacheDir)
    return await check(await unpack())
  }
}

async function probe (command: string, libraries?: string): Promise<RedisServer> {
  const { stdout } = await execute(command, ['--version'], { env: redisEnvironment(libraries), timeout: 20_000 })
  const major = /v=(\d+)/.exec(stdout)?.[1]
  if (major === undefined) throw new Error(`does not look like a Redis server (--version says "${stdout.trim().slice(0, 80)}")`)
  if (Number(major) < oldestMajor) throw new Error(`is version ${major}, too old`)
  const version = stdout.split(' sha=')[0]?.trim() ?? ''
  return { command, version, ...(libraries !== undefined && { libraries }) }
}

/** The environment in which a server program starts. */
export function redisEnvironment (libraries?: string): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], HOME: process.env['HOME'], ...(libraries !== undefined && { LD_LIBRARY_PATH: libraries }) }
}

function isExecutable (file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
