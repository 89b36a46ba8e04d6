import { digestSecret, generateId, generateSecret, hintOf } from '@keygate/api-key'
import { and, eq, inArray, isNotNull, sql } from 'drizzle-orm'
import type { Executor } from '../db/database.ts'
import { idempotencyKeys, keys, secrets } from '../db/schema.ts'
import { pepperMissing } from '../errors.ts'
import { findUnknownPeppers } from '../vault/keys-present.ts'
import type { Peppers } from '../vault/peppers.ts'
import type { Vault } from '../vault/vault.ts'
import type { ImportedSecret } from './accept-import.ts'
import { isAmong } from './columns.ts'

export interface KeyAddress { projectId: string, keyId: string }

/** What secrets are made and kept with; `vault` undefined: none can be revealed. */
export interface SecretOptions { peppers: Peppers, vault: Vault | undefined, prefix: string }

/** A key that gets a secret; `sealed`: no ciphertext is kept. */
export interface SecretOwner extends KeyAddress { sealed: boolean }

const secretsOf = ({ projectId, keyId }: KeyAddress) => and(eq(secrets.projectId, projectId), eq(secrets.keyId, keyId))

/** Gives a key its current secret. In clear the returned text exists nowhere else: stored are its keyed digest, its hint and, unless the key is sealed, its ciphertext. */
export async function addSecret (tx: Executor, owner: SecretOwner, options: SecretOptions): Promise<string> {
  const secret = generateSecret(options.prefix)
  const stored = await store(tx, owner, { digest: digestSecret(secret), plaintext: secret, hint: hintOf(secret, options.prefix) }, options)
  if (!stored) throw new Error('a new secret is one that there is already')
  return secret
}

/** Gives a key the secret of another system; false: somewhere in the installation it is used already. */
export async function importSecret (tx: Executor, owner: SecretOwner, imported: ImportedSecret, options: SecretOptions): Promise<boolean> {
  // One at a time per secret: two replicas that are at different peppers would store it under different digests, which no index can compare.
  await tx.execute(sql`SELECT pg_advisory_xact_lock(hashtextextended(${imported.digest}, 0))`)
  if ((await findUnknownPeppers(tx, options.peppers)).length > 0) throw pepperMissing()
  const digests = options.peppers.all(imported.digest).map(({ digest }) => digest)
  // What is not erased yet of a deleted project uses no secret any more.
  await tx.delete(secrets).where(and(inArray(secrets.digest, digests), sql`EXISTS (SELECT 1 FROM projects p WHERE p.id = ${secrets.projectId} AND p.deleted_at IS NOT NULL)`))
  const used = await tx.select({ id: secrets.id }).from(secrets).where(inArray(secrets.digest, digests)).limit(1)
  return used.length === 0 && await store(tx, owner, imported, options)
}

/** The unique digest decides between two at the same time. */
async function store (tx: Executor, { projectId, keyId, sealed }: SecretOwner, { digest, plaintext, hint }: ImportedSecret, { peppers, vault }: SecretOptions): Promise<boolean> {
  const kept = sealed || plaintext === null || vault === undefined
    ? {}
    : { ciphertext: vault.encrypt(plaintext, { projectId, keyId, use: 'secret' }), encryptionKeyId: vault.currentId }
  const stored = await tx.insert(secrets).values({ projectId, keyId, id: generateId('sec'), ...peppers.current(digest), hint, state: 'current', ...kept })
    .onConflictDoNothing({ target: secrets.digest }).returning({ id: secrets.id })
  return stored.length > 0
}

const expiryOf = ({ projectId, keyId }: KeyAddress) => sql`(SELECT expires_at FROM ${keys} k WHERE k.project_id = ${projectId} AND k.id = ${keyId})`

/**
 * The moment of a statement: one and the same wherever the statement names it, so that a grace is as long as it was asked for. The
 * transaction's own start would be too early, since it may have waited for another rotation before it came here.
 */
const moment = sql`statement_timestamp()`

/** When a grace that begins now ends: never after the key. */
const endOfGrace = (key: KeyAddress, seconds: number) => sql`least(${moment} + make_interval(secs => ${seconds}), ${expiryOf(key)})`

/**
 * Makes room for a new secret: an older one that is still retiring ends at once, the current one retires for the grace, which is cut
 * to the key's expiry. Without a grace left its row is erased, so that the old secret is unknown. No answer gives it again: answers
 * come last, as everywhere here, so that two transactions do not wait for each other.
 */
export async function retireSecret (tx: Executor, key: KeyAddress, gracePeriodSeconds: number): Promise<void> {
  await endRetiring(tx, key)
  if (gracePeriodSeconds > 0) {
    await tx.update(secrets).set({ state: 'retiring', notAfter: endOfGrace(key, gracePeriodSeconds), retiredAt: moment })
      .where(and(secretsOf(key), eq(secrets.state, 'current')))
    await tx.delete(secrets).where(and(secretsOf(key), sql`${secrets.notAfter} <= clock_timestamp()`))
    await eraseReplays(tx, key)
  } else {
    await eraseSecrets(tx, key)
  }
}

const isRunning = sql`${secrets.state} = 'retiring' AND ${secrets.notAfter} > clock_timestamp()`

/** Lets a running grace end so many seconds from now, sooner or later than it would have; false when none was running. */
export async function moveRetiring (tx: Executor, key: KeyAddress, gracePeriodSeconds: number): Promise<boolean> {
  const moved = await tx.update(secrets).set({ notAfter: endOfGrace(key, gracePeriodSeconds) }).where(and(secretsOf(key), isRunning)).returning({ id: secrets.id })
  return moved.length > 0
}

/** The key's expiry has moved. A grace that would outlive the key is cut for good: what ended with it does not come back when the expiry moves on. */
export async function cutRetiring (tx: Executor, key: KeyAddress): Promise<void> {
  await tx.update(secrets).set({ notAfter: sql`least(${secrets.notAfter}, ${expiryOf(key)})` }).where(and(secretsOf(key), eq(secrets.state, 'retiring')))
}

/** Ends a grace now; false when none was running. */
export async function endRetiring (tx: Executor, key: KeyAddress): Promise<boolean> {
  const ended = await tx.delete(secrets).where(and(secretsOf(key), eq(secrets.state, 'retiring'))).returning({ wasRunning: sql<boolean>`${secrets.notAfter} > clock_timestamp()` })
  return ended.some(({ wasRunning }) => wasRunning)
}

/** Nobody can show the key's secrets again; they go on working. */
export async function sealSecrets (tx: Executor, key: KeyAddress): Promise<void> {
  await tx.update(secrets).set({ ciphertext: null, encryptionKeyId: null }).where(secretsOf(key))
  await eraseReplays(tx, key)
}

export async function eraseSecrets (tx: Executor, key: KeyAddress): Promise<void> {
  await tx.delete(secrets).where(secretsOf(key))
  await eraseReplays(tx, key)
}

/** Whoever repeats a request that made or rotated the key gets the answer without its secret from now on; of one key, or of several. */
export async function eraseReplays (tx: Executor, { projectId, keyId }: { projectId: string, keyId: string | string[] }): Promise<void> {
  await tx.update(idempotencyKeys).set({ secretCiphertext: null, encryptionKeyId: null })
    .where(and(eq(idempotencyKeys.projectId, projectId), isAmong(idempotencyKeys.keyId, [keyId].flat()), isNotNull(idempotencyKeys.secretCiphertext)))
}
