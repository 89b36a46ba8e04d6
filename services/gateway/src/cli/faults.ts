/** Faults of several kinds, each a part with its own heading; shown as they are. */
export class FaultsError extends Error {
  override readonly name = 'FaultsError'
  constructor (parts: string[]) {
    super(parts.join('\n'))
  }
}
