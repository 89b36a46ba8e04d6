/** A failure that was foreseen: its message alone tells the user what to do, a stack would only hide it. */
export class LocalError extends Error {
  override name = 'LocalError'
}

/** The message of anything that was thrown. */
export function messageOf (error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
