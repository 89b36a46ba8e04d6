import type { Effect } from '../outbox/make-change.ts'
import type { KeyRow } from './queries.ts'
import type { Key } from './schemas.ts'

export type Endpoint = Key['endpoints'][number]

/**
 * A key as answers show it.
 *
 * @param effect of the change that is being answered; a plain read shows what is noted on the row.
 */
export function viewKey (row: KeyRow, endpoints: Endpoint[], effect: Effect = row): Key {
  const { rotation } = row
  return {
    ...row,
    effective: effect.effective,
    effectiveAt: isoOrNull(effect.effectiveAt),
    expiresAt: isoOrNull(row.expiresAt),
    rotation: rotation === null ? null : { ...rotation, until: iso(rotation.until), startedAt: iso(rotation.startedAt), oldSecretLastUsedAt: isoOrNull(rotation.oldSecretLastUsedAt) },
    createdAt: iso(row.createdAt),
    lastUsedAt: isoOrNull(row.lastUsedAt),
    endpoints
  }
}

function iso (time: string): string {
  return new Date(time).toISOString()
}

function isoOrNull (time: string | null): string | null {
  return time === null ? null : iso(time)
}
