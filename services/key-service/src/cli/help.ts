import type { Command, Option } from './command.ts'

const program = 'node dist/cli.js'

export function helpForAll (commands: Command[]): string {
  return [
    `Usage: ${program} <command> [options]`,
    '',
    'Works on the database of key-service, with the environment of the service.',
    '',
    ...columns(commands.map(command => [call(command), command.summary])),
    '',
    `${program} <command> --help says more of one. Exit codes: 0 done, 1 failed, 2 not understood, 78 the settings have faults.`
  ].join('\n')
}

export function helpFor (command: Command): string {
  const options: Record<string, Option> = { ...command.options, help: { type: 'boolean', summary: 'this text' } }
  return [
    `Usage: ${program} ${call(command)}${command.options === undefined ? '' : ' [options]'}`,
    '',
    command.summary,
    '',
    ...columns(Object.entries(options).map(([name, { placeholder, summary }]) => [`--${name}${placeholder === undefined ? '' : ` ${placeholder}`}`, summary]))
  ].join('\n')
}

export function hint (command?: Command): string {
  return `See: ${program}${command === undefined ? '' : ` ${command.name}`} --help`
}

function call ({ name, args = [] }: Command): string {
  return [name, ...args.map(arg => `<${arg}>`)].join(' ')
}

/** Two columns, each line indented. */
export function columns (rows: Array<readonly [string, string]>): string[] {
  const width = Math.max(...rows.map(([left]) => left.length))
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`)
}
