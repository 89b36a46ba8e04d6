import type { ChangeContext } from '../audit/audit-log.ts'
import type { Config } from '../config.ts'
import type { Database } from '../db/database.ts'

/** Where text goes. */
export type Output = NodeJS.WritableStream & { isTTY?: boolean }

/** What a command works with. */
export interface Tools {
  config: Config
  database: Database
  /** Who stands in the audit trail, and one request id for all of this call. */
  context: ChangeContext
  /** A line of the result, on standard output. */
  print: (line: string) => void
  /** Where progress and remarks go: standard error. */
  err: Output
}

export interface Option {
  type: 'boolean' | 'string'
  /** What stands behind the option in the help, such as `<email>`. */
  placeholder?: string
  summary: string
}

export interface Input {
  /** By the names that the command gives its arguments: all are there. */
  args: Record<string, string>
  /** Only those that were given. */
  options: Record<string, string | boolean | undefined>
}

/** One thing that the command line can do. Add it to the table of contents in `cli.ts`. */
export interface Command {
  /** One word, or two that belong together: `secrets rewrap`. */
  name: string
  summary: string
  /** What must follow the name, in this order. */
  args?: string[]
  options?: Record<string, Option>
  /** @returns the exit code. Whatever it throws is said in one sentence. */
  run: (tools: Tools, input: Input) => Promise<number>
}

/** The call itself cannot be understood: exit code 2, and where to look. */
export class UsageError extends Error {}
