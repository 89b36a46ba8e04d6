import { UsageBatch } from '@keygate/contracts'
import type { FastifyBaseLogger } from 'fastify'
import { Compile } from 'typebox/compile'
import type { Database } from '../db/database.ts'
import { codeOf } from '../db/failures.ts'
import type { LastUse } from '../keys/last-use.ts'
import { noteIncarnations, type IncarnationWatch } from './incarnations.ts'
import type { UsageMetrics } from './metrics.ts'
import { makePartitions, partitionOf, type Partition, type Partitioned } from './partitions.ts'
import { storeBatches } from './store.ts'
import type { Entry, UsageStream } from './stream.ts'

export interface ConsumerParts {
  database: Database
  stream: UsageStream
  lastUse: LastUse
  metrics: UsageMetrics
  incarnations: IncarnationWatch
  log: FastifyBaseLogger
  /** How long it waits when there is nothing to read, milliseconds. */
  intervalMs: number
  /** How often it looks for what other consumers have left, milliseconds. */
  takeOverEveryMs: number
}

export interface UsageConsumer {
  start: () => void
  /** Fulfils when what is being written has been. */
  stop: () => Promise<void>
}

/** `batch` is undefined when there is nothing to store: it is no batch, or has left the stream. */
interface ReadEntry { id: string, bytes: number, batch: UsageBatch | undefined }

const schema = Compile(UsageBatch)
/** Entries that are read at once; fewer, when they are large. */
const [fewest, most] = [1, 200]
const largeBytes = 2 * 1024 * 1024
/** So many waiting entries are worth a word. */
const muchBacklog = 1000
const reportEveryMs = 5000
const forgetEveryMs = 600_000
/** Far below what `lastUse` holds. */
const usesAtOnce = 2000

/**
 * Carries usage from Redis into PostgreSQL, entry by entry exactly once: an entry leaves the stream when its rows are committed, and one
 * that comes again is known by (boot, seq).
 */
export function createUsageConsumer ({ database, stream, lastUse, metrics, incarnations, log, intervalMs, takeOverEveryMs }: ConsumerParts): UsageConsumer {
  const stopping = new AbortController()
  const known = new Set<string>()
  /** Read, and not stored yet: PostgreSQL was away. */
  let held: ReadEntry[] = []
  /** Stored, and not taken off the stream yet: Redis was away. */
  let done: ReadEntry[] = []
  let count = 50
  /** Entries of one transaction. After a failure it is tried with half of them: what is too much for the database's patience, or one that it cannot take, must not hold up the rest. */
  let portion = most
  let isFailing = false
  let notedUses = 0
  let [takenOverAt, reportedAt, forgotAt] = [-Infinity, -Infinity, performance.now()]
  let catchingUp: number | undefined
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined

  /** @returns whether there may be more at once. */
  async function round (): Promise<boolean> {
    const wanted = count
    if (held.length + done.length === 0) held = (await next()).map(readEntry)
    const handled = held.length + done.length
    while (held.length > 0 && !stopping.signal.aborted) {
      const part = held.slice(0, portion)
      await storeOrHalve(part)
      done.push(...part)
      held = held.slice(part.length)
    }
    if (done.length > 0) {
      await stream.finish(done)
      adapt(done)
      done = []
    }
    await report(handled)
    return handled >= wanted
  }

  async function next (): Promise<Entry[]> {
    const now = performance.now()
    if (now - takenOverAt >= takeOverEveryMs) {
      takenOverAt = now
      const left = await stream.takeOver(count)
      if (left.length >= count) takenOverAt = -Infinity
      if (left.length > 0) return left
    }
    if (now - forgotAt >= forgetEveryMs) {
      forgotAt = now
      await stream.forgetDead()
    }
    return await stream.read(count)
  }

  async function storeOrHalve (entries: ReadEntry[]): Promise<void> {
    try {
      await storeAll(entries.map(({ batch }) => batch).filter(batch => batch !== undefined))
      portion = Math.min(most, portion * 2)
    } catch (error) {
      known.clear() // a partition may have been dropped since
      portion = Math.max(1, Math.floor(entries.length / 2))
      if (entries.length > 1 || !isDataFault(error)) throw error
      for (const entry of entries) leaveOut(entry, (error as Error).message)
    }
  }

  async function storeAll (batches: UsageBatch[]): Promise<void> {
    if (batches.length === 0) return
    await incarnations.look(batches.flatMap(({ keys }) => keys.map(({ projectId }) => projectId)), async news => { await database.run(async db => { await noteIncarnations(db, news) }) })
    const missing = partitionsOf(batches).filter(({ name }) => !known.has(name))
    if (missing.length > 0) {
      await database.transaction(async tx => { await makePartitions(tx, missing) })
      for (const { name } of missing) known.add(name)
    }
    const fresh = await database.transaction(async tx => await storeBatches(tx, batches))
    metrics.stored(fresh.length, batches.length - fresh.length)
    await noteUses(fresh)
  }

  /** Of many at once some are written before the others are noted: what does not fit is not noted at all, and a key may be used only once. */
  async function noteUses (batches: UsageBatch[]): Promise<void> {
    const uses = batches.flatMap(({ keys }) => keys.flatMap(({ projectId, keyId, secrets }) => secrets.map(({ secretId, lastUsedMs }) => ({ projectId, keyId, secretId, lastUsedMs }))))
    for (const { lastUsedMs, ...used } of uses) {
      if (notedUses === usesAtOnce) {
        await lastUse.flush()
        notedUses = 0
      }
      lastUse.note(used, lastUsedMs)
      notedUses++
    }
  }

  function readEntry ({ id, text }: Entry): ReadEntry {
    const read = { id, bytes: text?.length ?? 0, batch: undefined }
    if (text === undefined) {
      metrics.trimmed()
      return read
    }
    try {
      const batch: unknown = JSON.parse(text)
      if (schema.Check(batch)) return { ...read, batch: { ...batch, atMs: Math.min(batch.atMs, writtenMs(id)) } }
    } catch {}
    leaveOut(read, 'it is no batch')
    return read
  }

  function leaveOut ({ id, bytes }: ReadEntry, reason: string): void {
    metrics.unreadable()
    log.error({ id, bytes, reason }, 'an entry of the stream of usage cannot be stored; it is left out')
  }

  function adapt (entries: ReadEntry[]): void {
    const bytes = entries.reduce((sum, { bytes }) => sum + bytes, 0)
    count = bytes > largeBytes ? Math.max(fewest, Math.floor(count / 2)) : Math.min(most, count * 2)
  }

  /** How far it has caught up, while there is much to catch up with. */
  async function report (handled: number): Promise<void> {
    const now = performance.now()
    if (now - reportedAt < reportEveryMs || (handled === 0 && catchingUp === undefined)) return
    reportedAt = now
    const { entries, oldestMs } = await stream.backlog()
    if (entries >= muchBacklog) {
      catchingUp = Math.max(catchingUp ?? 0, entries)
      log.info({ batches: entries, of: catchingUp, oldest: oldestMs === null ? null : new Date(oldestMs).toISOString() }, 'catching up with usage')
    } else if (catchingUp !== undefined) {
      catchingUp = undefined
      log.info('caught up with usage')
    }
  }

  async function attempt (): Promise<boolean> {
    try {
      const more = await round()
      if (isFailing) log.info('usage is stored again')
      isFailing = false
      return more
    } catch (error) {
      if (!isFailing) log.warn({ reason: (error as Error).message }, 'usage cannot be stored; it waits in Redis, as far as it fits')
      isFailing = true
      reportedAt = -Infinity // how far it is behind is said with the first round that succeeds
      return false
    }
  }

  function schedule (more: boolean): void {
    if (stopping.signal.aborted) return
    timer = setTimeout(() => {
      running = attempt().then(schedule)
    }, more ? 0 : intervalMs).unref()
  }

  return {
    start: () => { schedule(true) },
    stop: async () => {
      stopping.abort()
      clearTimeout(timer)
      await running
    }
  }
}

/**
 * SQLSTATE classes 22: what was to be written is nothing that the column can hold; 54: it is too long for an index; 21: two of its rows are one.
 * It will be so tomorrow, too.
 */
function isDataFault (error: unknown): boolean {
  return /^(?:21|22|54)...$/.test(codeOf(error as Error))
}

/**
 * When an entry was written, by Redis's clock. No batch is younger than that, whatever its gateway says: one that has not asked Redis for anything
 * yet knows no clock but its own, and by a moment in the future it would be taken for alive until then, and its end looked for there (`tails.ts`).
 */
function writtenMs (entryId: string): number {
  return Number(entryId.split('-')[0])
}

/** The partitions that their rows belong to, made before the rows are written. */
function partitionsOf (batches: UsageBatch[]): Partition[] {
  const found = new Map<string, Partition>()
  const need = (table: Partitioned, ms: number): void => {
    const partition = partitionOf(table, new Date(ms))
    found.set(partition.name, partition)
  }
  for (const { keys, rows } of batches) {
    for (const minute of new Set(keys.flatMap(({ sums }) => sums.map(sum => sum.minute)))) for (const table of ['usage_minutes', 'usage_hours', 'usage_days'] as const) need(table, minute * 60_000)
    for (const { atMs } of rows) need('request_log', atMs)
  }
  return [...found.values()]
}
