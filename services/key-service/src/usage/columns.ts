import type { UsageBatch, UsageSum } from '@keygate/contracts'

/** The row of a project's sums over all of its keys. No key's id looks like it. */
export const wholeProject = '*'

export type Counts = Pick<UsageSum, 'admitted' | 'limited' | 'refused' | 'upstreamErrors' | 'admittedLocally'>
export const countNames = ['admitted', 'limited', 'refused', 'upstreamErrors', 'admittedLocally'] as const satisfies ReadonlyArray<keyof Counts>

/** A row of one of the three tables of sums; `at` is ISO 8601. */
export interface SumRow extends Counts { projectId: string, keyId: string, at: string, api: string, operation: string, scope: string }

export interface LineRow { bootId: string, projectId: string, hour: string, admitted: number, finished: number, stored: number, unanswered: number }
export interface IncarnationRow { projectId: string, incarnation: string, at: string }
export interface CallerRow { projectId: string, keyId: string, address: string, client: string, secretId: string, hour: string, count: number, lastSeen: string }
export type LogRow = Omit<UsageBatch['rows'][number], 'atMs'> & { at: string, replica: string }
export interface UseRow { projectId: string, keyId: string, secretId: string, at: string }

/** What one transaction writes. Each list is in the order of its table's key: two transactions never wait for each other in a ring. */
export interface Rows {
  minutes: SumRow[]
  hours: SumRow[]
  days: SumRow[]
  lines: LineRow[]
  incarnations: IncarnationRow[]
  callers: CallerRow[]
  log: LogRow[]
  uses: UseRow[]
}
