import { Variables } from '../config.ts'

interface Variable { description?: string, default?: unknown, secret?: boolean }

/** As far as text goes before it is broken. */
const width = 100

/** What can be asked of the program, and every variable that it reads, from the schema that they are read by. */
export function help (): string {
  const flags: Array<[string, string]> = [
    ['--check-config', 'reads the settings, the catalogue and the upstreams\' addresses, says what is wrong with them (exit code 78) or "ok", and ends'],
    ['--print-routes', 'prints what is enforced: method, path, scopes, who may call, policies; needs KEYGATE_APIS alone'],
    ['--help', 'prints this']
  ]
  const required = new Set<string>(Variables.required)
  const variables = Object.entries(Variables.properties as Record<string, Variable>).map(([name, variable]): [string, string] => [
    variable.secret === true ? `${name} or ${name}_FILE` : name, `${variable.description ?? ''} (${defaultOf(variable, required.has(name))})`
  ])
  return [
    'Usage: node dist/server.js [--check-config | --print-routes | --help]',
    '',
    'Without a flag it runs the gateway. SIGHUP reads the catalogue anew, SIGTERM ends it when its requests have ended.',
    '',
    ...flags.map(entry),
    '',
    'Exit codes: 0 done, 1 failed, 64 not understood, 78 the settings have faults.',
    '',
    'Variables:',
    '',
    ...variables.map(entry),
    ''
  ].join('\n')
}

function defaultOf (variable: Variable, isRequired: boolean): string {
  if (variable.default === undefined) return isRequired ? 'required' : 'not set by default'
  return variable.default === '' ? 'default: none' : `default: ${String(variable.default)}`
}

/** A name, and what it means below it. */
function entry ([name, text]: [string, string]): string {
  const lines = ['     ']
  for (const word of text.split(' ')) {
    const last = lines.at(-1) as string
    if (last.length + word.length < width) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(`      ${word}`)
  }
  return [`  ${name}`, ...lines].join('\n')
}
