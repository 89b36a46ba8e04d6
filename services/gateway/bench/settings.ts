import { resolve } from 'node:path'

/** What a run does, from the variables of its environment. */
export interface Settings {
  /** Measured rounds; one more before them warms up. */
  rounds: number
  /** Of load, per system and round. */
  seconds: number
  /** Ids of what is measured; undefined: everything. */
  only: Set<string> | undefined
  /** Where the systems leave their CPU profiles; undefined: none are made. */
  profiles: string | undefined
}

/** @throws {Error} that says what is wrong with a variable. */
export function readSettings (env: NodeJS.ProcessEnv, ids: readonly string[]): Settings {
  const only = env['KEYGATE_BENCH_ONLY']?.split(',').map(id => id.trim()).filter(id => id !== '')
  const unknown = only?.filter(id => !ids.includes(id)) ?? []
  if (unknown.length > 0) throw new Error(`KEYGATE_BENCH_ONLY names ${unknown.join(', ')}; there is ${ids.join(', ')}`)
  const profiles = env['KEYGATE_BENCH_CPU_PROF']
  return {
    rounds: positive(env, 'KEYGATE_BENCH_ROUNDS', 5),
    seconds: positive(env, 'KEYGATE_BENCH_SECONDS', 4),
    only: only === undefined || only.length === 0 ? undefined : new Set(only),
    // npm runs the script in the workspace's folder; the caller meant his own.
    profiles: profiles === undefined || profiles === '' ? undefined : resolve(env['INIT_CWD'] ?? '.', profiles)
  }
}

function positive (env: NodeJS.ProcessEnv, name: string, otherwise: number): number {
  const text = env[name]
  if (text === undefined || text === '') return otherwise
  const value = Number(text)
  if (!Number.isFinite(value) || value <= 0) throw new Error(`${name} must be a number above 0, not ${text}`)
  return value
}
