import type { UsageLine } from '@keygate/contracts'

/** A line that goes on being counted: what it is a snapshot of is `UsageLine`. */
export interface OpenLine {
  readonly projectId: string
  readonly hour: number
  admitted: number
  finished: number
  unanswered: number
}

interface Kept extends OpenLine {
  /** No batch has told it yet as it is. */
  isChanged: boolean
  /** When it was told last because it had changed, and how long after that it is told again, whole minutes. */
  toldAt: number
  repeatAfter: number
}

/** As long as the script's own counts live (`kg:{...}:admitted:<minute>`). */
const keptHours = 48

/**
 * The running totals of this boot. They are what a lost batch is found by: the next one that names the line shows more finished than
 * has arrived. Since the last batches of an hour may be the lost ones, a line is told again 1, 2, 4, 8 ... minutes after its last change.
 */
export class Ledger {
  readonly #projects = new Map<string, Kept[]>()
  #changed: Kept[] = []
  readonly #due = new Set<Kept>()
  #sweptAt = 0

  /** The line of a project's hour, to be counted on; whoever counts says so by `changed`. */
  lineOf (projectId: string, hour: number): OpenLine {
    let lines = this.#projects.get(projectId)
    if (lines === undefined) this.#projects.set(projectId, lines = [])
    const newest = lines.at(-1)
    if (newest?.hour === hour) return newest
    let line = lines.find(line => line.hour === hour)
    if (line === undefined) lines.push(line = { projectId, hour, admitted: 0, finished: 0, unanswered: 0, isChanged: false, toldAt: 0, repeatAfter: 1 })
    return line
  }

  changed (line: OpenLine): void {
    const kept = line as Kept
    if (kept.isChanged) return
    kept.isChanged = true
    this.#changed.push(kept)
  }

  /** Whether something has changed that no batch has told yet, or something is to be told again. */
  hasNews (nowMinute: number): boolean {
    this.#sweep(nowMinute)
    return this.#changed.length > 0 || this.#due.size > 0
  }

  /** What the next batch tells. */
  take (nowMinute: number): UsageLine[] {
    this.#sweep(nowMinute)
    const [changed, repeated] = [this.#changed, [...this.#due].filter(line => !line.isChanged)]
    this.#changed = []
    this.#due.clear()
    for (const line of changed) {
      line.isChanged = false
      line.toldAt = nowMinute
      line.repeatAfter = 1
    }
    return [...changed, ...repeated].map(toTell)
  }

  /** Every line that is kept: the last word of this boot. */
  takeAll (nowMinute: number): UsageLine[] {
    this.take(nowMinute)
    return [...this.#projects.values()].flat().map(toTell)
  }

  /** Once a minute: forgets what is too old to be compared with anything, and finds what is due again. */
  #sweep (nowMinute: number): void {
    if (nowMinute === this.#sweptAt) return
    this.#sweptAt = nowMinute
    for (const [projectId, lines] of this.#projects) {
      const kept = lines.filter(line => line.isChanged || line.admitted > line.finished || line.hour > nowMinute / 60 - keptHours)
      if (kept.length === 0) this.#projects.delete(projectId)
      else if (kept.length < lines.length) this.#projects.set(projectId, kept)
      for (const line of kept) {
        if (line.isChanged || line.toldAt + line.repeatAfter > nowMinute) continue
        while (line.toldAt + line.repeatAfter <= nowMinute) line.repeatAfter *= 2
        this.#due.add(line)
      }
    }
  }
}

function toTell ({ projectId, hour, admitted, finished, unanswered }: OpenLine): UsageLine {
  return { projectId, hour, admitted, finished, unanswered }
}
