import { findProgram, type FindOptions, type Program } from './find-program.ts'
import { LocalError } from './local-error.ts'
import { redisPackages } from './redis-packages.ts'

export type RedisServer = Program

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
  return await findProgram({
    what: 'Redis or Valkey server program',
    variable: 'REDIS_SERVER',
    names: ['redis-server', 'valkey-server'],
    packaged: redisPackages,
    args: ['--version'],
    judge,
    none: tried => new NoRedisServer(tried)
  }, options)
}

function judge (said: string): string {
  const major = /v=(\d+)/.exec(said)?.[1]
  if (major === undefined) throw new Error(`does not look like a Redis server (--version says "${said.trim().slice(0, 80)}")`)
  if (Number(major) < oldestMajor) throw new Error(`is version ${major}, too old`)
  return said.split(' sha=')[0]?.trim() ?? ''
}
