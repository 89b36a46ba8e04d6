import { readFileSync } from 'node:fs'
import { chainOf, type End } from '../audit/chain.ts'
import { describe } from '../audit/check.ts'
import { countUnchained, listChains, verifyChain, type ChainReport } from '../audit/verify.ts'
import type { Executor } from '../db/database.ts'
import { UsageError, type Command, type Tools } from './command.ts'
import { hint } from './help.ts'
import { startProgress } from './progress.ts'

type Heads = Map<string, End>

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** Whether the audit trail is what was written. Its output is what to keep elsewhere, and to give to a later run. */
export const auditVerify: Command = {
  name: 'audit verify',
  summary: 'Recomputes the chains of the audit trail. Prints for each: its name, how many events, the hash of the last one, and whether it holds. Keep the output elsewhere and give it to a later run.',
  options: {
    project: { type: 'string', placeholder: '<id>', summary: 'only the chain of this project' },
    heads: { type: 'string', placeholder: '<file>', summary: 'the output of an earlier run: its events must still be there, unchanged' }
  },
  run: async (tools, { options }) => {
    const { database, print } = tools
    const only = options['project'] === undefined ? undefined : chainOfOption(String(options['project']))
    const kept = options['heads'] === undefined ? new Map() : readHeads(String(options['heads']))
    const chains = await database.run(async db => await chainsToVerify(db, kept, only))
    if (chains.length === 0) throw new Error(only === undefined ? 'There is no audit event yet.' : `There is no chain of audit events of the project ${only}: neither an event nor a head.`)
    const reports = await verifyAll(tools, chains, kept)
    for (const report of reports) print(line(report))
    const { count, newest } = await database.run(countUnchained)
    if (count > 0) print(`# ${count} events are from before there were chains, the newest of ${newest}: nothing can be said about them`)
    const broken = reports.filter(report => report.broken !== undefined).length
    print(`# ${reports.length - broken} of ${reports.length} chains hold`)
    return broken > 0 ? 1 : 0
  }
}

function chainOfOption (projectId: string): string {
  const id = projectId.toLowerCase()
  if (!uuid.test(id)) throw new UsageError(`"--project" wants the id of a project, a UUID.\n${hint(auditVerify)}`)
  return chainOf(id)
}

/** The lines that this command prints for chains that hold; all others are passed over. */
function readHeads (file: string): Heads {
  let text
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError(`"--heads" cannot be read: ${(error as Error).message}.\n${hint(auditVerify)}`)
  }
  const lines = [...text.matchAll(/^(\S+) +(\d+) +([\w-]{43}) +ok$/gm)]
  if (lines.length === 0) throw new UsageError(`"--heads" wants the output of an earlier run; there is no head in ${file}.\n${hint(auditVerify)}`)
  return new Map(lines.map(([, chain = '', seq, hash = '']) => [chain, { seq: Number(seq), hash }]))
}

/** Also a chain of which nothing is left but the kept head. */
async function chainsToVerify (db: Executor, kept: Heads, only: string | undefined): Promise<Array<{ chain: string, seq: number }>> {
  const stored = await listChains(db)
  const names = new Set(stored.map(({ chain }) => chain))
  const gone = [...kept.keys()].filter(chain => !names.has(chain)).map(chain => ({ chain, seq: 0 }))
  return [...stored, ...gone].filter(({ chain }) => only === undefined || chain === only)
}

async function verifyAll ({ database, err }: Tools, chains: Array<{ chain: string, seq: number }>, kept: Heads): Promise<ChainReport[]> {
  const progress = startProgress(err, chains.reduce((total, { seq }) => total + seq, 0), 'events')
  const reports: ChainReport[] = []
  try {
    for (const { chain } of chains) reports.push(await verifyChain(database, chain, { kept: kept.get(chain), onRead: progress.add }))
    return reports
  } finally {
    progress.stop()
  }
}

/** As wide as a UUID. */
const width = 36

function line ({ chain, end, broken }: ChainReport): string {
  const start = `${chain.padEnd(width)}  ${String(end.seq).padStart(7)}  ${end.hash.padEnd(43)}`
  return broken === undefined ? `${start}  ok` : `${start}  broken: ${describe(broken)}`
}
