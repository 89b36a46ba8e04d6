import { execFile } from 'node:child_process'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

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
