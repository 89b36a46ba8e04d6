import { digestSecret } from '@keygate/api-key'
import type { PersonCaller } from '../access/caller.ts'
import { recordAlone, recordAudit, type Actor, type AuditEntry, type ChangeContext } from '../audit/audit-log.ts'
import type { Database, Executor } from '../db/database.ts'
import { linkNotValid, signInFailed, unacceptable, unauthenticated, wrongPassword } from '../errors.ts'
import { findCredentials, holdDigest, putPassword, replaceDigest } from './accounts.ts'
import { canonicalEmail } from './email.ts'
import type { GuessLimit } from './guess-limit.ts'
import { networkOf } from './network.ts'
import { endLinks, findLink, takeLink } from './one-time-links.ts'
import { digestPassword, isCurrentDigest, matchesPassword } from './password-digest.ts'
import { faultOfPassword } from './password-text.ts'
import { beginSession, endSession, endSessionsOf, findCaller, prune, renewAuthentication, type SessionLimits } from './sessions.ts'
import { createTurns } from './turns.ts'

export interface SignInParts { database: Database, guesses: GuessLimit, sessionLimits: SessionLimits }

/** Where a request comes from that nobody has signed yet; `earlier` is what its session cookie holds. */
export interface Visitor { address: string, requestId: string, earlier: string | undefined }

/** Who is signed in from now on, and what goes into the cookie. */
export interface NewSession { sessionId: string, person: PersonCaller }

const nobody: Actor = { type: 'nobody', id: 'nobody', name: 'nobody' }
const contextOf = ({ requestId }: Visitor, { id, name }: PersonCaller): ChangeContext => ({ actor: { type: 'person', id, name }, requestId })
const event = (action: string, details: Record<string, unknown>): AuditEntry => ({ action, projectId: null, keyId: null, details })

/** Everything about passwords and sessions. A password is compared only in its turn and only if the guess limit allows it. */
export function createSignIn ({ database, guesses, sessionLimits }: SignInParts) {
  const inTurn = createTurns({ atOnce: 2, waiting: 20, each: 8 })

  /**
   * Whoever has guessed too often takes nobody's turn. What is compared with is found before the guess is charged: a fault of the
   * database is not a wrong password.
   *
   * @returns what `compare` found; undefined: the guess was wrong, which is counted.
   */
  async function guess<F, T> ({ address, requestId }: Visitor, account: string | null, find: (db: Executor) => Promise<F>, compare: (found: F) => Promise<T | undefined>): Promise<T | undefined> {
    const onLimited = async () => { await recordAlone(database, { actor: nobody, requestId }, event('sign-in.limited', { address, account: await accountOf(account) })) }
    await guesses.check({ address, account }, onLimited)
    return await inTurn(networkOf(address), async () => {
      const found = await database.run(find)
      return await guesses.attempt({ address, account }, async () => await compare(found), onLimited)
    })
  }

  /** @param account as it was typed; null: it was a link, whose token is never written down. */
  async function failed ({ address, requestId }: Visitor, account: string | null): Promise<void> {
    await recordAlone(database, { actor: nobody, requestId }, event('sign-in.failed', { address, account: await accountOf(account), by: account === null ? 'link' : 'password' }))
  }

  /** What was typed as an address may be anything, a password too: only that of an account that there is gets into the audit trail. */
  async function accountOf (email: string | null): Promise<string | null> {
    const known = email === null ? undefined : await database.run(async db => await findCredentials(db, email))
    return known?.email ?? null
  }

  /** A new id, always: whatever the cookie held before opens nothing any more. */
  async function begin (tx: Executor, userId: string, visitor: Visitor, action: string): Promise<NewSession> {
    if (visitor.earlier !== undefined) await endSession(tx, digestSecret(visitor.earlier))
    const sessionId = await beginSession(tx, userId)
    const person = await findCaller(tx, sessionId, sessionLimits)
    if (person === undefined) throw new Error('the new session was not found')
    await recordAudit(tx, contextOf(visitor, person), event(action, { address: visitor.address }))
    return { sessionId, person }
  }

  return {
    async signIn (visitor: Visitor, { email, password }: { email: string, password: string }): Promise<NewSession> {
      const address = canonicalEmail(email)
      const known = await guess(visitor, address, async db => await findCredentials(db, address), async found => {
        const isRight = await matchesPassword(password, found?.digest ?? null)
        if (!isRight || found === undefined || found.digest === null) return undefined
        return { id: found.id, digest: found.digest, newer: isCurrentDigest(found.digest) ? undefined : await digestPassword(password) }
      })
      const begun = known === undefined
        ? undefined
        : await database.transaction(async tx => {
          // The password may have been replaced while it was compared, which ends all sessions: none begins with the old one then.
          const isStill = known.newer === undefined ? await holdDigest(tx, known.id, known.digest) : await replaceDigest(tx, known.id, { from: known.digest, to: known.newer })
          if (!isStill) return undefined
          await prune(tx, sessionLimits)
          return await begin(tx, known.id, visitor, 'sign-in')
        })
      if (begun !== undefined) return begun
      await failed(visitor, address)
      throw signInFailed()
    },

    async signOut (context: ChangeContext, { session }: PersonCaller): Promise<void> {
      await database.transaction(async tx => {
        await endSession(tx, session)
        await recordAudit(tx, context, event('sign-out', {}))
      })
    },

    /** By a one-time link. Every session of the person ends: whoever forgot the password may not be the only one who knew it. */
    async setPassword (visitor: Visitor, { token, password }: { token: string, password: string }): Promise<NewSession> {
      requireGoodPassword(password, '/password')
      const digest = await guess(visitor, null, async db => await findLink(db, token), async userId => userId === undefined ? undefined : await digestPassword(password))
      const begun = digest === undefined
        ? undefined
        : await database.transaction(async tx => {
          const userId = await takeLink(tx, token)
          if (userId === undefined) return undefined
          await putPassword(tx, userId, digest)
          await endLinks(tx, userId)
          await endSessionsOf(tx, userId)
          return await begin(tx, userId, visitor, 'password.set')
        })
      if (begun !== undefined) return begun
      await failed(visitor, null)
      throw linkNotValid()
    },

    /** Every other session ends, and this one gets a new id. */
    async changePassword (visitor: Visitor, person: PersonCaller, { currentPassword, newPassword }: { currentPassword: string, newPassword: string }): Promise<NewSession> {
      requireGoodPassword(newPassword, '/newPassword')
      const digests = await guess(visitor, person.email, credentialsOf(person), async found => {
        const from = await rightDigest(found, currentPassword)
        return from === undefined ? undefined : { from, to: await digestPassword(newPassword) }
      })
      const begun = digests === undefined
        ? undefined
        : await database.transaction(async tx => {
          if (!await replaceDigest(tx, person.id, digests)) return undefined
          await endLinks(tx, person.id)
          // Who has signed out meanwhile changes nothing more.
          if (!(await endSessionsOf(tx, person.id)).includes(person.session)) throw unauthenticated()
          return await begin(tx, person.id, visitor, 'password.change')
        })
      if (begun !== undefined) return begun
      throw await refused(visitor, person, '/currentPassword')
    },

    /** The password once more, for what wants a recent one. */
    async confirm (visitor: Visitor, person: PersonCaller, password: string): Promise<void> {
      const digest = await guess(visitor, person.email, credentialsOf(person), async found => await rightDigest(found, password))
      if (digest === undefined) throw await refused(visitor, person, '/password')
      if (!await database.run(async db => await renewAuthentication(db, person.session))) throw unauthenticated()
    }
  }

  async function refused (visitor: Visitor, person: PersonCaller, pointer: string) {
    await recordAlone(database, contextOf(visitor, person), event('password.refused', { address: visitor.address }))
    return wrongPassword(pointer)
  }
}

export type SignInCommands = ReturnType<typeof createSignIn>

const credentialsOf = ({ email }: PersonCaller) => async (db: Executor) => await findCredentials(db, email)

async function rightDigest (found: { digest: string | null } | undefined, password: string): Promise<string | undefined> {
  const digest = found?.digest ?? null
  return await matchesPassword(password, digest) && digest !== null ? digest : undefined
}

function requireGoodPassword (password: string, pointer: string): void {
  const fault = faultOfPassword(password)
  if (fault !== undefined) throw unacceptable([{ pointer, message: fault }])
}
