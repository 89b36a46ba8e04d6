import { generateId } from '@keygate/api-key'
import type { ChangeContext } from '../audit/audit-log.ts'
import type { Executor } from '../db/database.ts'
import { conflict, keyNotFound, projectNotFound, unacceptable } from '../errors.ts'
import type { Once } from '../idempotency/once.ts'
import type { Effect, MakeChange } from '../outbox/make-change.ts'
import { checkVersion, type IfMatch } from '../preconditions.ts'
import { holdRole, type Role } from '../roles/repository.ts'
import { faultOfText } from '../text.ts'
import { acceptImport, type ImportRules } from './accept-import.ts'
import { acceptSettings, describeSettings, type KeySettings } from './accept-settings.ts'
import type { KnownScopes } from './known-scopes.ts'
import { transition, type KeyAction } from './lifecycle.ts'
import { notLogged } from './logging.ts'
import { findKey, type KeyRow } from './queries.ts'
import { eraseSettings, findKeyState, holdProject, insertKey, raiseKeyVersion, setStatus, updateKey, type RaisedKey } from './repository.ts'
import type { CreateKey, EditKey } from './schemas.ts'
import { addSecret, cutRetiring, endRetiring, eraseReplays, eraseSecrets, importSecret, moveRetiring, retireSecret, sealSecrets, type KeyAddress, type SecretOptions } from './secrets.ts'

export interface KeyCommandParts { makeChange: MakeChange, knownScopes: KnownScopes, secretOptions: SecretOptions, importForms: ImportRules['forms'], maxDays: number | undefined }

/** Which key, and in which of its versions; `ifMatch` undefined: in any. */
export interface KeyTarget extends KeyAddress { ifMatch: IfMatch | undefined }

export interface ChangedKey { row: KeyRow, effect: Effect }
/** `secret` undefined: it was imported, and whoever sent it has it. */
export interface IssuedKey extends ChangedKey { secret: string | undefined }
/** Given for a request that can be sent again (`idempotency/once.ts`). */
export type OnceIssued = Once<Omit<IssuedKey, 'effect'>>

const defaults: Omit<KeySettings, 'name' | 'sealed'> = {
  description: null, scopes: [], allowedForAll: false, role: null, expiresAt: null, allowedHosts: null, policies: null, logging: notLogged
}

/** What an action does beside status and version: `details` go into the audit trail, never a secret among them. */
type Apply<T> = (tx: Executor, key: RaisedKey) => Promise<{ result: T, details: Record<string, unknown> }>

const nothingMore: Apply<undefined> = async () => ({ result: undefined, details: {} })

const noRotation = () => conflict('no_rotation', 'No rotation of this key is running: there is no old secret that still works.')

/** Everything that changes a key. Each is one change: version, rows, audit and outbox, then Redis (`make-change.ts`). */
export function createKeyCommands ({ makeChange, knownScopes, secretOptions, importForms, maxDays }: KeyCommandParts) {
  /** The frame around every change of a key that exists. */
  async function change<T> (context: ChangeContext, target: KeyTarget, action: KeyAction, apply: Apply<T>, begin?: OnceIssued['begin']): Promise<{ result: T, row: KeyRow | undefined, effect: Effect }> {
    const { value, effect } = await makeChange(context, async tx => {
      await begin?.(tx)
      const key = await raiseKeyVersion(tx, target)
      if (key === undefined) throw keyNotFound()
      const status = transition(key.status, action)
      if (status === 'refused') throw conflict('key_revoked', 'This key is revoked, which is final. Create a new one.')
      checkVersion(target.ifMatch, key.version - 1)
      if (status !== key.status) await setStatus(tx, key, status)
      const { result, details } = await apply(tx, key)
      const { projectId, keyId, version } = key
      return {
        value: { result, row: await findKey(tx, key) },
        audit: { action: `key.${action}`, projectId, keyId, details },
        raised: [{ projectId, keyId, version }]
      }
    })
    return { ...value, effect }
  }

  async function changeSettings<T> (...call: [ChangeContext, KeyTarget, KeyAction, Apply<T>, OnceIssued['begin']?]): Promise<ChangedKey & { result: T }> {
    const { result, row, effect } = await change(...call)
    if (row === undefined) throw keyNotFound()
    return { result, row, effect }
  }

  /** Why a new key is sealed, whatever its maker wants; undefined: it need not be. */
  function sealedBecause (body: CreateKey): string | undefined {
    if (body.import?.digest !== undefined) return 'must be true: of a secret that is given by its digest nobody here knows the text'
    return secretOptions.vault === undefined ? 'must be true: this installation has no encryption key (KEYGATE_ENCRYPTION_KEY), so no secret can be kept for revealing' : undefined
  }

  return {
    async create (context: ChangeContext, projectId: string, { active = true, import: importing, ...body }: CreateKey, once?: OnceIssued): Promise<IssuedKey> {
      const { value, effect } = await makeChange(context, async tx => {
        await once?.begin(tx)
        const project = await holdProject(tx, projectId)
        if (project === undefined) throw projectNotFound()
        const because = sealedBecause({ ...body, ...importing !== undefined && { import: importing } })
        const role = await roleNamed(tx, project.projectId, body.role)
        const { settings: given, faults } = acceptSettings({ expiresAt: null, ...body }, { now: project.now, knownScopes, maxDays, role, present: defaults, sealedBecause: because })
        const imported = importing === undefined ? undefined : acceptImport(importing, { forms: importForms, prefix: secretOptions.prefix })
        if (imported !== undefined && 'pointer' in imported) throw unacceptable([...faults, imported])
        if (faults.length > 0) throw unacceptable(faults)
        const settings = { ...defaults, name: body.name, sealed: because !== undefined, ...given }
        const key = { projectId: project.projectId, keyId: generateId('key') }
        const status = active ? 'active' : 'disabled'
        await insertKey(tx, key, status, context.actor.name, settings)
        const owner = { ...key, sealed: settings.sealed }
        const secret = imported === undefined ? await addSecret(tx, owner, secretOptions) : undefined
        if (imported !== undefined && !await importSecret(tx, owner, imported, secretOptions)) throw conflict('secret_already_used', 'This secret is already used.', [{ pointer: imported.plaintext === null ? '/import/digest' : '/import/secret', message: 'is already used' }])
        const row = await findKey(tx, key)
        if (row === undefined) throw keyNotFound()
        await once?.keep(tx, { row, secret })
        return {
          value: { row, secret },
          audit: { action: 'key.create', ...key, details: { status, ...describeSettings(settings), imported: imported !== undefined } },
          raised: [{ ...key, version: row.version }]
        }
      })
      return { ...value, effect }
    },

    async edit (context: ChangeContext, target: KeyTarget, body: EditKey): Promise<ChangedKey> {
      return await changeSettings(context, target, 'edit', async (tx, key) => {
        const present = await findKeyState(tx, key)
        const role = await roleNamed(tx, key.projectId, body.role)
        const { settings, faults } = acceptSettings(body, {
          now: key.now,
          knownScopes,
          maxDays,
          role,
          present,
          sealedBecause: key.sealed ? 'must stay true: nothing of this secret is kept to be revealed. Create a new key instead' : undefined
        })
        if (faults.length > 0) throw unacceptable(faults)
        await updateKey(tx, key, settings)
        if (settings.expiresAt !== undefined) await cutRetiring(tx, key)
        if (settings.sealed === true) await sealSecrets(tx, key)
        return { result: undefined, details: describeSettings(settings) }
      })
    },

    async disable (context: ChangeContext, target: KeyTarget): Promise<ChangedKey> {
      return await changeSettings(context, target, 'disable', nothingMore)
    },

    async enable (context: ChangeContext, target: KeyTarget): Promise<ChangedKey> {
      return await changeSettings(context, target, 'enable', nothingMore)
    },

    async rotate (context: ChangeContext, target: KeyTarget, gracePeriodSeconds: number, once?: OnceIssued): Promise<IssuedKey> {
      const { result: secret, ...changed } = await changeSettings(context, target, 'rotate', async (tx, key) => {
        await retireSecret(tx, key, gracePeriodSeconds)
        const secret = await addSecret(tx, key, secretOptions)
        const row = once === undefined ? undefined : await findKey(tx, key)
        if (row !== undefined) await once?.keep(tx, { row, secret })
        return { result: secret, details: { gracePeriodSeconds } }
      }, once?.begin)
      return { ...changed, secret }
    },

    async extendRotation (context: ChangeContext, target: KeyTarget, gracePeriodSeconds: number): Promise<ChangedKey> {
      return await changeSettings(context, target, 'extendRotation', async (tx, key) => {
        if (!await moveRetiring(tx, key, gracePeriodSeconds)) throw noRotation()
        return { result: undefined, details: { gracePeriodSeconds } }
      })
    },

    async finishRotation (context: ChangeContext, target: KeyTarget): Promise<ChangedKey> {
      return await changeSettings(context, target, 'finishRotation', async (tx, key) => {
        if (!await endRetiring(tx, key)) throw noRotation()
        return { result: undefined, details: {} }
      })
    },

    async revoke (context: ChangeContext, target: KeyTarget, reason: string | undefined): Promise<ChangedKey> {
      const fault = reason === undefined ? undefined : faultOfText(reason)
      if (fault !== undefined) throw unacceptable([{ pointer: '/reason', message: fault }])
      return await changeSettings(context, target, 'revoke', async (tx, key) => {
        await eraseReplays(tx, key)
        return { result: undefined, details: { reason: reason ?? null } }
      })
    },

    /** Leaves a tombstone: the version goes on, so that no gateway's old record can ever match again. */
    async remove (context: ChangeContext, target: KeyTarget): Promise<void> {
      await change(context, target, 'delete', async (tx, key) => {
        await eraseSecrets(tx, key)
        await eraseSettings(tx, key)
        return { result: undefined, details: {} }
      })
    }
  }
}

export type KeyCommands = ReturnType<typeof createKeyCommands>

/** The role that a body names, kept as it is until the transaction ends. */
async function roleNamed (tx: Executor, projectId: string, name: string | null | undefined): Promise<Role | undefined> {
  return typeof name === 'string' ? await holdRole(tx, projectId, { name }) : undefined
}
