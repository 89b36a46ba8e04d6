import { chainOf, hashOf, type ChainedEvent, type End } from './chain.ts'

/** An event with the hash that stands beside it. */
export interface StoredEvent extends ChainedEvent { hash: string | null }

/** Where a chain is not what was written, and how; `seq` is the first event concerned. */
export type Break =
  | { fault: 'changed' | 'put-in' | 'beyond-head' | 'head-differs' | 'head-missing' | 'not-as-kept', seq: number }
  /** `last`: the last one that is missing. `says`: who knows that there was such an event. */
  | { fault: 'missing', seq: number, last: number, says: 'next' | 'head' | 'kept' }
  | { fault: 'unnumbered', seq: null, count: number }

/** Takes the next event of a chain, in the order of `seq`: the new end, or why the chain breaks here. */
export function follow (end: End, event: StoredEvent): End | Break {
  const seq = end.seq + 1
  if (event.seq > seq) return { fault: 'missing', seq, last: event.seq - 1, says: 'next' }
  if (event.seq < seq) return { fault: 'put-in', seq: event.seq }
  if (event.chain !== chainOf(event.projectId) || event.hash !== hashOf(end.hash, event)) return { fault: 'changed', seq }
  return { seq, hash: event.hash }
}

/** Compares where the events end with the head row, which is of the same moment. */
export function compareWithHead (end: End, head: End | null): Break | undefined {
  if (head === null) return { fault: 'head-missing', seq: end.seq }
  if (head.seq > end.seq) return { fault: 'missing', seq: end.seq + 1, last: head.seq, says: 'head' }
  if (head.seq < end.seq) return { fault: 'beyond-head', seq: head.seq + 1 }
  return head.hash === end.hash ? undefined : { fault: 'head-differs', seq: end.seq }
}

/** A break as a sentence that says what is certain, and between what it cannot decide. */
export function describe (found: Break): string {
  const { fault, seq } = found
  switch (fault) {
    case 'missing': return `${found.seq === found.last ? `event ${found.seq} is` : `events ${found.seq} to ${found.last} are`} missing${{ next: '', head: ` at the end: the head says ${found.last}`, kept: ` at the end: the kept head says ${found.last}` }[found.says]}`
    case 'put-in': return `event ${seq} was put in: its number has no place in the chain`
    case 'unnumbered': return `${found.count} of its events have no number: they were put in`
    case 'changed': return `event ${seq} is not what was written${found.seq === 1 ? '' : `; or event ${found.seq - 1} was rewritten together with its hash`}`
    case 'beyond-head': return `the events from ${seq} on are not known to the head: they were put in, or the head was set back`
    case 'head-differs': return `event ${seq}, the last one, was rewritten together with its hash; or the head was`
    case 'head-missing': return `its head is gone; the events end with ${seq}`
    case 'not-as-kept': return `event ${seq} has another hash than the kept head: it, or one before it, was rewritten together with all that follow`
  }
}
