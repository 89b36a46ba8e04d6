import { parseArgs } from 'node:util'
import { CatalogueError } from '@keygate/api-catalog'
import { ConfigError, type Environment } from '@keygate/service-kit'
import { checkConfig } from './cli/check-config.ts'
import { FaultsError } from './cli/faults.ts'
import { help } from './cli/help.ts'
import { routesTable } from './cli/routes-table.ts'

/** Where a call comes from and where its words go: the process, and nothing else of it. */
export interface Surroundings {
  env: Environment
  out: NodeJS.WritableStream
  err: NodeJS.WritableStream
}

/** Exit codes of sysexits.h: the call cannot be understood, and settings that cannot work. */
const exitUsage = 64
const exitConfig = 78

const hint = 'See: node dist/server.js --help'

/**
 * Does what the command line asks for instead of serving. Never rejects.
 *
 * @returns the exit code; `null`: nothing was asked for, so the gateway is to be run.
 */
export async function runCommandLine (argv: string[], { env, out, err }: Surroundings): Promise<number | null> {
  let asked: string[]
  try {
    asked = readFlags(argv)
  } catch (error) {
    err.write(`${(error as Error).message}\n${hint}\n`)
    return exitUsage
  }
  try {
    switch (asked[0]) {
      case undefined: return null
      case 'help': out.write(help()); break
      case 'print-routes': out.write(await routesTable(env)); break
      default: out.write(await checkConfig(env, warning => { err.write(`${warning}\n`) }))
    }
    return 0
  } catch (error) {
    err.write(`${(error as Error).message}\n`)
    return error instanceof FaultsError || error instanceof ConfigError || error instanceof CatalogueError ? exitConfig : 1
  }
}

/** @throws {Error} with a sentence for who typed it. */
function readFlags (argv: string[]): string[] {
  const { tokens } = parseArgs({ args: argv, strict: false, tokens: true })
  const known = ['check-config', 'print-routes', 'help']
  const asked = tokens.filter(({ kind }) => kind !== 'option-terminator').map(token => {
    if (token.kind === 'option' && token.name === 'h') return 'help'
    if (token.kind !== 'option' || !known.includes(token.name)) throw new Error(`"${argv[token.index] ?? ''}" is not known.`)
    if (token.value !== undefined) throw new Error(`"--${token.name}" takes no value.`)
    return token.name
  })
  if (new Set(asked).size > 1) throw new Error(`${[...new Set(asked)].map(name => `"--${name}"`).join(' and ')} are asked for. Ask for one at a time.`)
  return asked
}
