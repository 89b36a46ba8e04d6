import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from './root.ts'
import { writePrivate } from './write-file.ts'

/** What the launcher tells scripts, k6 and the demo about the system that runs here. Holds secrets: only its owner may read it. */
export interface LocalRun {
  keyService: string
  gateways: string[]
  upstream: string
  projectId: string
  keyId: string
  secret: string
  /** A service token with every permission. */
  operatorToken: string
  dashboard: string | null
  /** Null: there is none, and the one gateway counts alone. */
  redis: string | null
  postgres: string
  /** The path of a GET on the demo API that the demo key may call. */
  example: string
}

/** The folder with everything that a local run leaves behind; `KEYGATE_STATE` names another (tests, a second system beside the first). */
export const stateDir = process.env['KEYGATE_STATE'] || join(repoRoot, '.keygate')

/** What the last run wrote; undefined when there was none or the file is not what a launcher writes. It may have ended since. */
export function readLocalRun (dir = stateDir): LocalRun | undefined {
  try {
    const run = JSON.parse(readFileSync(join(dir, 'local.json'), 'utf8')) as Partial<LocalRun>
    const texts = [run.keyService, run.upstream, run.projectId, run.keyId, run.secret, run.operatorToken, run.redis ?? '', run.postgres, run.example]
    return texts.every(text => typeof text === 'string') && Array.isArray(run.gateways) ? run as LocalRun : undefined
  } catch {
    return undefined
  }
}

export function writeLocalRun (run: LocalRun, dir = stateDir): void {
  writePrivate(join(dir, 'local.json'), `${JSON.stringify(run, null, 2)}\n`)
}
