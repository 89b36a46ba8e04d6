/** One line for the person who started us. */
export function print (line = ''): void {
  process.stdout.write(`${line}\n`)
}

/** Emphasis where it can be shown: on a terminal, and not against the person's wish (https://no-color.org). */
export function bold (text: string): string {
  return process.stdout.isTTY && !process.env['NO_COLOR'] ? `\u001b[1m${text}\u001b[22m` : text
}

/** Says on stderr why nothing came of it. A stack is shown only for what nobody foresaw. */
export function printFailure (error: unknown): void {
  const foreseen = error instanceof Error && (error.name === 'LocalError' || 'syscall' in error)
  const text = error instanceof Error ? (foreseen ? error.message : error.stack ?? error.message) : String(error)
  process.stderr.write(`\n${text}\n`)
}
