import { runCommandLine } from './cli/run.ts'
import { seed } from './seed/command.ts'
import { localEnvironment } from './seed/local-run.ts'
import { seedUsageCommand } from './seed/usage-command.ts'

const { DATABASE_URL: url, DATABASE_URL_FILE: file, KEYGATE_STATE: state, INIT_CWD: calledFrom } = process.env

// npm has gone into this package's folder, but paths are meant from where it was called.
if (calledFrom !== undefined) process.chdir(calledFrom)

/** `npm run seed`, and `npm run seed -- usage`: in the environment of the service or, when that names no database, of the system that `npm start` runs here. */
const surroundings = url === undefined && file === undefined
  ? { env: localEnvironment(state) ?? process.env, hint: 'Without DATABASE_URL this fills the system that `npm start` runs here: start that, and run this beside it.' }
  : { env: process.env }

process.exitCode = await runCommandLine([seedUsageCommand, seed], ['seed', ...process.argv.slice(2)], { ...surroundings, out: process.stdout, err: process.stderr })
