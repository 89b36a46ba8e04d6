import { readFileSync } from 'node:fs'
import { Ajv, type ErrorObject } from 'ajv'
import type { Static, TObject, TSchema } from 'typebox'

/** Settings that cannot work. `faults` has one line per fault, each with the variable and what it wants. */
export class ConfigError extends Error {
  readonly faults: string[]
  constructor (faults: string[]) {
    super(`The configuration has ${faults.length === 1 ? 'a fault' : `${faults.length} faults`}:\n${faults.map(f => `  - ${f}`).join('\n')}`)
    this.name = 'ConfigError'
    this.faults = faults
  }
}

export type Environment = Record<string, string | undefined>
type VariableSchema = TSchema & { description?: string, secret?: boolean, default?: unknown }

/**
 * Reads the environment through a schema whose property names are the variables' names.
 *
 * A property marked `secret: true` may come from the file that `<NAME>_FILE` names (the habit of container images);
 * its value never stands in a message. An empty variable counts as not set.
 *
 * @param check judges what a schema cannot say; each fault begins with the variable's name. Of what is missing or wrong by the schema
 * it may see nothing or the text as it came.
 * @throws {ConfigError} with ALL faults at once, one per variable, so that a broken deployment is mended in one go.
 * @returns the frozen settings, and a warning per unknown `KEYGATE_*` variable with the nearest known name.
 */
export function loadConfig<S extends TObject> (schema: S, env: Environment, check: (values: Partial<Static<S>>) => string[] = () => []): { config: Readonly<Static<S>>, warnings: string[] } {
  const faults = new Map<string, string>()
  const values: Record<string, string> = {}
  const variables = schema.properties as Record<string, VariableSchema>
  for (const [name, variable] of Object.entries(variables)) {
    const value = readVariable(name, variable, env, faults)
    if (value !== undefined) values[name] = value
  }
  // The first fault of a variable stands: later ones follow from it (an unreadable file makes it missing, each choice differs from it).
  const add = (name: string, fault: string): void => { if (!faults.has(name)) faults.set(name, fault) }
  const ajv = new Ajv({ coerceTypes: true, useDefaults: true, allErrors: true, strict: false })
  if (!ajv.validate(schema, values)) {
    for (const error of ajv.errors ?? []) {
      const name = error.keyword === 'required' ? String(error.params['missingProperty']) : error.instancePath.slice(1)
      add(name, describe(name, error, variables[name], values[name]))
    }
  }
  for (const fault of check(values as Partial<Static<S>>)) add(fault.split(' ', 1)[0] as string, fault)
  if (faults.size > 0) throw new ConfigError([...faults.values()])
  return { config: Object.freeze(values) as Readonly<Static<S>>, warnings: unknownVariables(variables, env) }
}

function readVariable (name: string, variable: VariableSchema, env: Environment, faults: Map<string, string>): string | undefined {
  const direct = env[name] === '' ? undefined : env[name]
  const file = variable.secret === true ? env[`${name}_FILE`] : undefined
  if (file === undefined || file === '') return direct
  if (direct !== undefined) {
    faults.set(name, `${name} and ${name}_FILE are both set: keep one of them`)
    return undefined
  }
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    faults.set(name, `${name}_FILE names ${file}, which cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'}): give the path of a file that this user may read`)
    return undefined
  }
}

function describe (name: string, error: ErrorObject, variable: VariableSchema | undefined, value: unknown): string {
  const wanted = variable?.description === undefined ? '' : `: ${variable.description}`
  if (error.keyword === 'required') return `${name} is missing${wanted}${variable?.secret === true ? ` (or name a file in ${name}_FILE)` : ''}`
  const shown = variable?.secret === true ? '' : `, but is ${JSON.stringify(value)}`
  const choices = variable === undefined ? [] : choicesOf(variable)
  if (choices.length > 0) return `${name} must be one of ${choices.join(', ')}${shown}`
  return `${name} ${error.message ?? 'is not acceptable'}${shown}${wanted}`
}

/** The values of an `enum`, or of a union of literals. */
function choicesOf (variable: VariableSchema): unknown[] {
  const { enum: values = [], anyOf = [] } = variable as { enum?: unknown[], anyOf?: Array<{ const?: unknown }> }
  return [...values, ...anyOf.map(choice => choice.const).filter(choice => choice !== undefined)]
}

function unknownVariables (variables: Record<string, VariableSchema>, env: Environment): string[] {
  const known = Object.entries(variables).flatMap(([name, v]) => v.secret === true ? [name, `${name}_FILE`] : [name])
  return Object.keys(env)
    .filter(name => name.startsWith('KEYGATE_') && !known.includes(name))
    .map(name => `${name} is not a setting of this service; did you mean ${nearest(name, known)}?`)
}

function nearest (name: string, known: string[]): string {
  return known.map(k => ({ k, d: distance(name, k) })).sort((a, b) => a.d - b.d)[0]?.k ?? ''
}

/** Levenshtein distance, one row at a time; names are short. */
function distance (a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
