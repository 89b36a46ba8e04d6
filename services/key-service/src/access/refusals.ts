import { ProblemError } from '@keygate/service-kit'
import { recordAlone, type ChangeContext } from '../audit/audit-log.ts'
import type { Database } from '../db/database.ts'
import type { Permission } from './permissions.ts'

export interface Attempt { permission: Permission, projectId: string | null, details?: Record<string, unknown> }

/**
 * Does a change that may be refused inside its transaction. What the transaction wrote down of the refusal would be undone with it,
 * so it is written down afterwards, alone.
 */
export async function withRefusalsRecorded<T> (database: Database, context: ChangeContext, { permission, projectId, details = {} }: Attempt, change: () => Promise<T>): Promise<T> {
  try {
    return await change()
  } catch (error) {
    if (error instanceof ProblemError && error.problem.status === 403) {
      await recordAlone(database, context, { action: 'permission.refused', projectId, keyId: null, details: { permission, ...details, code: error.problem.code } })
    }
    throw error
  }
}
