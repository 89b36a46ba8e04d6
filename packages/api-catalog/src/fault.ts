import type { Located } from './source.ts'

/** A catalogue that cannot be enforced as written. `message` is made to be shown as it is. */
export class CatalogueError extends Error {
  /** Each says where (file, line, setting), what is wrong, and what to write instead. */
  readonly faults: string[]

  constructor (file: string, faults: string[]) {
    const count = faults.length === 1 ? 'a fault' : `${faults.length} faults`
    super(`${file} has ${count}:\n${faults.map(fault => `  - ${fault}`).join('\n')}`)
    this.name = 'CatalogueError'
    this.faults = faults
    // The reader is who wrote the file, not who wrote this code: even an uncaught one prints no stack.
    this.stack = this.message
  }
}

/** Collects faults instead of throwing at the first: a file is mended once, not fault by fault. */
export class Faults {
  readonly list: string[] = []

  add (at: Located, text: string): void {
    const fault = `${at.source.place(at.path)}: ${text}`
    if (!this.list.includes(fault)) this.list.push(fault)
  }

  /** Only the first of a place: what hundreds of operations inherit is one fault. */
  addFirst (at: Located, text: string): void {
    const place = `${at.source.place(at.path)}: `
    if (!this.list.some(fault => fault.startsWith(place))) this.list.push(place + text)
  }
}

/** How a wrong value is quoted in a fault: as written, cut when long. */
export function quote (value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

/** `did you mean "policies"?` for a likely slip, else the whole choice. */
export function suggest (word: string, known: readonly string[]): string {
  const near = nearest(word, known)
  if (near !== undefined) return `did you mean ${quote(near)}?`
  if (known.length === 0) return 'there is none to name.'
  const shown = known.slice(0, 20).map(quote).join(', ')
  return `known: ${shown}${known.length > 20 ? ` and ${known.length - 20} more` : ''}.`
}

function nearest (word: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map(candidate => ({ candidate, distance: editDistance(word.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)
  const best = ranked[0]
  return best !== undefined && best.distance <= Math.max(2, Math.floor(word.length / 2)) ? best.candidate : undefined
}

/** Levenshtein distance: the fewest single-character insertions, deletions and exchanges. */
function editDistance (a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const exchanged = above[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      row.push(Math.min(exchanged, above[j]! + 1, row[j - 1]! + 1))
    }
    above = row
  }
  return above[b.length]!
}
