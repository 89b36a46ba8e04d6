import type { KeyRecord, UsageCaller, UsageOfKey, UsageRow, UsageSum } from '@keygate/contracts'
import type { OperationTarget } from '../routing/target.ts'
import { bookedName } from './booked-name.ts'
import { bookedScope, loggedUntilMs, type Booking, type Ending } from './booking.ts'

/**
 * What one fold holds at most: some 64 MiB, a row being estimated at 2 KiB and a sum or a caller at 0.4 KiB. Rows and sums beyond it are counted as
 * dropped; of callers beyond it only who they were is missing, their requests are in the sums.
 */
export interface FoldBounds { sums: number, rows: number, callers: number, callersOfKey: number }

export const foldBounds: FoldBounds = { sums: 20_000, rows: 10_000, callers: 80_000, callersOfKey: 50 }

/** Hours that one caller's counts may name in a batch (`UsageCaller`). */
const hoursOfCaller = 100

interface OfKey {
  projectId: string
  keyId: string
  lastUsed: Map<string, { secretId: string, lastUsedMs: number }>
  sums: Map<string, UsageSum>
  callers: Map<string, UsageCaller>
}

/** Where a record's requests for one operation are counted; so that nearly all of them need no look-up by name. */
interface Place { sum: UsageSum, loggedUntilMs: number }

interface OfRecord { key: OfKey, places: Map<OperationTarget, Place>, caller: UsageCaller | null }

/** What did not fit. */
export interface Dropped { requests: number, rows: number }

/**
 * Requests that have ended, summed up until they are sent: as large as the number of keys and operations in use, not as the number of
 * requests. While nothing can be sent it goes on being one.
 */
export class Fold {
  readonly #bounds: FoldBounds
  readonly #keys = new Map<string, OfKey>()
  /** A record is replaced whenever it is looked up anew, so one key may have many. */
  #records = new WeakMap<KeyRecord, OfRecord>()
  /** All sums, the first one first. */
  #order: Array<{ key: OfKey, name: string, sum: UsageSum }> = []
  #callers = 0
  #rows: UsageRow[] = []
  readonly dropped: Dropped = { requests: 0, rows: 0 }

  constructor (bounds: FoldBounds = foldBounds) { this.#bounds = bounds }

  get isEmpty (): boolean { return this.#order.length === 0 && this.#rows.length === 0 }

  add (booking: Booking, ending: Ending): void {
    const { record, target, outcome, atMs } = booking
    const of = this.#records.get(record) ?? this.#meet(record)
    const place = this.#placeOf(of, record, target, Math.floor(atMs / 60_000))
    const { sum } = place
    const hasFailed = outcome === 'admitted' && ending.status >= 500
    sum[outcome]++
    if (hasFailed) sum.upstreamErrors++
    if (outcome === 'admitted') {
      if (booking.line === null) sum.admittedLocally++
      this.#use(of.key, record.secretId, atMs)
    }
    this.#see(of, record.secretId, ending, atMs)
    if (atMs < place.loggedUntilMs) this.#write(booking, ending, sum, hasFailed)
    if (this.#order.length > this.#bounds.sums) this.#dropOldest()
  }

  /** Everything that it holds, one entry for each key. It is not to be used any more. */
  * keys (): Generator<UsageOfKey> {
    for (const { projectId, keyId, lastUsed, sums, callers } of this.#keys.values()) {
      yield { projectId, keyId, secrets: [...lastUsed.values()], sums: [...sums.values()], callers: [...callers.values()] }
    }
  }

  get rows (): readonly UsageRow[] { return this.#rows }

  #meet (record: KeyRecord): OfRecord {
    const { projectId, keyId } = record
    const name = `${projectId} ${keyId}`
    let key = this.#keys.get(name)
    if (key === undefined) this.#keys.set(name, key = { projectId, keyId, lastUsed: new Map(), sums: new Map(), callers: new Map() })
    const of: OfRecord = { key, places: new Map(), caller: null }
    this.#records.set(record, of)
    return of
  }

  #placeOf ({ key, places }: OfRecord, record: KeyRecord, target: OperationTarget, minute: number): Place {
    let place = places.get(target)
    if (place?.sum.minute === minute) return place
    const { api, operation } = target
    const names = { api: bookedName(api.name, 'api'), operation: bookedName(operation.id, 'operation'), scope: bookedName(bookedScope(record, operation.scopes), 'scope') }
    const name = `${minute}\0${names.api}\0${names.operation}\0${names.scope}`
    let sum = key.sums.get(name)
    if (sum === undefined) {
      key.sums.set(name, sum = { ...names, minute, admitted: 0, limited: 0, refused: 0, upstreamErrors: 0, admittedLocally: 0 })
      this.#order.push({ key, name, sum })
    }
    places.set(target, place = { sum, loggedUntilMs: loggedUntilMs(record.logging, operation.scopes) })
    return place
  }

  #use ({ lastUsed }: OfKey, secretId: string, atMs: number): void {
    const use = lastUsed.get(secretId)
    if (use === undefined) lastUsed.set(secretId, { secretId, lastUsedMs: atMs })
    else if (atMs > use.lastUsedMs) use.lastUsedMs = atMs
  }

  #see (of: OfRecord, secretId: string, { address, client }: Ending, atMs: number): void {
    let caller = of.caller
    if (caller === null || caller.address !== address || caller.client !== client) {
      const { callers } = of.key
      const name = `${secretId} ${address} ${client}`
      caller = callers.get(name) ?? null
      if (caller === null) {
        if (callers.size >= this.#bounds.callersOfKey || this.#callers >= this.#bounds.callers) return
        callers.set(name, caller = { address, client, secretId, lastSeenMs: atMs, counts: [] })
        this.#callers++
      }
      of.caller = caller
    }
    if (atMs > caller.lastSeenMs) caller.lastSeenMs = atMs
    const hour = Math.floor(atMs / 3_600_000)
    const { counts } = caller
    const newest = counts.at(-1)
    const count = newest?.hour === hour ? newest : counts.find(count => count.hour === hour)
    if (count !== undefined) count.count++
    else if (counts.length < hoursOfCaller) counts.push({ hour, count: 1 })
  }

  #write ({ record: { projectId, keyId, secretId }, target, outcome, code, atMs }: Booking, { status, ms, bytes, requestId, address, client }: Ending, { api, operation, scope }: UsageSum, hasFailed: boolean): void {
    this.#rows.push({
      atMs,
      requestId,
      projectId,
      keyId,
      secretId,
      api,
      operation,
      method: target.operation.method,
      scope,
      outcome: hasFailed ? 'upstream_error' : outcome,
      code,
      status,
      ms,
      bytes,
      address,
      client
    })
    if (this.#rows.length <= this.#bounds.rows) return
    const tenth = Math.ceil(this.#bounds.rows / 10) // one at a time would move the whole list each time
    this.#rows = this.#rows.slice(tenth)
    this.dropped.rows += tenth
  }

  /** A tenth of the sums goes, those that came first; a key of which nothing is left goes with them. */
  #dropOldest (): void {
    const tenth = Math.ceil(this.#bounds.sums / 10)
    for (const { key, name, sum } of this.#order.splice(0, tenth)) {
      this.dropped.requests += sum.admitted + sum.limited + sum.refused
      key.sums.delete(name)
      if (key.sums.size > 0) continue
      this.#callers -= key.callers.size
      this.#keys.delete(`${key.projectId} ${key.keyId}`)
    }
    this.#records = new WeakMap() // its places point at sums that may be gone
  }
}
