import { lookupDigest } from '@keygate/api-key'
import { checkOf, type KeyCheck } from './check-values.ts'
import type { PepperSet } from './keyring.ts'

/** What stands in `secrets`: a digest under a pepper, and which one. */
export interface KeyedDigest { digest: string, pepperId: string }

export interface Peppers {
  /** Of the pepper for new secrets. */
  readonly currentId: string
  /** Of every pepper, the current one first. */
  readonly ids: readonly string[]
  /** Of every pepper, the current one first. */
  readonly checks: readonly KeyCheck[]
  /** How a new secret is stored, by its SHA-256 (`digestSecret`). */
  current: (digest: string) => KeyedDigest
  /** Everything that a secret may be stored as, the current one first: for looking it up, and for "is it used already?". */
  all: (digest: string) => KeyedDigest[]
}

export function createPeppers ({ current, previous }: PepperSet): Peppers {
  const peppers = [current, ...previous]
  const keyed = (digest: string) => ({ id, value }: { id: string, value: string }): KeyedDigest => ({ digest: lookupDigest(value, digest), pepperId: id })
  return {
    currentId: current.id,
    ids: peppers.map(({ id }) => id),
    checks: peppers.map(pepper => checkOf('pepper', pepper)),
    current: digest => keyed(digest)(current),
    all: digest => peppers.map(keyed(digest))
  }
}
