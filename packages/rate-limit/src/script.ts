import { createHash } from 'node:crypto'
import type { RedisConnection } from './connection.ts'

type Argument = string | number

/** A Lua script as Redis knows it: by the SHA-1 of its text. */
export interface Script { text: string, sha: string }

export function defineScript (text: string): Script {
  return { text, sha: createHash('sha1').update(text).digest('hex') }
}

/**
 * Runs a script in one round trip; the text travels only when Redis does not know it (a restart, SCRIPT FLUSH).
 *
 * A script that is not known has not run, so the second attempt repeats no charge. `stillValid` is asked again before it,
 * in the same turn as the write: the connection may be another one by then.
 */
export function runScript (connection: RedisConnection, script: Script, keys: string[], args: Argument[], stillValid: () => boolean = () => true): Promise<unknown> {
  if (!stillValid()) return Promise.resolve(undefined)
  return connection.call(client => client.evalsha(script.sha, keys.length, ...keys, ...args).catch((error: Error) => {
    if (!error.message.startsWith('NOSCRIPT')) throw error
    return stillValid() ? client.eval(script.text, keys.length, ...keys, ...args) : undefined
  }))
}
