import { whileStill, type Precautions } from '../access/still.ts'
import { recordAudit, type AuditEntry, type ChangeContext } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { appendToOutbox, type RaisedVersion } from './outbox.ts'
import type { Relay } from './relay.ts'

/** What a change has done inside its transaction. */
export interface Change<T> { value: T, audit: AuditEntry, raised: RaisedVersion[] }

/** Whether every gateway that reaches Redis knows of it, and since when. */
export interface Effect { effective: 'everywhere' | 'pending', effectiveAt: string | null }

export type MakeChange = <T>(context: ChangeContext, work: (tx: Executor) => Promise<Change<T>>, precautions?: Precautions) => Promise<{ value: T, effect: Effect }>

/**
 * The one way to change what admission depends on (design.md section 5): rows, versions, audit and outbox in one transaction,
 * then Redis, then the answer.
 *
 * First of all the right to it is judged again. `work` must begin by raising a version, which locks the row: later reads of the transaction see what it decides about.
 */
export function createChangeMaker (database: Database, relay: Relay): MakeChange {
  return async (context, work, precautions) => {
    const { value, rows } = await whileStill(database, context, async tx => {
      const { value, audit, raised } = await work(tx)
      await recordAudit(tx, context, audit)
      return { value, rows: await appendToOutbox(tx, raised) }
    }, precautions)
    const at = await relay.deliver(rows)
    return { value, effect: at === null ? { effective: 'pending', effectiveAt: null } : { effective: 'everywhere', effectiveAt: at.toISOString() } }
  }
}
