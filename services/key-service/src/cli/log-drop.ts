import { codeOf } from '../db/failures.ts'
import { dropDay, findOldDays, type OldDay } from '../request-log/retention.ts'
import { UsageError, type Command, type Input, type Tools } from './command.ts'
import { columns, hint } from './help.ts'
import { startProgress } from './progress.ts'
import { requiredText } from './values.ts'

/** The only way beside `KEYGATE_LOG_RETENTION_DAYS` in which logged requests go: they are kept when logging ends, and when a key does. */
export const logDrop: Command = {
  name: 'log drop',
  summary: 'Drops the request log of whole days (UTC) of which every row is older than so many days, of all projects. Without --yes it only says what it would do. The service may run meanwhile; after an interruption run it again.',
  options: {
    'older-than': { type: 'string', placeholder: '<days>', summary: 'how many days back the log stays' },
    'dry-run': { type: 'boolean', summary: 'only say what would be dropped, also with --yes' },
    yes: { type: 'boolean', summary: 'do it' }
  },
  run: async (tools, { options }) => {
    const { database, print, err } = tools
    const olderThanDays = daysOf(options)
    const days = await database.run(async db => await findOldDays(db, olderThanDays, Date.now()))
    if (days.length === 0) {
      print(`No day of the log is wholly older than ${count(olderThanDays, 'day')}.`)
      return 0
    }
    for (const line of columns(days.map(({ from, rows, bytes }) => [from.toISOString().slice(0, 10), `about ${count(rows, 'row')}, ${sizeOf(bytes)}`]))) print(line)
    if (options['yes'] !== true || options['dry-run'] === true) {
      print(`Would drop ${describe(days)}. Nothing was dropped.`)
      if (options['yes'] !== true) err.write('To do it, add --yes.\n')
      return 0
    }
    await drop(tools, days, olderThanDays)
    print(`Dropped ${describe(days)}.`)
    return 0
  }
}

/** @throws {UsageError} */
function daysOf (options: Input['options']): number {
  const text = requiredText(options, 'older-than', logDrop)
  const days = Number(text)
  if (!/^\d{1,5}$/.test(text) || days < 1 || days > 36_500) throw new UsageError(`--older-than must be a number of days, 1 to 36500, but is ${JSON.stringify(text)}.\n${hint(logDrop)}`)
  return days
}

async function drop ({ database, context, err }: Tools, days: OldDay[], olderThanDays: number): Promise<void> {
  const progress = startProgress(err, days.length, 'days')
  let dropped = 0
  try {
    for (const day of days) {
      await dropDay(database, context, day, olderThanDays)
      dropped++
      progress.add(1)
    }
  } catch (error) {
    if (codeOf(error as Error) !== '55P03') throw error
    throw new Error(`Somebody reads the log for long, such as a backup: ${dropped} of ${count(days.length, 'day')} were dropped. Run this again when that has ended.`, { cause: error })
  } finally {
    progress.stop()
  }
}

function describe (days: OldDay[]): string {
  const sum = (member: 'rows' | 'bytes'): number => days.reduce((total, day) => total + day[member], 0)
  return `${count(days.length, 'day')} with about ${count(sum('rows'), 'row')}, ${sizeOf(sum('bytes'))}`
}

function count (number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

function sizeOf (bytes: number): string {
  return bytes < 2 ** 20 ? `${Math.ceil(bytes / 2 ** 10)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`
}
