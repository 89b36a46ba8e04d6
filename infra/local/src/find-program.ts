import { execFile } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { forgetUnpacked, unpackProgram, type PackagedProgram, type UnpackedProgram } from './debian-packages.ts'
import { LocalError, messageOf } from './local-error.ts'
import { repoRoot } from './root.ts'

const execute = promisify(execFile)

/** A server program that was seen to run here. */
export interface Program {
  command: string
  /** Where its libraries are, when they are not the system's. */
  libraries?: string
  /** Such as `Redis server v=7.0.15`. */
  version: string
}

export interface FindOptions {
  /** Where `PATH` and the program's own variable are read. */
  env?: NodeJS.ProcessEnv
  /** Where packages are unpacked. Default: `KEYGATE_CACHE`, else `.keygate/cache` in the clone. */
  cacheDir?: string
  signal?: AbortSignal
  /** Told before a step that takes seconds. */
  log?: (line: string) => void
}

/** What to look for. */
export interface Wanted {
  /** For people: `Redis or Valkey server program`. */
  what: string
  /** The variable that names a program, such as `REDIS_SERVER`. */
  variable: string
  /** On PATH, the first that will do. */
  names: string[]
  /** Folders that are searched after those of PATH. */
  folders?: string[]
  packaged: PackagedProgram
  /** Asks for the version. */
  args: string[]
  /** Judges what the program says of itself, standard output and error. @returns the version. @throws {Error} why it will not do. */
  judge: (said: string) => string
  /** The error when none is found; `tried` has one line for each place that was looked at. */
  none: (tried: string[]) => LocalError
}

/**
 * A program of this machine: the one that the variable names, else one on PATH, else the distribution's own package unpacked into the
 * cache. Throws `wanted.none`, and another `LocalError` when the one that the variable names cannot be used.
 */
export async function findProgram (wanted: Wanted, options: FindOptions = {}): Promise<Program> {
  const env = options.env ?? process.env
  const path = env['PATH'] ?? ''
  const tried: string[] = []
  const chosen = env[wanted.variable]
  if (chosen !== undefined && chosen !== '') {
    try {
      return await probe(wanted, chosen)
    } catch (error) {
      throw new LocalError(`${wanted.variable} names ${chosen}, which cannot be used: ${messageOf(error)}\nPoint it at a ${wanted.what}, or unset it.`)
    }
  }
  const folders = [...path.split(delimiter), ...wanted.folders ?? []]
  for (const name of wanted.names) {
    const command = folders.map(dir => join(dir, name)).find(isExecutable)
    if (command === undefined) tried.push(`${name}: not on PATH`)
    else {
      try {
        return await probe(wanted, command)
      } catch (error) { tried.push(`${command}: ${messageOf(error)}`) }
    }
  }
  try {
    return await unpacked(wanted, options, path)
  } catch (error) {
    if (options.signal?.aborted === true) throw error
    tried.push(`the distribution's packages: ${messageOf(error).trim().split('\n').slice(0, 3).join(' ')}`)
  }
  throw wanted.none(tried)
}

/** The environment in which a found program starts. */
export function programEnvironment (libraries?: string): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], HOME: process.env['HOME'], ...(libraries !== undefined && { LD_LIBRARY_PATH: libraries }) }
}

async function unpacked (wanted: Wanted, options: FindOptions, path: string): Promise<Program> {
  const cacheDir = options.cacheDir ?? (process.env['KEYGATE_CACHE'] || join(repoRoot, '.keygate/cache'))
  const unpack = () => unpackProgram(wanted.packaged, { cacheDir, path, signal: options.signal, log: options.log })
  const check = async ({ command, libraries }: UnpackedProgram) => await probe(wanted, command, libraries)
  const first = await unpack()
  try {
    return await check(first)
  } catch {
    await forgetUnpacked(wanted.packaged, cacheDir)
    return await check(await unpack())
  }
}

async function probe ({ args, judge }: Wanted, command: string, libraries?: string): Promise<Program> {
  const { stdout, stderr } = await execute(command, args, { env: programEnvironment(libraries), timeout: 20_000 })
  return { command, version: judge(stdout + stderr), ...(libraries !== undefined && { libraries }) }
}

function isExecutable (file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
