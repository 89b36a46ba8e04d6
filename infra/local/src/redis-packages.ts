import { mkdir, mkdtemp, readFile, readdir, rename, rm, symlink } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { unpackPackages, type Apt } from './debian-packages.ts'
import { isAlive } from './leftover.ts'

/** A server program with the libraries that it needs. */
export interface UnpackedRedis { command: string, libraries: string }

export interface UnpackOptions { cacheDir: string, path: string, signal?: AbortSignal | undefined, log?: ((line: string) => void) | undefined }

// What Debian 12 needs besides the C library; used when apt cannot work out the list itself.
const knownPackages = ['redis-tools', 'libjemalloc2', 'liblzf1', 'liblua5.1-0', 'libatomic1']

/**
 * The Redis server out of the distribution's own packages, downloaded and unpacked into the cache, not installed: needs neither
 * root nor a daemon. `redis-tools` is enough, its `redis-check-rdb` is the server under another name. Two processes may do this at
 * once: each unpacks into a folder of its own and the first to rename it wins. Throws when apt or dpkg-deb is missing or fails.
 */
export async function unpackRedis (options: UnpackOptions): Promise<UnpackedRedis> {
  const target = join(options.cacheDir, `redis-${await distribution()}-${process.arch}`)
  const cached = await contents(target)
  if (cached !== undefined) return cached

  await forgetAbandoned(options.cacheDir)
  await mkdir(options.cacheDir, { recursive: true })
  const work = await mkdtemp(join(options.cacheDir, `unpacking-${process.pid}-`))
  const files = join(work, 'files')
  try {
    options.log?.('Fetching Redis from the distribution (once, a few seconds)')
    await unpackPackages({ work, files, path: options.path, signal: options.signal }, neededPackages)
    await symlink('redis-check-rdb', join(files, 'usr/bin/redis-server'))
    await rename(files, target).catch(async (error: unknown) => {
      if (await contents(target) === undefined) throw error // else another process was quicker: its copy is as good
    })
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  const unpacked = await contents(target)
  if (unpacked === undefined) throw new Error('the packages hold no Redis server')
  return unpacked
}

/** Forgets an unpacked server that does not run (the cache came from another machine, say). */
export async function forgetUnpackedRedis (cacheDir: string): Promise<void> {
  await rm(join(cacheDir, `redis-${await distribution()}-${process.arch}`), { recursive: true, force: true })
}

// Asks apt which packages an installation would bring: other releases need other libraries than Debian 12.
async function neededPackages (apt: Apt): Promise<string[]> {
  try {
    const plan = await apt('-s', '--no-install-recommends', 'install', 'redis-tools')
    return [...new Set(['redis-tools', ...Array.from(plan.matchAll(/^Inst (\S+)/gm), match => match[1] as string)])]
  } catch {
    return knownPackages
  }
}

async function contents (dir: string): Promise<UnpackedRedis | undefined> {
  const command = join(dir, 'usr/bin/redis-server')
  if (!existsSync(command)) return undefined
  const lib = join(dir, 'usr/lib')
  const folders = existsSync(lib) ? await readdir(lib, { withFileTypes: true }) : []
  return { command, libraries: [lib, ...folders.filter(entry => entry.isDirectory()).map(entry => join(lib, entry.name))].join(':') }
}

async function distribution (): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '')
  const field = (name: string) => new RegExp(`^${name}="?([\\w.-]+)`, 'm').exec(text)?.[1] ?? 'unknown'
  return `${field('ID')}-${field('VERSION_ID')}`
}

// Of a process that was killed while it unpacked.
async function forgetAbandoned (cacheDir: string): Promise<void> {
  for (const name of await readdir(cacheDir).catch(() => [])) {
    const pid = /^unpacking-(\d+)-/.exec(name)?.[1]
    if (pid !== undefined && !isAlive(Number(pid))) await rm(join(cacheDir, name), { recursive: true, force: true })
  }
}
