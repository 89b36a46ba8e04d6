import { closeSync, openSync, writeSync } from 'node:fs'
import { UsageError } from '../cli/command.ts'
import type { IssuedKey } from './insert-keys.ts'

/** As many as a load test needs. */
const most = 1000

export interface SecretsFile { add: (keys: IssuedKey[]) => void, close: () => void }

/**
 * A file that its owner alone may read, with secrets of keys that any caller may use at once: active, without end or bound hosts.
 *
 * @throws {UsageError} it is there already, or cannot be made.
 */
export function openSecretsFile (path: string): SecretsFile {
  const file = open(path)
  let written = 0
  return {
    add: keys => {
      const usable = keys.filter(({ status, expiresAt, allowedHosts }) => status === 'active' && expiresAt === null && allowedHosts.length === 0)
      const chosen = usable.slice(0, most - written)
      written += chosen.length
      writeSync(file, chosen.map(({ secret }) => `${secret}\n`).join(''))
    },
    close: () => { closeSync(file) }
  }
}

function open (path: string): number {
  try {
    // Only a new file is sure to get the mode.
    return openSync(path, 'wx', 0o600)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UsageError(code === 'EEXIST' ? `${path} exists already: name a new file in --secrets-file.` : `${path} cannot be written (${code ?? 'unknown error'}): name another file in --secrets-file.`)
  }
}
