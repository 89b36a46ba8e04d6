import type { Policy } from './policy.ts'
import { emptyLog, endOf, type WindowLog } from './window.ts'

/** A log and its place in the queue of those with the same window. */
export interface Subject {
  name: string
  log: WindowLog
  /** When the log ended at its last move in the queue. */
  end: number
  queue: Queue
  before: Subject | null
  after: Subject | null
}

/** Subjects of one window in the order in which they end: each is put last when its end moves. */
class Queue {
  first: Subject | null = null
  last: Subject | null = null

  add (subject: Subject): void {
    subject.before = this.last
    subject.after = null
    if (this.last === null) this.first = subject
    else this.last.after = subject
    this.last = subject
  }

  remove ({ before, after }: Subject): void {
    if (before === null) this.first = after
    else before.after = after
    if (after === null) this.last = before
    else after.before = before
  }
}

/**
 * At most `capacity` logs. One whose window has passed makes room, the longest unused first; one that still counts never does,
 * because forgetting it would hand out its quota anew.
 */
export class Subjects {
  readonly #capacity: number
  readonly #byName = new Map<string, Subject>()
  readonly #queues = new Map<string, Queue>()

  constructor (capacity: number) {
    this.#capacity = capacity
  }

  get size (): number { return this.#byName.size }

  /** The log of this name; none if the window or algorithm has changed since. */
  find (name: string, { algorithm, windowSeconds }: Policy): Subject | undefined {
    const subject = this.#byName.get(name)
    return subject !== undefined && subject.log.algorithm === algorithm && subject.log.windowMicros === windowSeconds * 1_000_000 ? subject : undefined
  }

  /** Whether so many new logs can be added now, with those that have ended removed as needed, but none of `kept`. */
  makeRoom (count: number, time: number, kept: readonly (Subject | undefined)[]): boolean {
    for (const queue of this.#queues.values()) {
      for (let subject = queue.first; subject !== null && this.#free < count; subject = subject.after) {
        if (endOf(subject.log) > time) break
        if (!kept.includes(subject)) this.#remove(subject)
      }
    }
    return this.#free >= count
  }

  /** Adds an empty log. The caller has made room. */
  add (name: string, policy: Policy): Subject {
    const former = this.#byName.get(name)
    if (former !== undefined) this.#remove(former)
    const id = `${policy.algorithm} ${policy.windowSeconds}`
    const queue = this.#queues.get(id) ?? new Queue()
    this.#queues.set(id, queue)
    const subject = { name, log: emptyLog(policy), end: -Infinity, queue, before: null, after: null }
    this.#byName.set(name, subject)
    queue.add(subject)
    return subject
  }

  /** Keeps the order when a subject's end has moved: that of a fixed window does so only when it begins anew. */
  touch (subject: Subject): void {
    const end = endOf(subject.log)
    if (end === subject.end) return
    subject.end = end
    subject.queue.remove(subject)
    subject.queue.add(subject)
  }

  forget (name: string): void {
    const subject = this.#byName.get(name)
    if (subject !== undefined) this.#remove(subject)
  }

  /** The next moment at which a log ends and makes room. */
  nextEnd (): number {
    let next = Infinity
    for (const { first } of this.#queues.values()) if (first !== null) next = Math.min(next, endOf(first.log))
    return next
  }

  get #free (): number { return this.#capacity - this.#byName.size }

  #remove (subject: Subject): void {
    this.#byName.delete(subject.name)
    subject.queue.remove(subject)
  }
}
