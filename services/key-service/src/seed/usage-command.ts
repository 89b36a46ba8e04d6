import { loadCatalogue } from '@keygate/api-catalog'
import { sql } from 'drizzle-orm'
import type { Command, Tools } from '../cli/command.ts'
import { startProgress } from '../cli/progress.ts'
import { openDatabase, type Database } from '../db/database.ts'
import { createPeppers } from '../vault/peppers.ts'
import { count, interrupted, projectIn, untilInterrupted } from './options.ts'
import { seedKeys } from './seed-keys.ts'
import { mostKeys, refuseIfUsed, seedUsage } from './seed-usage.ts'
import { targetsOf } from './usage-profile.ts'

/** A statement writes whole days of all keys: minutes, for a hundred thousand of them on a slow disk. Milliseconds. */
const timeoutMs = 1_800_000
const keysAtOnce = 1000

interface Order { projectId: string | undefined, keys: number, days: number, seed: number }

/** For trying out how much room a year takes, and how long its curves and lists. */
export const seedUsageCommand: Command = {
  name: 'seed usage',
  summary: 'Fills the tables of usage for all keys of a project that has none yet, as if gateways had counted for a year.',
  options: {
    project: { type: 'string', placeholder: '<id>', summary: 'the project; without it a new one named "Seeded"' },
    keys: { type: 'string', placeholder: '<count>', summary: 'so many keys the project has at least: those that are missing are made; 10000 without it' },
    days: { type: 'string', placeholder: '<count>', summary: 'how far back; 365 without it' },
    seed: { type: 'string', placeholder: '<number>', summary: 'another number gives other curves; 1 without it' }
  },
  run: async (tools, { options }) => {
    const order: Order = {
      projectId: projectIn(options, seedUsageCommand),
      keys: count(options, 'keys', { default: 10_000, max: mostKeys }, seedUsageCommand),
      days: count(options, 'days', { default: 365, max: 3650 }, seedUsageCommand),
      seed: count(options, 'seed', { default: 1, max: 2 ** 31 - 1 }, seedUsageCommand)
    }
    const database = openDatabase(tools.config.databaseUrl, { timeoutMs, applicationName: 'keygate-seed' })
    try {
      return await untilInterrupted(async signal => await fill({ ...tools, database }, order, signal))
    } finally {
      await database.close()
    }
  }
}

async function fill (tools: Tools, order: Order, signal: AbortSignal): Promise<number> {
  const { config, database, context, print, err } = tools
  const catalogue = await loadCatalogue(config.apisFile)
  const { projectId: wanted, days, seed } = order
  if (wanted !== undefined) await database.run(async db => { await refuseIfUsed(db, wanted) })
  const missing = order.keys - (wanted === undefined ? 0 : await keysOf(database, wanted))
  const projectId = wanted !== undefined && missing <= 0 ? wanted : await addKeys(missing)
  if (projectId === undefined) {
    err.write('Interrupted before there was any usage. Run it again.\n')
    return interrupted
  }

  const progress = startProgress(err, days, 'days of usage')
  const begun = performance.now()
  let rows = 0
  try {
    const done = await seedUsage({ database, targets: targetsOf(catalogue), context }, {
      projectId,
      days,
      seed,
      nowMs: Date.now(),
      signal,
      onInserted: (chunk, written) => {
        progress.add(chunk.days)
        rows += Object.values(written).reduce((sum, count) => sum + count, 0)
      }
    })
    progress.stop()
    const seconds = (performance.now() - begun) / 1000
    print(`${rows} rows of usage in the project ${projectId}: ${seconds.toFixed(1)} s, ${Math.round(rows / seconds)} rows/s`)
    if (done === days) return 0
    err.write(`Interrupted: of ${days} days the last ${days - done} are missing, and they cannot be added. Run it again without --project.\n`)
    return interrupted
  } catch (error) {
    progress.stop()
    throw error
  }

  /** @returns their project; undefined: interrupted. */
  async function addKeys (keys: number): Promise<string | undefined> {
    const progress = startProgress(err, keys, 'keys')
    const scopes = [...new Set(catalogue.apis.flatMap(api => api.scopes))]
    const parts = { database, context, peppers: createPeppers(config.peppers), prefix: config.keyPrefix, scopes }
    try {
      const seeded = await seedKeys(parts, { keys, projectId: wanted, seed, batch: keysAtOnce, signal, onInserted: ({ length }) => { progress.add(length) } })
      print(`${seeded.keys} new keys in the project ${seeded.projectId}`)
      return seeded.keys === keys ? seeded.projectId : undefined
    } finally {
      progress.stop()
    }
  }
}

async function keysOf (database: Database, projectId: string): Promise<number> {
  const [row] = await database.run(async db => await db.execute<{ count: string }>(sql`SELECT count(*) FROM keys WHERE project_id = ${projectId} AND status <> 'deleted'`))
  return Number(row?.count ?? 0)
}
