import type { KeyRecord } from '@keygate/contracts'

/** A record with what decides how long it may be used. */
export interface Entry {
  digest: string
  record: KeyRecord
  /** The connection's generation when the look-up began. */
  generation: number
  /** When the look-up began, in the order of this process's events. */
  begunAt: number
  /** The same on the monotonic clock, milliseconds. */
  begunMs: number
  /** The look-up's place in the feed of changes. */
  cursor: string
  /** When the last confirmation of it, by its look-up or by the script, began. Monotonic milliseconds. */
  confirmedMs: number
}

/** The newest record of each secret by its digest, and no more of them than fit. Which may be used is for others to say. */
export class RecordCache {
  readonly #entries = new Map<string, Entry>()
  readonly #capacity: number

  /** @param capacity most records kept; the one looked up longest ago goes first. */
  constructor (capacity: number) {
    this.#capacity = capacity
  }

  get (digest: string): Entry | undefined {
    return this.#entries.get(digest)
  }

  /** A look-up that began later may have ended earlier: what it brought stays. */
  keep (entry: Entry): void {
    const kept = this.#entries.get(entry.digest)
    if (kept !== undefined && kept.begunAt >= entry.begunAt) return
    this.#entries.delete(entry.digest)
    this.#entries.set(entry.digest, entry)
    if (this.#entries.size > this.#capacity) this.#entries.delete(this.#entries.keys().next().value as string)
  }

  /** A look-up found nothing. What one that began later has brought stays. */
  forget (digest: string, begunAt: number): void {
    const kept = this.#entries.get(digest)
    if (kept !== undefined && kept.begunAt < begunAt) this.#entries.delete(digest)
  }

  /** Forgets this record, unless a newer one has taken its place. */
  drop (entry: Entry): void {
    if (this.#entries.get(entry.digest) === entry) this.#entries.delete(entry.digest)
  }

  clear (): void { this.#entries.clear() }

  /** The oldest cursor of all, after those were forgotten that nothing has confirmed since `confirmedAfterMs`. */
  oldestCursor (confirmedAfterMs: number): string | undefined {
    let oldest: string | undefined
    for (const [digest, { cursor, confirmedMs }] of this.#entries) {
      if (confirmedMs < confirmedAfterMs) this.#entries.delete(digest)
      else if (oldest === undefined || BigInt(cursor) < BigInt(oldest)) oldest = cursor
    }
    return oldest
  }
}
