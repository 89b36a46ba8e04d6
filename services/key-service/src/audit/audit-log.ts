import type { Executor } from '../db/database.ts'
import { auditEvents } from '../db/schema.ts'

/** Who did it: a service token, a person, whoever has the host's command line, or somebody who is not known (a failed sign-in). */
export interface Actor { type: 'token' | 'person' | 'host' | 'nobody', id: string, name: string }

/**
 * What was done to what; `projectId` null: it belongs to no project. `details` says what a reader needs to understand the change;
 * never a secret, a digest or a token.
 */
export interface AuditEntry { action: string, projectId: string | null, keyId: string | null, details: Record<string, unknown> }

/** Who asked for a change, and in which request. */
export interface ChangeContext { actor: Actor, requestId: string }

/** Writes down a change in the change's own transaction: what cannot be recorded does not happen. */
export async function recordAudit (tx: Executor, { actor, requestId }: ChangeContext, entry: AuditEntry): Promise<void> {
  await tx.insert(auditEvents).values({ ...entry, requestId, actorType: actor.type, actorId: actor.id, actorName: actor.name })
}
