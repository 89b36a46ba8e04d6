import type { PackagedProgram } from './debian-packages.ts'
import { findProgram, type FindOptions, type Program } from './find-program.ts'
import { LocalError } from './local-error.ts'

// Before it there is no -e, and a server of another user's complains about the system's log.
const oldest = [1, 20] as const

const howToInstallNginx = `  Debian, Ubuntu   sudo apt-get install -y nginx
  macOS            brew install nginx
or set NGINX to the path of a server program.`

const packaged: PackagedProgram = {
  name: 'nginx',
  title: 'nginx',
  package: 'nginx',
  known: ['nginx', 'libpcre2-8-0', 'libssl3', 'libcrypt1', 'zlib1g'],
  // What starts it as the system's server is not needed here.
  isNeeded: name => /^(?:nginx|lib|zlib)/.test(name) && name !== 'nginx-common',
  command: 'usr/sbin/nginx'
}

/**
 * The nginx of this machine: `NGINX` (a path), else `nginx` on PATH or where servers of the system are, else the distribution's own
 * package unpacked into `.keygate/cache`. It has `auth_request`. Throws a `LocalError` that says what was tried and what to install.
 */
export async function findNginx (options: FindOptions = {}): Promise<Program> {
  return await findProgram({
    what: 'server program of nginx',
    variable: 'NGINX',
    names: ['nginx'],
    folders: ['/usr/sbin', '/usr/local/sbin'],
    packaged,
    args: ['-V'],
    judge,
    none: tried => new LocalError([`Keygate's tests need an nginx, version ${oldest.join('.')} or newer, and found none:`, ...tried.map(line => `  - ${line}`), 'Install one:', howToInstallNginx].join('\n'))
  }, options)
}

function judge (said: string): string {
  const [, version = '', major, minor] = /^nginx version: (\S+\/(\d+)\.(\d+)\S*)/m.exec(said) ?? []
  if (version === '') throw new Error(`does not look like nginx (-V says "${said.trim().slice(0, 80)}")`)
  if (Number(major) < oldest[0] || (Number(major) === oldest[0] && Number(minor) < oldest[1])) throw new Error(`is ${version}, too old`)
  if (!said.includes('--with-http_auth_request_module')) throw new Error('was built without http_auth_request_module')
  return version
}
