import type { KeyRecord } from '@keygate/contracts'

/** What a caller is told of its secret's end, if it still uses one that a rotation has replaced. */
export const retirementFields = ['deprecation', 'sunset']

/**
 * The fields for a caller who still uses a secret that was replaced, while the rotation's grace runs; none for any other:
 *
 *   Deprecation: @1688169599                   when it was replaced (RFC 9745: a Date of structured fields, Unix seconds)
 *   Sunset: Sun, 30 Jun 2024 23:59:59 GMT      from when on it is refused: its grace or its key ends (RFC 8594: an HTTP-date)
 *
 * Seconds are rounded down: the secret never ends before the moment that is told. A moment that key-service does not tell is left out.
 */
export function retirementHeaders ({ secretState, secretRetiredAtMs, secretNotAfterMs, notAfterMs }: Pick<KeyRecord, 'secretState' | 'secretRetiredAtMs' | 'secretNotAfterMs' | 'notAfterMs'>): Record<string, string> {
  if (secretState !== 'retiring') return {}
  const end = Math.min(secretNotAfterMs ?? Infinity, notAfterMs ?? Infinity)
  return {
    ...(typeof secretRetiredAtMs === 'number' && { deprecation: `@${Math.floor(secretRetiredAtMs / 1000)}` }),
    ...(end !== Infinity && { sunset: new Date(end).toUTCString() })
  }
}
