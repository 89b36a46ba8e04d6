import { parseArgs } from 'node:util'
import { UsageError, type Command, type Input } from './command.ts'
import { helpFor, helpForAll, hint } from './help.ts'

export type Call = { help: string } | { command: Command, input: Input }

/**
 * What is asked for.
 *
 * @throws {UsageError} no such command or option, or an argument too many or too few.
 */
export function readCall (commands: Command[], argv: string[]): Call {
  const command = commands.find(({ name }) => name.split(' ').every((word, i) => argv[i] === word))
  if (command === undefined) return withoutCommand(commands, argv)
  const words = command.name.split(' ').length
  const { values: { help, ...options }, positionals } = parse(command, argv.slice(words))
  if (help === true) return { help: helpFor(command) }
  const { args: names = [] } = command
  const missing = names[positionals.length]
  if (missing !== undefined) throw new UsageError(`"${command.name}" wants <${missing}>.\n${hint(command)}`)
  if (positionals.length > names.length) throw new UsageError(`"${command.name}" takes ${names.length === 0 ? 'no argument' : `no argument after <${names.join('> <')}>`}, but there is ${JSON.stringify(positionals[names.length])}.\n${hint(command)}`)
  return { command, input: { args: Object.fromEntries(names.map((name, i) => [name, positionals[i] as string])), options } }
}

function withoutCommand (commands: Command[], argv: string[]): Call {
  if (argv.includes('--help')) return { help: helpForAll(commands) }
  const [first] = argv
  if (first === undefined) throw new UsageError(helpForAll(commands))
  const family = commands.filter(({ name }) => name.startsWith(`${first} `)).map(({ name }) => `"${name}"`)
  throw new UsageError(family.length > 0
    ? `"${first}" wants another word: ${family.join(', ')}.\n${hint()}`
    : `There is no command ${JSON.stringify(argv.filter(word => !word.startsWith('-')).slice(0, 2).join(' ') || first)}.\n${hint()}`)
}

function parse (command: Command, args: string[]) {
  const options = Object.fromEntries(Object.entries(command.options ?? {}).map(([name, { type }]) => [name, { type }]))
  try {
    return parseArgs({ args, options: { ...options, help: { type: 'boolean' } }, allowPositionals: true })
  } catch (error) {
    // Of its sentences the first one; what follows explains parseArgs.
    throw new UsageError(`${(error as Error).message.split('. ')[0]?.replace(/\.$/, '')}.\n${hint(command)}`)
  }
}
