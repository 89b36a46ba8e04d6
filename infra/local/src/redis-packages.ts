import { symlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { PackagedProgram } from './debian-packages.ts'

/** The Redis server in the distribution's packages. `redis-tools` is enough, its `redis-check-rdb` is the server under another name. */
export const redisPackages: PackagedProgram = {
  name: 'redis',
  title: 'Redis',
  package: 'redis-tools',
  // What Debian 12 needs besides the C library.
  known: ['redis-tools', 'libjemalloc2', 'liblzf1', 'liblua5.1-0', 'libatomic1'],
  command: 'usr/bin/redis-server',
  finish: async files => { await symlink('redis-check-rdb', join(files, 'usr/bin/redis-server')) }
}
