import { ProblemError } from '@keygate/service-kit'
import { whileStill } from '../access/still.ts'
import type { ChangeContext } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import type { Effect } from '../outbox/make-change.ts'
import type { Relay } from '../outbox/relay.ts'
import type { Vault } from '../vault/vault.ts'
import { findAnswer, findEffect, keepAnswer, settleAnswer, tryHold, type KeptAnswer } from './repository.ts'

/** One request that may be sent again: `digest` names it, `fingerprint` is what was asked, `context` who asks. */
export interface Ask { digest: string, fingerprint: string, status: number, context: ChangeContext }

/** A key as it is answered, its version among the rest, and the secret that is told once; undefined: the answer has none. */
export interface Made { projectId: string, keyId: string, body: object, secret: string | undefined }

/** What a command calls in the transaction of its change. */
export interface Once<T> {
  /** Before anything else. @throws when the change must not be made (again). */
  begin: (tx: Executor) => Promise<void>
  /** Last of all: the answer is kept with the change, or neither is. */
  keep: (tx: Executor, issued: T) => Promise<void>
}

export interface OnceAnswer { status: number, body: object, isReplay: boolean }

export interface OnceParts {
  database: Database
  relay: Pick<Relay, 'run'>
  /** Undefined: secrets are not kept, and a repeated request gets its answer without. */
  vault: Vault | undefined
}

/** @param view what of the command's result is answered. */
export type RunOnce = <T>(ask: Ask, view: (issued: T) => Made, change: (once: Once<T>) => Promise<T & { effect: Effect }>) => Promise<OnceAnswer>

/** Rolls the transaction back: somebody else has made the change in the meantime. */
class AlreadyMade extends Error {
  readonly answer: KeptAnswer
  constructor (answer: KeptAnswer) {
    super('the change has been made')
    this.answer = answer
  }
}

/**
 * Makes a change once, however often it is asked for, and gives everyone who asks the first answer.
 *
 * The answer is stored in the change's own transaction, so a crash leaves both or neither. Whether the change is effective
 * everywhere is known only after the commit: who knows it first, the first request or a later one after a crash, completes the stored
 * body, and all answer what stands there.
 */
export function createOnce ({ database, relay, vault }: OnceParts): RunOnce {
  async function replay (ask: Ask, kept: KeptAnswer): Promise<OnceAnswer> {
    if (kept.fingerprint !== ask.fingerprint) throw keyReused()
    const { projectId, keyId, status } = kept
    const body = kept.isSettled ? kept.body : await settle(ask.digest, kept)
    const decrypted = kept.secretCiphertext === null ? undefined : vault?.decrypt(kept.secretCiphertext, { projectId, keyId, use: 'replay' })
    return { status, body: withSecret(body, decrypted !== undefined && 'plaintext' in decrypted ? decrypted.plaintext : undefined), isReplay: true }
  }

  /** The first request has not told how its change went on; it may have ended in between. So the change is delivered here. */
  async function settle (digest: string, { projectId, keyId, body }: KeptAnswer): Promise<Record<string, unknown>> {
    await relay.run()
    return await database.run(async db => {
      const effect = await findEffect(db, { projectId, keyId, version: Number(body['version']) })
      return await settleAnswer(db, digest, effect) ?? { ...body, ...effect }
    })
  }

  async function begin (tx: Executor, { digest }: Ask): Promise<void> {
    // Held first: what is not found after that cannot be made by anybody else.
    if (!await tryHold(tx, digest)) throw inFlight()
    const kept = await findAnswer(tx, digest)
    if (kept !== undefined) throw new AlreadyMade(kept)
  }

  async function keep (tx: Executor, { digest, fingerprint, status }: Ask, { projectId, keyId, body, secret }: Made): Promise<void> {
    await keepAnswer(tx, {
      digest,
      fingerprint,
      status,
      projectId,
      keyId,
      // As it is answered when the secret is no longer kept.
      body: { ...withoutEffect(body), ...secret !== undefined && { secretOmitted: true } },
      secret: vault === undefined || secret === undefined ? null : { ciphertext: vault.encrypt(secret, { projectId, keyId, use: 'replay' }), encryptionKeyId: vault.currentId }
    })
  }

  return async (ask, view, change) => {
    const kept = await database.run(async db => await findAnswer(db, ask.digest))
    // What `change` does first: a repetition that makes no change is not for those who may no longer make it either.
    if (kept !== undefined) return await replay(ask, await whileStill(database, ask.context, async () => kept))
    try {
      const issued = await change({ begin: async tx => { await begin(tx, ask) }, keep: async (tx, issued) => { await keep(tx, ask, view(issued)) } })
      const { effect } = issued
      const { body, secret } = view(issued)
      // The change is made: if its answer cannot be completed now, it is answered all the same, and a repetition completes it.
      const settled = await database.run(async db => await settleAnswer(db, ask.digest, effect)).catch(() => undefined)
      return { status: ask.status, body: withSecret(settled ?? { ...body, ...effect }, secret), isReplay: false }
    } catch (error) {
      if (error instanceof AlreadyMade) return await replay(ask, error.answer)
      throw error
    }
  }
}

/** A kept body with the secret in its place. */
function withSecret (body: Record<string, unknown>, secret: string | undefined): object {
  if (secret === undefined) return body
  const { secretOmitted, ...rest } = body
  return { ...rest, secret }
}

function withoutEffect (body: object): object {
  return Object.fromEntries(Object.entries(body).filter(([name]) => name !== 'effective' && name !== 'effectiveAt'))
}

function inFlight (): ProblemError {
  return new ProblemError({
    status: 409, code: 'request_in_flight', detail: 'The first request with this Idempotency-Key has not ended yet. Send this one again in a second.'
  }, { 'retry-after': '1' })
}

function keyReused (): ProblemError {
  return new ProblemError({
    status: 422,
    code: 'idempotency_key_reused',
    detail: 'This Idempotency-Key belongs to another request. Take a new one for a new request, and repeat a request as it was.',
    errors: [{ pointer: '/idempotency-key', message: 'was used with another request' }]
  })
}
