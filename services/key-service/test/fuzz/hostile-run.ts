import { hostileEverywhere } from './damage.ts'
import { createLender, type Living } from './living.ts'
import type { Operation } from './operations.ts'
import { createRandom } from './random.ts'
import { acceptable, send, type Request } from './request.ts'
import { changedTables, countRows } from './row-counts.ts'
import { tell, type FuzzOptions } from './run.ts'
import type { Sql } from '../helper.ts'

/** What hostile requests did. */
export interface HostileOutcome {
  requests: number
  faults: string[]
  /** Tables with more or fewer rows than before that no ordinary request of this operation touches. */
  foreignTables: string[]
}

const isThorough = process.env['KEYGATE_THOROUGH'] === '1'
/** How many ordinary requests show which tables the operation touches. */
const ordinary = 12

/** Sends every field with sharp texts, each on its own, and looks which tables have more or fewer rows afterwards. */
export async function attack (operation: Operation, sql: Sql, { app, token, world, judge, seed }: FuzzOptions): Promise<HostileOutcome> {
  const lender = createLender(operation, world)
  const requestFor = (living: Living, index: number): Request =>
    acceptable(operation, living, createRandom(`${seed} ${operation.id} ordinary ${index}`), index % 2 === 0 ? 'inside' : 'edge')
  const livings = await takeAll(lender.take, ordinary)
  const touched = await tablesTouchedBy(sql, async () => {
    for (const [index, living] of livings.entries()) await send(app, operation, requestFor(living, index), token)
  })

  // Made before rows are counted; what a 2xx uses up is made once for each request.
  const [victim] = await takeAll(lender.take, 1) as [Living]
  const requests = hostileEverywhere(operation, requestFor(victim, 0), isThorough)
  const victims = lender.isConsumed ? await takeAll(lender.take, requests.length) : []
  const faults: string[] = []
  let accepted = 0
  const changed = await tablesTouchedBy(sql, async () => {
    for (const [index, made] of requests.entries()) {
      const request = lender.isConsumed ? hostileEverywhere(operation, requestFor(victims[index] as Living, 0), isThorough)[index] ?? made : made
      const answer = await send(app, operation, request, token)
      if (answer.status < 300) accepted++
      const found = judge(operation, answer)
      if (found.length > 0) faults.push(`${found.join('; ')}\n${tell(operation, `hostile request ${index}`, request, answer)}`)
    }
  })
  return { requests: requests.length, faults, foreignTables: changed.filter(name => !isTrail(name) && (accepted === 0 || !touched.includes(name))) }
}

/** What is refused is written down, too. */
function isTrail (table: string): boolean {
  return table.startsWith('audit_')
}

async function takeAll (take: () => Promise<Living>, count: number): Promise<Living[]> {
  const made: Living[] = []
  while (made.length < count) made.push(...await Promise.all(Array.from({ length: Math.min(8, count - made.length) }, async () => await take())))
  return made
}

async function tablesTouchedBy (sql: Sql, work: () => Promise<void>): Promise<string[]> {
  const before = await countRows(sql)
  await work()
  return changedTables(before, await countRows(sql))
}
