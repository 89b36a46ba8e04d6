import { generateId } from '@keygate/api-key'
import { ConfigError, StartError, type Environment } from '@keygate/service-kit'
import { readConfig } from '../config.ts'
import { openDatabase } from '../db/database.ts'
import { codeOf, isUnavailable } from '../db/failures.ts'
import { reasonOf } from '../db/reason.ts'
import { waitForDatabase } from '../db/wait.ts'
import { readCall } from './arguments.ts'
import { UsageError, type Command, type Input, type Output } from './command.ts'

/** Where a call comes from and what it says: the process, and nothing else of it. */
export interface Surroundings {
  env: Environment
  out: Output
  err: Output
  /** What else to do, said when the settings have faults or the database does not answer. */
  hint?: string
}

/** Whoever may run this on the host is trusted with everything; the trail says that it was done there. */
const actor = { type: 'host', id: 'command-line', name: 'command-line' } as const

/** Nobody waits for an answer here, and a statement may have many rows to go through; in milliseconds. */
const timeoutMs = 30_000

/** Runs one command; never rejects. Returns the exit code. */
export async function runCommandLine (commands: Command[], argv: string[], surroundings: Surroundings): Promise<number> {
  const { out, err, hint } = surroundings
  try {
    const call = readCall(commands, argv)
    if ('command' in call) return await runCommand(call.command, call.input, surroundings)
    out.write(`${call.help}\n`)
    return 0
  } catch (error) {
    err.write(`${explain(error as Error)}\n`)
    if (hint !== undefined && (error instanceof ConfigError || error instanceof StartError)) err.write(`${hint}\n`)
    return error instanceof UsageError ? 2 : error instanceof ConfigError ? 78 : 1
  }
}

async function runCommand (command: Command, input: Input, { env, out, err }: Surroundings): Promise<number> {
  const { config, warnings } = readConfig(env)
  for (const warning of warnings) err.write(`${warning}\n`)
  const database = openDatabase(config.databaseUrl, { timeoutMs, applicationName: 'keygate-command-line' })
  try {
    await waitForDatabase(database, { patienceMs: 0, onWait: () => {} })
    const print = (line: string): void => { out.write(`${line}\n`) }
    return await command.run({ config, database, context: { actor, requestId: generateId('cmd') }, print, err }, input)
  } finally {
    await database.close()
  }
}

/** PostgreSQL's words for a table or a column that is not there. */
const statesOfOldSchema = ['42P01', '42703']

function explain (error: Error): string {
  if (statesOfOldSchema.includes(codeOf(error))) return 'The database does not have the schema of this version: start key-service once, which makes it.'
  if (isUnavailable(error)) return `PostgreSQL could not go on: ${reasonOf(error)}. Make sure that it runs, then run this again.`
  return reasonOf(error)
}
