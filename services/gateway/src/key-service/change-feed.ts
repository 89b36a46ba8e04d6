import type { ChangesPage } from '@keygate/contracts'
import type { KeyRecord } from '@keygate/contracts'

export interface ChangeFeedOptions {
  /** `gone`: what came after the cursor is no longer kept. */
  fetch: (after: string | undefined) => Promise<ChangesPage | 'gone'>
  /** The oldest cursor of the records held; undefined when none are. */
  oldestCursor: () => string | undefined
  /** The records held can no longer be brought up to date: forget them. */
  onGone: () => void
  everyMs?: number
  /** How long it goes on after the last `keepAlive`, milliseconds. */
  lingerMs?: number
  nowMs?: () => number
}

/**
 * The versions that key-service tells while Redis cannot: the table plays the part of Redis's hash (design.md section 5).
 *
 * It asks every 400 ms, whether or not Redis is probed, and only while it is kept alive: with Redis there is nothing to ask.
 */
export class ChangeFeed {
  readonly #options: Required<ChangeFeedOptions>
  readonly #versions = new Map<string, number>()
  #after: string | undefined
  #coveredFrom: bigint | undefined
  #polledMs = -Infinity
  #until = -Infinity
  #timer: NodeJS.Timeout | undefined
  #running = false

  constructor (options: ChangeFeedOptions) {
    this.#options = { everyMs: 400, lingerMs: 5000, nowMs: () => performance.now(), ...options }
  }

  /** When the last poll that was answered began, monotonic milliseconds; -Infinity before one was. */
  get polledMs (): number { return this.#polledMs }

  get hasAnswered (): boolean { return this.#coveredFrom !== undefined }

  /** Begins to ask, or goes on for another while. */
  keepAlive (): void {
    this.#until = this.#options.nowMs() + this.#options.lingerMs
    if (this.#running) return
    this.#running = true
    this.#after = this.#options.oldestCursor()
    this.#coveredFrom = undefined
    this.#polledMs = -Infinity
    this.#versions.clear()
    this.#poll().catch(() => {})
  }

  stop (): void {
    this.#running = false
    clearTimeout(this.#timer)
  }

  /** Whether every change since the record was read has been, or will be, told to us. Before the first answer nobody can say. */
  covers (cursor: string): boolean {
    return this.#coveredFrom !== undefined && BigInt(cursor) >= this.#coveredFrom
  }

  /** A newer version than the record's was told: the record may not be used any more. */
  isBehind (record: Pick<KeyRecord, 'projectId' | 'keyId' | 'keyVersion' | 'projectVersion'>): boolean {
    return record.keyVersion < (this.#versions.get(`${record.projectId} ${record.keyId}`) ?? 0) ||
      record.projectVersion < (this.#versions.get(`${record.projectId} *`) ?? 0)
  }

  async #poll (): Promise<void> {
    const began = this.#options.nowMs()
    const from = this.#after
    const page = await this.#options.fetch(from).catch(() => undefined)
    if (!this.#running) return
    if (page === 'gone') {
      this.#options.onGone()
      this.#after = undefined
      this.#coveredFrom = undefined
      this.#versions.clear()
    } else if (page !== undefined) this.#take(page, from, began)
    const now = this.#options.nowMs()
    if (now >= this.#until) { this.stop(); return }
    this.#timer = setTimeout(() => { this.#poll().catch(() => {}) }, Math.max(0, began + this.#options.everyMs - now)).unref()
  }

  #take (page: ChangesPage, from: string | undefined, began: number): void {
    for (const { projectId, keyId, version } of page.data) {
      const name = `${projectId} ${keyId}`
      this.#versions.set(name, Math.max(version, this.#versions.get(name) ?? 0))
    }
    this.#coveredFrom ??= BigInt(from ?? page.cursor)
    this.#after = page.cursor
    this.#polledMs = began
  }
}
