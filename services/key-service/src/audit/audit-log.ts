import { sql } from 'drizzle-orm'
import type { Basis } from '../access/still.ts'
import type { Database, Executor } from '../db/database.ts'
import { chainOf, hashOf, type ChainedEvent, type End } from './chain.ts'
import { isoTime, projectWasThere } from './queries.ts'
import { storable } from './storable.ts'

/** Who did it: a service token, a person, whoever has the host's command line, or somebody who is not known (a failed sign-in). */
export interface Actor { type: 'token' | 'person' | 'host' | 'nobody', id: string, name: string }

/**
 * What was done to what; `projectId` null: it belongs to no project. `details` says what a reader needs to understand the change;
 * never a secret, a digest or a token.
 */
export interface AuditEntry { action: string, projectId: string | null, keyId: string | null, details: Record<string, unknown> }

/** Who asked for a change, in which request, and by which right; `basis` undefined: it rests on none that could be taken away. */
export interface ChangeContext { actor: Actor, requestId: string, basis?: Basis }

/**
 * Writes down a change in the change's own transaction: what cannot be recorded does not happen.
 *
 * From here to the end of the transaction nobody else writes into the same chain, so record as the last thing of the work. Whoever
 * records in several chains in one transaction does so in the order of their names.
 */
export async function recordAudit (tx: Executor, { actor: { type, id, name }, requestId }: ChangeContext, { action, projectId, keyId, details }: AuditEntry): Promise<void> {
  const said = storable({ projectId: projectId?.toLowerCase() ?? null, keyId, actor: { type, id, name }, action, requestId, details })
  const chain = chainOf(said.projectId)
  const { end, at } = await holdChain(tx, chain)
  const event = { chain, seq: end.seq + 1, at, ...said }
  await append(tx, event, hashOf(end.hash, event))
}

/**
 * Writes down what belongs to no change, such as a refused permission or a failed sign-in, in a transaction of its own.
 *
 * A project that never was gets no chain: those who guess ids would fill the table.
 */
export async function recordAlone (database: Database, context: ChangeContext, entry: AuditEntry): Promise<void> {
  await database.transaction(async tx => {
    const { projectId, details } = entry
    const isKnown = projectId === null || await projectWasThere(tx, projectId)
    await recordAudit(tx, context, isKnown ? entry : { ...entry, projectId: null, details: { ...details, projectId } })
  })
}

/**
 * The chain's end, and the time. The row is locked until the transaction ends, or made, which others wait for just the same; the
 * clock is read after the wait, so that times go up along a chain as numbers do.
 */
async function holdChain (tx: Executor, chain: string): Promise<{ end: End, at: string }> {
  const [row] = await tx.execute<{ seq: string, hash: string, at: string }>(sql`
    INSERT INTO audit_chains (chain, seq, hash) VALUES (${chain}, 0, '')
    ON CONFLICT (chain) DO UPDATE SET seq = audit_chains.seq
    RETURNING seq, hash, ${isoTime(sql`clock_timestamp()`)} AS at`)
  if (row === undefined) throw new Error('a chain of audit events could not be locked')
  return { end: { seq: Number(row.seq), hash: row.hash }, at: row.at }
}

async function append (tx: Executor, { chain, seq, at, projectId, keyId, actor, action, requestId, details }: ChainedEvent, hash: string): Promise<void> {
  await tx.execute(sql`
    WITH head AS (UPDATE audit_chains SET seq = ${seq}, hash = ${hash} WHERE chain = ${chain})
    INSERT INTO audit_events (chain, seq, hash, at, project_id, key_id, actor_type, actor_id, actor_name, action, request_id, details)
    VALUES (${chain}, ${seq}, ${hash}, ${at}, ${projectId}, ${keyId}, ${actor.type}, ${actor.id}, ${actor.name}, ${action}, ${requestId}, ${JSON.stringify(details)})`)
}
