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
 * @throws {ConfigError} with ALL faults at once, so that a broken deployment is mended in one go.
 * @returns the frozen settings, and a warning per unknown `KEYGATE_*` variable with the nearest known name.
 */
export function loadConfig<S extends TObject> (schema: S, env: Environment): { config: Readonly<Static<S>>, warnings: string[] } {
  const faults: string[] = []
  const values: Record<string, string> = {}
  const variables = schema.properties as Record<string, VariableSchema>
  for (const [name, variable] of Object.entries(variables)) {
    const value = readVariable(name, variable, env, faults)
    if (value !== undefined) values[name] = value
  }
  const ajv = new Ajv({ coerceTypes: true, useDefaults: true, allErrors: true, strict: false })
  if (!ajv.validate(schema, values)) {
    const named = new Set(faults.map(fault => fault.split(' ')[0]))
    for (const error of ajv.errors ?? []) {
      const fault = describe(error, variables, values)
      if (!named.has(fault.split(' ')[0])) faults.push(fault)
    }
  }
  if (faults.length > 0) throw new ConfigError([...new Set(faults)])
  return { config: Object.freeze(values) as Readonly<Static<S>>, warnings: unknownVariables(variables, env) }
}

function readVariable (name: string, variable: VariableSchema, env: Environment, faults: string[]): string | undefined {
  const direct = env[name] === '' ? undefined : env[name]
  const file = variable.secret === true ? env[`${name}_FILE`] : undefined
  if (file === undefined || file === '') return direct
  if (direct !== undefined) {
    faults.push(`${name} and ${name}_FILE are both set: keep one of them`)
    return undefined
  }
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    faults.push(`${name}_FILE names ${file}, which cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`)
    return undefined
  }
}

function describe (error: ErrorObject, variables: Record<string, VariableSchema>, values: Record<string, string>): string {
  const name = error.keyword === 'required' ? String(error.params['missingProperty']) : error.instancePath.slice(1)
  const variable = variables[name]
  const wanted = variable?.description === undefined ? '' : `: ${variable.description}`
  if (error.keyword === 'required') return `${name} is missing${wanted}${variable?.secret === true ? ` (or name a file in ${name}_FILE)` : ''}`
  const shown = variable?.secret === true ? 'its value' : JSON.stringify(values[name])
  return `${name} ${error.message ?? 'is not acceptable'}, but is ${shown}${wanted}`
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
