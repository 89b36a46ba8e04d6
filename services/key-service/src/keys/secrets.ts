import { digestSecret, generateId, generateSecret, hintOf, lookupDigest } from '@keygate/api-key'
import { and, eq, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { keys, secrets } from '../db/schema.ts'

export interface KeyAddress { projectId: string, keyId: string }

/** What secrets are made with. */
export interface SecretOptions { pepper: string, prefix: string }

const secretsOf = ({ projectId, keyId }: KeyAddress) => and(eq(secrets.projectId, projectId), eq(secrets.keyId, keyId))

/** Gives a key its current secret. The returned text exists nowhere else: only its keyed digest and its hint are stored. */
export async function addSecret (tx: Executor, key: KeyAddress, { pepper, prefix }: SecretOptions): Promise<string> {
  const secret = generateSecret(prefix)
  await tx.insert(secrets).values({
    ...key, id: generateId('sec'), digest: lookupDigest(pepper, digestSecret(secret)), hint: hintOf(secret, prefix), state: 'current'
  })
  return secret
}

/**
 * Makes room for a new secret: an older one that is still retiring ends at once, the current one retires for the grace, which is cut
 * to the key's expiry. Without a grace left its row is erased, so that the old secret is unknown.
 */
export async function retireSecret (tx: Executor, key: KeyAddress, gracePeriodSeconds: number): Promise<void> {
  await endRetiring(tx, key)
  if (gracePeriodSeconds > 0) {
    await tx.update(secrets).set({
      state: 'retiring',
      // The clock of this moment, not of the transaction's start: it may have waited for another rotation.
      notAfter: sql`least(clock_timestamp() + make_interval(secs => ${gracePeriodSeconds}),
        (SELECT expires_at FROM ${keys} k WHERE k.project_id = ${key.projectId} AND k.id = ${key.keyId}))`
    }).where(and(secretsOf(key), eq(secrets.state, 'current')))
    await tx.delete(secrets).where(and(secretsOf(key), sql`${secrets.notAfter} <= clock_timestamp()`))
  } else {
    await eraseSecrets(tx, key)
  }
}

/** Ends a grace now; false when none was running. */
export async function endRetiring (tx: Executor, key: KeyAddress): Promise<boolean> {
  const ended = await tx.delete(secrets).where(and(secretsOf(key), eq(secrets.state, 'retiring'))).returning({ id: secrets.id })
  return ended.length > 0
}

export async function eraseSecrets (tx: Executor, key: KeyAddress): Promise<void> {
  await tx.delete(secrets).where(secretsOf(key))
}
