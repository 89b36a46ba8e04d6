import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { isAlive } from './leftover.ts'

const execute = promisify(execFile)

/** Runs apt-get on lists that were just fetched and resolves with what it prints. */
export type Apt = (...args: string[]) => Promise<string>

export interface UnpackPackagesOptions {
  /** An empty folder for what is needed on the way; whoever made it removes it. */
  work: string
  /** Where the packages' files go. */
  files: string
  /** PATH, by which apt-get and dpkg-deb are found. */
  path: string
  signal?: AbortSignal | undefined
}

/**
 * Downloads packages of the distribution and unpacks them, without installing them: needs neither root nor a daemon. Throws when
 * apt-get or dpkg-deb is missing or fails.
 *
 * @param choose names the packages.
 */
export async function unpackPackages ({ work, files, path, signal }: UnpackPackagesOptions, choose: (apt: Apt) => Promise<string[]>): Promise<void> {
  const options = { cwd: work, env: { ...process.env, PATH: path, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' }, ...signal !== undefined && { signal } }
  // lists and cache of our own: those of the system may be absent (slim images), stale, or writable by root only
  const own = ['-qq', '-o', `Dir::State::lists=${work}/lists`, '-o', `Dir::Cache=${work}/cache`]
  if (process.getuid?.() === 0) own.push('-o', 'APT::Sandbox::User=root') // the user _apt may not enter our folder
  const apt: Apt = async (...args) => (await execute('apt-get', [...own, ...args], { ...options, maxBuffer: 2 ** 24 })).stdout
  for (const folder of [join(work, 'lists/partial'), join(work, 'cache/archives/partial'), files]) await mkdir(folder, { recursive: true })
  await apt('update')
  await apt('download', ...await choose(apt))
  for (const file of await readdir(work)) {
    if (file.endsWith('.deb')) await execute('dpkg-deb', ['-x', file, files], options)
  }
}

/** A program that the distribution packages. */
export interface PackagedProgram {
  /** Of its folder in the cache. */
  name: string
  /** For people. */
  title: string
  /** What an installation would ask for. */
  package: string
  /** The packages of Debian 12, taken when apt cannot work out the list itself. */
  known: string[]
  /** Which of the packages that apt names are unpacked. Default: all. */
  isNeeded?: (name: string) => boolean
  /** The program's path below the unpacked files. */
  command: string
  /** What is left to do with the unpacked files. */
  finish?: (files: string) => Promise<void>
}

/** A program with the libraries that it needs. */
export interface UnpackedProgram { command: string, libraries: string }

export interface UnpackOptions { cacheDir: string, path: string, signal?: AbortSignal | undefined, log?: ((line: string) => void) | undefined }

/**
 * A program out of the distribution's own packages, downloaded and unpacked into the cache, not installed: needs neither root nor a
 * daemon. Two processes may do this at once: each unpacks into a folder of its own and the first to rename it wins. Throws when apt or
 * dpkg-deb is missing or fails.
 */
export async function unpackProgram (program: PackagedProgram, options: UnpackOptions): Promise<UnpackedProgram> {
  const target = await folderOf(program, options.cacheDir)
  const cached = await contents(program, target)
  if (cached !== undefined) return cached

  await forgetAbandoned(options.cacheDir)
  await mkdir(options.cacheDir, { recursive: true })
  const work = await mkdtemp(join(options.cacheDir, `unpacking-${process.pid}-`))
  const files = join(work, 'files')
  try {
    options.log?.(`Fetching ${program.title} from the distribution (once, a few seconds)`)
    await unpackPackages({ work, files, path: options.path, signal: options.signal }, async apt => await neededPackages(apt, program))
    await program.finish?.(files)
    await rename(files, target).catch(async (error: unknown) => {
      if (await contents(program, target) === undefined) throw error // else another process was quicker: its copy is as good
    })
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  const unpacked = await contents(program, target)
  if (unpacked === undefined) throw new Error(`the packages hold no ${program.title}`)
  return unpacked
}

/** Forgets an unpacked program that does not run (the cache came from another machine, say). */
export async function forgetUnpacked (program: PackagedProgram, cacheDir: string): Promise<void> {
  await rm(await folderOf(program, cacheDir), { recursive: true, force: true })
}

// Asks apt which packages an installation would bring: other releases need other libraries than Debian 12.
async function neededPackages (apt: Apt, { package: wanted, known, isNeeded = () => true }: PackagedProgram): Promise<string[]> {
  try {
    const plan = await apt('-s', '--no-install-recommends', 'install', wanted)
    return [...new Set([wanted, ...Array.from(plan.matchAll(/^Inst (\S+)/gm), match => match[1] as string).filter(isNeeded)])]
  } catch {
    return known
  }
}

async function contents (program: PackagedProgram, dir: string): Promise<UnpackedProgram | undefined> {
  const command = join(dir, program.command)
  if (!existsSync(command)) return undefined
  const folders = await Promise.all(['usr/lib', 'lib'].map(async name => {
    const lib = join(dir, name)
    const entries = existsSync(lib) ? await readdir(lib, { withFileTypes: true }) : []
    return [lib, ...entries.filter(entry => entry.isDirectory()).map(entry => join(lib, entry.name))]
  }))
  return { command, libraries: folders.flat().join(':') }
}

async function folderOf ({ name }: PackagedProgram, cacheDir: string): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '')
  const field = (field: string) => new RegExp(`^${field}="?([\\w.-]+)`, 'm').exec(text)?.[1] ?? 'unknown'
  return join(cacheDir, `${name}-${field('ID')}-${field('VERSION_ID')}-${process.arch}`)
}

// Of a process that was killed while it unpacked.
async function forgetAbandoned (cacheDir: string): Promise<void> {
  for (const name of await readdir(cacheDir).catch(() => [])) {
    const pid = /^unpacking-(\d+)-/.exec(name)?.[1]
    if (pid !== undefined && !isAlive(Number(pid))) await rm(join(cacheDir, name), { recursive: true, force: true })
  }
}
