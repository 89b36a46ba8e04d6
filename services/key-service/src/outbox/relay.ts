import type { RedisConnection } from '@keygate/rate-limit'
import { raiseVersions } from '@keygate/rate-limit'
import type { FastifyBaseLogger } from 'fastify'
import type { Database } from '../db/database.ts'
import type { OutboxMetrics } from './metrics.ts'
import { findRecent, findUndelivered, markDelivered, pruneOutbox, type OutboxRow, type RaisedVersion } from './outbox.ts'

export interface RelayParts {
  database: Database
  redis: RedisConnection
  log: FastifyBaseLogger
  metrics: OutboxMetrics
  intervalMs: number
}

export interface Relay {
  /** Delivers just committed rows. Null: Redis could not confirm them, and the relay goes on trying. */
  deliver: (rows: OutboxRow[]) => Promise<Date | null>
  /** One round now: all that is undelivered, and after a (re)connect all that is kept. Never rejects. */
  run: () => Promise<void>
  start: () => void
  stop: () => Promise<void>
}

/** Rows per round trip: few enough that Redis answers well within its deadline. */
const batchSize = 500
const pruneEveryMs = 60_000

/**
 * Carries raised versions from PostgreSQL to Redis until Redis has confirmed them.
 *
 * Raising is idempotent and only ever upwards, so any number of relays may carry the same rows.
 */
export function createRelay ({ database, redis, log, metrics, intervalMs }: RelayParts): Relay {
  // Behind a new connection there may be an empty Redis, or one with old memory: then all versions of the last hour are raised again.
  let everything = true
  let failing = false
  let stopped = false
  let prunedAt = -Infinity
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined

  async function deliver (rows: OutboxRow[]): Promise<Date | null> {
    try {
      const at = new Date(await raiseAll(redis, rows))
      // No retry of our own: should this fail, the rows stay undelivered and the next round raises and marks them again.
      await database.run(async db => { await markDelivered(db, rows, at) })
      metrics.delivered(rows.length)
      return at
    } catch (error) {
      log.debug({ err: error }, 'a change waits for the relay')
      return null
    }
  }

  async function round (): Promise<void> {
    if (performance.now() - prunedAt >= pruneEveryMs) {
      await database.run(pruneOutbox)
      prunedAt = performance.now()
    }
    if (!redis.isReady) return
    if (everything) {
      // Lowered before the rows are read: a connect in between raises it again, and the next round repeats all.
      everything = false
      try {
        await raiseAll(redis, await database.run(findRecent))
      } catch (error) {
        everything = true
        throw error
      }
    }
    await deliverBacklog()
  }

  async function deliverBacklog (): Promise<void> {
    const rows = await database.run(async db => await findUndelivered(db, batchSize))
    if (rows.length === 0) return
    const at = new Date(await raiseAll(redis, rows))
    await database.run(async db => { await markDelivered(db, rows, at) })
    metrics.delivered(rows.length)
    if (rows.length === batchSize && !stopped) await deliverBacklog()
  }

  async function attempt (): Promise<void> {
    try {
      await round()
      if (failing) log.info('the relay delivers again')
      failing = false
    } catch (error) {
      metrics.failed()
      if (!failing) log.warn({ err: error }, 'the relay cannot deliver; it goes on trying')
      failing = true
    }
  }

  /** Rounds of one process follow each other; whoever asks during one gets the next. */
  async function run (): Promise<void> {
    const previous = running
    const mine = (previous ?? Promise.resolve()).then(attempt)
    running = mine
    await mine
    if (running === mine) running = undefined
  }

  function onReady (): void {
    everything = true
    run().catch(() => {})
  }

  function schedule (): void {
    if (stopped) return
    timer = setTimeout(() => { run().then(schedule, schedule) }, intervalMs)
  }

  return {
    deliver,
    run,
    start: () => {
      redis.on('ready', onReady)
      run().then(schedule, schedule)
    },
    stop: async () => {
      stopped = true
      clearTimeout(timer)
      redis.off('ready', onReady)
      await running
    }
  }
}

/** @returns since when all of them are raised, Unix milliseconds by Redis's clock. */
async function raiseAll (redis: RedisConnection, raised: RaisedVersion[]): Promise<number> {
  let atMs = 0
  for (let start = 0; start < raised.length; start += batchSize) {
    const byProject = new Map<string, Record<string, number>>()
    for (const { projectId, keyId, version } of raised.slice(start, start + batchSize)) {
      const versions = byProject.get(projectId) ?? {}
      versions[keyId] = Math.max(versions[keyId] ?? 0, version)
      byProject.set(projectId, versions)
    }
    for (const [projectId, versions] of byProject) atMs = Math.max(atMs, await raiseVersions(redis, projectId, versions))
  }
  return atMs
}
