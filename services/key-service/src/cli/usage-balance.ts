import { randomBytes } from 'node:crypto'
import { connectRedis } from '@keygate/rate-limit'
import { sql } from 'drizzle-orm'
import { balanceOf, type BalanceLine } from '../usage/balance.ts'
import { createUsageStream } from '../usage/stream.ts'
import { UsageError, type Command } from './command.ts'
import { hint } from './help.ts'
import { projectIdOf } from './values.ts'

/** Redis is asked for much at once, and nobody waits. Milliseconds. */
const redisTimeoutMs = 10_000

/** Whether every admission that the script has counted was stored, lost or is on its way. */
export const usageBalance: Command = {
  name: 'usage balance',
  summary: 'Weighs usage: for each gateway\'s life and hour, what Redis\'s script has admitted = stored + lost + in flight. Reaches back 47 hours. Ends with 1 when a side is too light.',
  options: {
    project: { type: 'string', placeholder: '<id>', summary: 'only this project; else all of them' },
    since: { type: 'string', placeholder: '<date-time>', summary: 'only hours that begin at or after it' }
  },
  run: async ({ config, database, print }, { options }) => {
    const sinceMs = options['since'] === undefined ? 0 : Date.parse(String(options['since']))
    if (Number.isNaN(sinceMs)) throw new UsageError(`--since must be a date-time such as 2026-11-20T10:00:00Z.\n${hint(usageBalance)}`)
    const only = projectIdOf(options, usageBalance)
    const redis = connectRedis(config.redisUrl, { timeoutMs: redisTimeoutMs })
    try {
      if (await redis.opened !== 'ready') throw new Error('Redis cannot be reached, and without it there is nothing to compare with. Make sure that it runs, then run this again.')
      const stream = createUsageStream(redis, `balance-${randomBytes(6).toString('base64url')}`, 0)
      const projects = only === null ? (await database.run(async db => await db.execute<{ id: string }>(sql`SELECT DISTINCT project_id AS id FROM usage_lines ORDER BY 1`))).map(({ id }) => id) : [only]
      const lines: BalanceLine[] = []
      for (const projectId of projects) lines.push(...await balanceOf(projectId, sinceMs, { database, redis, stream }))
      print(header)
      for (const line of lines) print(format(line))
      const [unbalanced, open, incomplete] = (['unbalanced', 'open', 'incomplete'] as const).map(verdict => lines.filter(line => line.verdict === verdict).length)
      print(`# ${lines.length} lines, ${unbalanced} unbalanced, ${open} open, ${incomplete} with the left side incomplete, ${lines.reduce((sum, { lost }) => sum + lost, 0)} admissions lost`)
      return unbalanced === 0 ? 0 : 1
    } finally {
      await redis.close()
    }
  }
}

const columns = ['counted', 'stored', 'lost', 'inFlight', 'unanswered', 'difference'] as const
const header = `${'# project'.padEnd(36)}  ${'boot'.padEnd(16)}  ${'hour'.padEnd(20)}${columns.map(name => `  ${name.padStart(10)}`).join('')}  verdict`

function format (line: BalanceLine): string {
  const verdict = line.verdict === 'incomplete' ? 'left side incomplete' : line.verdict
  return `${line.projectId}  ${line.bootId.padEnd(16)}  ${line.hour.slice(0, 16).padEnd(17)}UTC${columns.map(name => `  ${String(line[name]).padStart(10)}`).join('')}  ${verdict}`
}
